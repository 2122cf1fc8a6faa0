"""A checkpoint folder as a torch module with its tokenizer, or a refusal in words.

transformers fills missing tensors with random numbers and goes on; here anything missing,
unexpected or misshapen is refused, except a new task head where the caller allows one.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from compressor.checkpoint.packed import unpacked
from compressor.data.tasks import TASKS
from compressor.errors import InputError
from compressor.model.pruned import register
from compressor.model.reader import Reader, images_of
from compressor.model.tasks import task_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from compressor.checkpoint.folder import Checkpoint

NO_HEAD = "AutoModel"


@dataclass
class Loaded:
    """A model in fp32 and evaluation mode, with what it came from.

    A transform changes the module in place, and may put another tokenizer beside it.

    Attributes:
        model: the torch module.
        tokenizer: its tokenizer; None for models of images, and where it was not asked for.
        checkpoint: the opened folder.
        task: a key of `TASKS`, or None for a model without a head.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase | None
    checkpoint: Checkpoint
    task: str | None

    @property
    def reader(self) -> Reader:
        """What turns rows into inputs of the model."""
        return Reader(self.tokenizer, images_of(self.checkpoint), longest_input(self))

    def with_model(self, model: PreTrainedModel) -> Loaded:
        """The same tokenizer and origin around another module."""
        return replace(self, model=model)


def quiet_libraries() -> None:
    """Silence the chatter of transformers and its like; errors still raise."""
    import logging
    import warnings

    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for name in ("accelerate", "compressed_tensors", "datasets", "torch.onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(torch|transformers|compressed_tensors)\..*")


@contextmanager
def silenced() -> Iterator[None]:
    """Drop what libraries draw on stderr whatever their verbosity; failures still raise."""
    with redirect_stderr(io.StringIO()):
        yield


def load(
    checkpoint: Checkpoint,
    task: str | None,
    *,
    labels: tuple[str, ...] | None = None,
    new_head: bool = False,
    attention: str | None = None,
    seed: int = 0,
    values: bool = True,
    own_head: bool = False,
    tokenizer: bool = True,
) -> Loaded:
    """Load a checkpoint for a task.

    Args:
        checkpoint: the opened folder.
        task: a key of `TASKS`; None loads the model without a head.
        labels: names of the classes of a new head.
        new_head: make a fresh head when the checkpoint has none for this task.
        attention: "eager" where attention scores, second derivatives or ONNX fusion are needed;
            None for the fastest that the family has.
        seed: of a new head's first weights.
        values: False reads none and leaves the module on the meta device, which costs no memory
            and tells whether the checkpoint would load.
        own_head: without a task, keep the head that the checkpoint has.
        tokenizer: False leaves it out, for whoever has ids already.

    Raises:
        InputError: tensors missing, unexpected or of another shape than the config says.
    """
    import torch
    import transformers

    quiet_libraries()
    options: dict[str, Any] = {} if values else {"device_map": "meta"}
    if attention:  # asking for a kind that a family lacks is refused
        options["attn_implementation"] = attention
    if new_head and task and TASKS[task].labelled:
        options["num_labels"] = len(labels) if labels else 1
        if labels:
            options["id2label"] = dict(enumerate(labels))
            options["label2id"] = {name: index for index, name in enumerate(labels)}
        # A head for other labels is a new head, even where an old one exists.
        options["ignore_mismatched_sizes"] = True
        kind = "regression" if task == "regression" else "single_label_classification"
        options["problem_type"] = kind
    if checkpoint.model_type != checkpoint.family:
        register(checkpoint.family)
    name = TASKS[task].auto_class if task else NO_HEAD
    model_class = getattr(transformers, name)
    if own_head and task is None:
        model_class = _own_class(checkpoint) or model_class
    torch.manual_seed(seed)
    with silenced(), unpacked(checkpoint.path) as folder:
        try:
            model, report = model_class.from_pretrained(
                folder,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
        except (ValueError, RuntimeError, KeyError, ImportError, OSError) as problem:
            raise InputError(
                f"transformers cannot load {checkpoint.name} as {model_class.__name__}: "
                f"{str(problem).splitlines()[0]}",
                where=str(checkpoint.path),
            ) from problem
    has_head = "For" in model_class.__name__
    _refuse_incomplete(checkpoint, model, report, new_head=new_head, has_head=has_head)
    beside = _tokenizer(checkpoint, model) if tokenizer else None
    return Loaded(model.eval(), beside, checkpoint, task)


def load_whole(
    checkpoint: Checkpoint, *, attention: str | None = None, values: bool = True
) -> Loaded:
    """Load a checkpoint with the head that it has, also one for a task that is not in `TASKS`.

    Args:
        checkpoint: the opened folder.
        attention: see `load`.
        values: see `load`.
    """
    return load(checkpoint, task_of(checkpoint), attention=attention, values=values, own_head=True)


def _own_class(checkpoint: Checkpoint) -> Any:
    """The class of transformers that the config names, if it is one of the checkpoint's family."""
    import transformers

    found = getattr(transformers, checkpoint.architecture or "", None)
    if not (isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)):
        return None
    model_type = getattr(found.config_class, "model_type", None)
    return found if model_type == checkpoint.model_type else None


def _refuse_incomplete(
    checkpoint: Checkpoint,
    model: PreTrainedModel,
    report: dict[str, Any],
    *,
    new_head: bool,
    has_head: bool,
) -> None:
    """Refuse what `from_pretrained` only reports (missing, unexpected and misshapen tensors)."""
    prefix = f"{model.base_model_prefix}."

    def of_the_body(name: str) -> bool:
        return name.startswith(prefix) and ".pooler." not in name

    missing = sorted(report["missing_keys"])
    misshapen = sorted(str(entry[0]) for entry in report.get("mismatched_keys", ()))
    unexpected = sorted(report["unexpected_keys"])
    if new_head:
        missing = [name for name in missing if of_the_body(name)]
        misshapen = [name for name in misshapen if of_the_body(name)]
        unexpected = [name for name in unexpected if of_the_body(name)]
    elif not has_head:
        unexpected = []  # the head and the pooler that a bare model leaves behind
        missing = [name for name in missing if "pooler" not in name]
    for names, what in (
        (missing, "lacks"),
        (misshapen, "has another shape than its config says for"),
        (unexpected, "holds tensors that its config knows nothing of:"),
    ):
        if names:
            shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if names[5:] else "")
            only_head = what == "lacks" and not any(of_the_body(name) for name in names)
            raise InputError(
                f"{checkpoint.name} {what} {shown} ({len(names)} in all)",
                hint=f"train the head first: compressor finetune {checkpoint.path} --data DATA"
                if only_head
                else "fetch or save the checkpoint again",
                where=str(checkpoint.path),
            )


def _tokenizer(checkpoint: Checkpoint, model: PreTrainedModel) -> PreTrainedTokenizerBase | None:
    """The folder's tokenizer, with a padding token (decoders pad with their end token)."""
    import transformers

    if checkpoint.reads_images:
        return None
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            checkpoint.path, local_files_only=True
        )
    except (ValueError, OSError, TypeError, KeyError) as problem:
        raise InputError(
            f"the tokenizer of {checkpoint.name} cannot be loaded: {str(problem).splitlines()[0]}",
            where=str(checkpoint.path),
        ) from problem
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if model.config.get_text_config().pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer


def longest_input(loaded: Loaded) -> int:
    """The most tokens that model and tokenizer take; 1 for a model of images, which takes none."""
    if loaded.tokenizer is None:
        return 1
    positions = getattr(loaded.model.config, "max_position_embeddings", None) or 10**9
    if loaded.checkpoint.family in ("roberta", "xlm-roberta", "camembert", "mpnet"):
        positions -= 2  # these families start counting positions after the padding index
    return min(positions, loaded.tokenizer.model_max_length)
