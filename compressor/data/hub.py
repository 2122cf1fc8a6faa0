"""Data sets of the Hugging Face hub, through the `datasets` library.

The library keeps what it fetches as arrow files, which `tables` then reads like any other file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compressor import console
from compressor.errors import InputError, MachineError

if TYPE_CHECKING:
    from datasets import DatasetDict

# The hub's names of a split, the best one first. MNLI has two validation splits.
HUB_SPLITS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test", "test_matched"),
}


def fetch(name: str) -> dict[str, list[Path]]:
    """Fetch `name[/config]` and return the arrow files of each split.

    Args:
        name: `owner/name`, `owner/name/config`, or the old forms `name` and `name/config`.

    Raises:
        InputError: the hub has no such data set, or it cannot be read without running its code.
        MachineError: the hub cannot be reached.
    """
    console.note(f"fetching {name} from the hub")
    found = _load(name)
    splits: dict[str, list[Path]] = {}
    for split, names in HUB_SPLITS.items():
        theirs = next((each for each in names if each in found), None)
        if theirs:
            splits[split] = [Path(file["filename"]) for file in found[theirs].cache_files]
    if not splits:
        raise InputError(
            f"has no train, validation or test split; its splits are {', '.join(found)}",
            where=f"hub:{name}",
        )
    return splits


def _load(name: str) -> DatasetDict:
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    datasets.disable_progress_bars()
    parts = name.split("/")
    # "a/b" is owner and name, or the old form of name and config: the first that exists.
    tries: list[tuple[str, str | None]] = [(name, None)] if len(parts) < 3 else []
    if len(parts) > 1:
        tries.append(("/".join(parts[:-1]), parts[-1]))
    for path, config in tries:
        try:
            return datasets.load_dataset(path, config, keep_in_memory=False)
        except ConnectionError as problem:
            raise MachineError(
                f"the hub cannot be reached: {_first_line(problem)}",
                hint="check the network and HF_HUB_OFFLINE, or name a local folder",
                where=f"hub:{name}",
            ) from problem
        except DatasetNotFoundError:
            continue
        except (ValueError, RuntimeError, OSError) as problem:
            raise InputError(_first_line(problem), where=f"hub:{name}") from problem
    raise InputError(
        "the hub has no such data set, or it is not public",
        hint="hub:owner/name or hub:owner/name/config",
        where=f"hub:{name}",
    )


def _first_line(problem: Exception) -> str:
    return str(problem).strip().split("\n")[0][:300]
