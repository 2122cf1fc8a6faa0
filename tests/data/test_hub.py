import datasets
import pytest
from datasets.exceptions import DatasetNotFoundError

from compressor.data.dataset import open_dataset
from compressor.errors import InputError, MachineError

FEATURES = datasets.Features(
    {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
)


def made(tmp_path, name, rows):
    """A split as the library keeps it: one arrow file in its cache."""
    path = tmp_path / f"{name}.arrow"
    with datasets.arrow_writer.ArrowWriter(path=str(path), features=FEATURES) as writer:
        for sentence, label in rows:
            writer.write({"sentence": sentence, "label": label})
        writer.finalize()
    return datasets.Dataset.from_file(str(path))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Stands in for the hub: {(path, config): DatasetDict or exception}."""
    known = {}

    def load(path, config=None, **options):
        found = known.get((path, config), DatasetNotFoundError("no such data set"))
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(datasets, "load_dataset", load)
    return known


def test_class_names_and_split_names(tmp_path, hub):
    hub[("owner/name", None)] = datasets.DatasetDict(
        {
            "train": made(tmp_path, "train", [("a", 1), ("b", 0)]),
            "validation_matched": made(tmp_path, "dev", [("c", 1)]),
            "test": made(tmp_path, "test", [("d", -1)]),
        }
    )
    dataset = open_dataset("hub:owner/name")
    assert dataset.source.hub == "owner/name"
    assert dataset.source.name == "hub:owner/name"
    assert dataset.labels == ("no", "yes")
    assert [(row.texts, row.label) for row in dataset.rows("train")] == [(("a",), 1), (("b",), 0)]
    assert dataset.has("validation")
    # a test split whose labels are held back is no test split
    assert not dataset.has("test")


def test_configurations(tmp_path, hub):
    rows = datasets.DatasetDict({"train": made(tmp_path, "train", [("a", 1), ("b", 0)])})
    hub[("glue", "cola")] = rows
    assert open_dataset("hub:glue/cola").has("train")
    hub[("nyu-mll/glue", "cola")] = rows
    assert open_dataset("hub:nyu-mll/glue/cola").has("train")


def test_refusals(tmp_path, hub):
    with pytest.raises(InputError, match="no such data set"):
        open_dataset("hub:owner/name")
    hub[("owner/name", None)] = ValueError("Config name is missing.\nPick one of a, b")
    with pytest.raises(InputError, match="Config name is missing"):
        open_dataset("hub:owner/name")
    hub[("owner/name", None)] = ConnectionError("Couldn't reach the Hub")
    with pytest.raises(MachineError, match="cannot be reached"):
        open_dataset("hub:owner/name")
    hub[("owner/name", None)] = datasets.DatasetDict({"dump": made(tmp_path, "x", [("a", 1)])})
    with pytest.raises(InputError, match="its splits are dump"):
        open_dataset("hub:owner/name")
