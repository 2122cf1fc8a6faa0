"""`finetune --domains`: what every model has not seen, the report, reuse, and refusals."""

import json

import pytest

import tiny
from compressor.cli import run
from compressor.commands.domains import folder_name, rounds_of, words_for
from compressor.commands.options import Shared
from compressor.errors import InputError

ROUNDED = ("worst", "adaptive_worst", "average")


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Rows of three domains; those of `films` have no training rows."""
    folder = tmp_path_factory.mktemp("shop")
    tiny.checkpoint(folder / "base")
    (folder / "rows").mkdir()
    rows = tiny.rows(400)
    parts = {
        "train": [("food", 160), ("phones", 160)],
        "validation": [("food", 20), ("phones", 20)],
        "test": [("food", 10), ("films", 30)],
    }
    taken = iter(rows)
    for split, domains in parts.items():
        made = [{**next(taken), "at": name} for name, count in domains for _ in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in made)
        (folder / "rows" / f"{split}.jsonl").write_text(text)
    return folder


@pytest.fixture(scope="module")
def sweep(shop):
    words = (
        f"finetune {shop}/base --data {shop}/rows --domains --domain-column at --epochs 12 "
        f"--batch-size 16 --lr 4e-3 -o {shop}/sweep"
    )
    assert run(words.split()) == 0
    return words.split(), shop / "sweep"


def report_of(folder):
    return json.loads((folder / "report/domains.json").read_text())


def test_every_domain_is_tested_by_a_model_without_it(sweep):
    found = {entry["domain"]: entry for entry in report_of(sweep[1])["domains"]}
    assert {name: entry["model"] for name, entry in found.items()} == {
        "films": "without-films",
        "food": "without-food",
        "phones": "without-phones",
    }
    assert {name: entry["train_rows"] for name, entry in found.items()} == {
        "films": 320,
        "food": 160,
        "phones": 160,
    }
    tested = {name: (e["split"], e["outside"]["n"]) for name, e in found.items()}
    # Of phones there are no test rows; its model has seen none of its validation rows either.
    assert tested == {"films": ("test", 30), "food": ("test", 10), "phones": ("validation", 20)}
    assert found["films"]["outside"]["value"] > 0.8  # the other two are too few to tell
    assert all(entry["worst"] > 0 for entry in found.values())


def test_the_lineage_says_which_rows_were_seen(sweep):
    record = json.loads((sweep[1] / "without-food/compression.json").read_text())
    assert record["steps"][-1]["inputs"]["data"]["name"] == "rows without food"


def test_the_scores_are_those_of_benchmark(sweep, shop, tmp_path):
    words = (
        f"benchmark {sweep[1]}/without-food --baseline {sweep[1]}/without-food --data {shop}/rows "
        "--domain food --domain-column at --split test --shapes 1x8 --rounds 3 --starts 1 "
        f"-o {tmp_path}/b"
    )
    assert run(words.split()) == 0
    again = json.loads((tmp_path / "b/report.json").read_text())["models"][0]["accuracy"]
    outside = {entry["domain"]: entry["outside"] for entry in report_of(sweep[1])["domains"]}
    assert (again["value"], again["n"]) == (outside["food"]["value"], 10)


def test_a_second_run_trains_nothing_and_says_the_same(sweep, capsys):
    words, folder = sweep
    before = report_of(folder)
    assert run([*words, "--json"]) == 0
    for one, again in zip(before["domains"], report_of(folder)["domains"], strict=True):
        assert {**again, **dict.fromkeys(ROUNDED)} == {**one, **dict.fromkeys(ROUNDED)}
        # Sums over the same numbers may differ in their last bits.
        rises = [again[name] for name in ROUNDED]
        assert rises == pytest.approx([one[name] for name in ROUNDED], rel=1e-3, abs=1e-6)
    out, err = capsys.readouterr()
    values = {entry["domain"]: entry["outside"]["value"] for entry in before["domains"]}
    assert json.loads(out)["domains"] == values
    assert err.count("is already made") == 3


def test_the_table_has_every_domain(sweep):
    text = (sweep[1] / "report/domains.md").read_text()
    for name in ("films", "food", "phones", "mean"):
        assert f"\n| {name} | " in text


def test_a_dry_run_checks_every_training_and_leaves_nothing(shop, tmp_path, capsys):
    words = f"finetune {shop}/base --data {shop}/rows --domains --domain-column at --dry-run"
    assert run([*words.split(), "-o", str(tmp_path / "plan")]) == 0
    shown = capsys.readouterr().err
    for name in ("food", "phones", "films"):
        assert f"without-{name}" in shown
    assert not list(tmp_path.iterdir())


def test_words_of_one_training():
    words = "finetune - --domains --data rows -o sweep --json --epochs 2 --output=x".split()
    made = "finetune base --data rows --epochs 2 --without-domain a,b -o f --resume --reuse"
    assert words_for(words, "base", ("a", "b"), "f", Shared()) == made.split()
    assert words_for(["finetune"], "base", ("a",), "f", Shared(force=True))[-1] == "--force"
    both = words_for(["finetune"], "base", ("a",), "f", Shared(force=True, reuse=True))
    assert both[-2:] == ["--force", "--reuse"]


def test_domains_without_rows_to_train_on_share_a_model():
    counts = {"train": {"a": 2, "b": 2}, "test": {"c": 1, "d": 1}}
    assert rounds_of(counts) == [("a",), ("b",), ("c", "d")]
    assert folder_name(("c", "d/e")) == "without-c+d_e"


@pytest.mark.parametrize(
    ("counts", "problem"),
    [
        ({"train": {"a": 2}}, "one domain alone"),
        ({"test": {"a": 2, "b": 1}}, "no domain has training rows"),
        ({"train": {"a": 2}, "test": {"b": 1}}, "without a there are no training rows"),
        ({"train": {"a/b": 2, "a_b": 2, "c": 1}}, "too alike"),
        ({"train": {"a": 2, "toys, games": 2, "z": 2}}, "toys, games.* has a comma"),
    ],
)
def test_what_cannot_be_left_out_is_refused(counts, problem):
    with pytest.raises(InputError, match=problem):
        rounds_of(counts)


def test_refusals(shop, capsys):
    base = ["finetune", f"{shop}/base", "--domains"]
    assert run(base) == 2
    assert run([*base, "--data", f"{shop}/rows", "--without-domain", "food"]) == 2
    assert run([*base, "--data", f"{shop}/rows", "-o", f"{shop}/base"]) == 3
    assert run([*base, "--data", f"{shop}/rows", "-o", f"{shop}/new"]) == 3
    assert "no column 'domain'" in capsys.readouterr().err
    assert not (shop / "new").exists()


def test_a_class_that_one_domain_alone_has_is_refused_before_any_training(shop, tmp_path, capsys):
    for split in ("train", "validation", "test"):
        lines = (shop / "rows" / f"{split}.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        if split == "test":
            rows[-1]["label"] = "mixed"  # a film
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{split}.jsonl").write_text(text)
    words = f"finetune {shop}/base --data {tmp_path} --domains --domain-column at -o {tmp_path}/new"
    assert run(words.split()) == 3
    assert "mixed" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
