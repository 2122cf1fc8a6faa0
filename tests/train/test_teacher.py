"""The teacher is asked once for each distinct row, and never when the answers are there."""

import numpy as np
import pytest
import torch

import tiny
from compressor.data.dataset import open_dataset
from compressor.data.encode import encode
from compressor.errors import InputError, Interrupted, UsageError
from compressor.methods.contract import Context
from compressor.methods.find import every
from compressor.model.inputs import fed
from compressor.model.load import Loaded
from compressor.model.views import ATTENTION, HIDDEN, LOGITS
from compressor.train import cache, fill
from compressor.train.cache import Keeping
from compressor.train.feed import Feed
from compressor.train.run import Taught
from compressor.train.teacher import Teacher

CPU = torch.device("cpu")
ANSWERS, STATES = frozenset({LOGITS}), frozenset({HIDDEN})
ROWS = 120


def make_feed(folder, task=None, tokenizer=None, max_length=32):
    """`ROWS` rows, of which the last 40 repeat the first 40."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        file = tiny.data(folder / "data", train=ROWS - 40) / "train.jsonl"
        lines = file.read_text().splitlines()
        file.write_text("\n".join(lines + lines[:40]) + "\n")
    dataset = open_dataset(str(folder / "data"), task=task)
    tokenizer = tokenizer or tiny.tokenizer()
    place = folder / f"rows-{len(list(folder.iterdir()))}"
    encoded = encode(
        dataset.rows("train"), tokenizer, dataset.task, max_length=max_length, folder=place
    )
    return Feed(encoded, tokenizer, dataset.task, 8, seed=0)


def distinct_texts(feed):
    bounds = zip(feed.encoded.offsets[:-1], feed.encoded.offsets[1:], strict=True)
    return len({feed.encoded.ids[a:b].tobytes() for a, b in bounds})


def loaded(model, feed, task="text-classification"):
    return Loaded(model, feed.tokenizer, None, task)


def make(models, feed, folder, shows=ANSWERS, check=lambda: None, weights=None, **keeping):
    weights = weights or [1.0] * len(models)
    taught = [Taught(loaded(m, feed), w) for m, w in zip(models, weights, strict=True)]
    keeping = Keeping(folder, **keeping)
    return Teacher(taught, feed, CPU, shows, keeping=keeping, check=check)


def counted(model):
    """The model, with the rows that it was asked about counted in `rows`."""
    model.rows = 0

    def count(module, arguments, options):
        model.rows += len(options["input_ids"])

    model.register_forward_pre_hook(count, with_kwargs=True)
    return model


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_distinct_rows_are_asked_once_whatever_the_epochs(tmp_path):
    feed, model = make_feed(tmp_path), counted(tiny.model())
    teacher = make([model], feed, tmp_path / "cache")
    distinct = distinct_texts(feed)
    assert distinct <= ROWS - 40
    assert model.rows == distinct + 1  # one row more to see the shapes
    for epoch in range(2):
        for rows in feed.plan(epoch):
            batch = feed.batch(rows, CPU)
            kept = teacher(batch).logits
            torch.testing.assert_close(kept, teacher.ask(batch).logits, rtol=1e-4, atol=1e-5)
    model.rows = 0
    for rows in feed.plan(2):
        teacher(feed.batch(rows, CPU))
    assert model.rows == 0
    assert sorted(contents(tmp_path / "cache")) == ["cache.json", "logits.npy"]


def test_later_runs_of_any_seed_and_batch_size_read_what_is_there(tmp_path):
    feed, model = make_feed(tmp_path), counted(tiny.model())
    first = make([model], feed, tmp_path / "cache")
    before, model.rows = contents(tmp_path / "cache"), 0
    other = Feed(feed.encoded, feed.tokenizer, feed.task, batch_size=16, seed=7)
    again = make([model], other, tmp_path / "cache")
    batch = other.batch(other.plan(1)[0], CPU)
    assert torch.equal(first(batch).logits, again(batch).logits)
    assert model.rows == 0
    assert contents(tmp_path / "cache") == before


def test_the_bytes_do_not_depend_on_the_run_that_writes_them(tmp_path):
    feed = make_feed(tmp_path)
    other = Feed(feed.encoded, feed.tokenizer, feed.task, batch_size=3, seed=7)
    for name, one in (("one", feed), ("two", other)):
        make([tiny.model()], one, tmp_path / name)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    ("bound_to", "options", "named"),
    [
        ({"teachers": {"teacher": {"weights": "b"}}}, {}, "teachers.teacher.weights: a -> b"),
        ({"data": "e"}, {}, "data: d -> e"),
        ({}, {"max_length": 8}, "max_length: 32 -> 8"),
    ],
)
def test_other_answers_are_refused_by_name(tmp_path, bound_to, options, named):
    usual = {"teachers": {"teacher": {"weights": "a"}}, "data": "d"}
    make([tiny.model()], make_feed(tmp_path), tmp_path / "cache", bound_to=usual)
    before = contents(tmp_path / "cache")
    feed = make_feed(tmp_path, **options)
    with pytest.raises(InputError, match=named) as caught:
        make([tiny.model()], feed, tmp_path / "cache", bound_to={**usual, **bound_to})
    assert "--teacher-cache" in caught.value.hint
    assert contents(tmp_path / "cache") == before


def test_other_tokens_are_refused_even_where_nothing_else_tells(tmp_path):
    make([tiny.model()], make_feed(tmp_path), tmp_path / "cache")
    tiny.data(tmp_path / "other" / "data", train=ROWS, seed=5)
    with pytest.raises(InputError, match=r"tokens: sha256:.* -> sha256:"):
        make([tiny.model()], make_feed(tmp_path / "other"), tmp_path / "cache")


def test_a_folder_of_something_else_is_refused_and_left(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(InputError, match="no teacher's cache"):
        make([tiny.model()], make_feed(tmp_path), tmp_path / "letters")
    assert contents(tmp_path / "letters") == {"a.txt": b"dear"}


def test_the_limit_is_kept_before_anything_is_written(tmp_path, capsys):
    feed, model = make_feed(tmp_path), tiny.model()
    make([model], feed, tmp_path / "cache")
    size = sum(map(len, contents(tmp_path / "cache").values()))
    teacher = make([model], feed, tmp_path / "small", limit=size)
    assert teacher.cache is None
    assert "--cache-limit" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()
    batch = feed.batch(feed.plan(0)[0], CPU)
    with torch.no_grad():
        torch.testing.assert_close(teacher(batch).logits, model(**fed(model, batch)).logits)
    teacher = make([model], feed, tmp_path / "large", limit=size + 10_000)
    assert teacher.cache is not None

    with pytest.raises(UsageError, match=r"[\d.]+ kB, and --cache-limit allows") as caught:
        make([model], feed, tmp_path / "small", STATES, hidden=True, limit=20_000)
    assert "--cache-limit" in caught.value.hint
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("shows", [ANSWERS, STATES | ANSWERS])
@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_killed_while_filling_it_goes_on_to_the_same_bytes(tmp_path, monkeypatch, shows, stop_at):
    monkeypatch.setattr(fill, "BATCH_ROWS", 16)
    monkeypatch.setattr(fill, "BATCHES_BETWEEN_SYNCS", 2)
    feed, model = make_feed(tmp_path), counted(tiny.model())
    hidden = HIDDEN in shows
    make([model], feed, tmp_path / "whole", shows, hidden=hidden)
    asked, model.rows = model.rows, 0
    calls = []

    def stop():
        calls.append(1)
        if len(calls) > stop_at:
            raise Interrupted("stopped", signal_number=15)

    with pytest.raises(Interrupted):
        make([model], feed, tmp_path / "cut", shows, hidden=hidden, check=stop)
    assert not list((tmp_path / "cut").glob("*.npy"))
    model.rows = 0
    make([model], feed, tmp_path / "cut", shows, hidden=hidden)
    saved = 16 * (stop_at // 2 * 2)  # the batches that were forced to disk are not asked again
    assert model.rows == asked - saved
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_note_about_other_arrays_is_not_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(fill, "BATCH_ROWS", 16)
    monkeypatch.setattr(fill, "BATCHES_BETWEEN_SYNCS", 1)
    feed, model, calls = make_feed(tmp_path), tiny.model(), []

    def stop():
        calls.append(1)
        if len(calls) in (3, 5):
            raise Interrupted("stopped", signal_number=15)

    both = STATES | ANSWERS
    with pytest.raises(Interrupted):
        make([model], feed, tmp_path / "cache", both, hidden=True, check=stop)
    monkeypatch.setattr(fill, "BATCHES_BETWEEN_SYNCS", 99)
    with pytest.raises(Interrupted):  # before it has noted a batch of its own
        make([model], feed, tmp_path / "cache", ANSWERS, check=stop)
    make([model], feed, tmp_path / "cache", both, hidden=True)
    make([model], feed, tmp_path / "whole", both, hidden=True)
    found, wanted = contents(tmp_path / "cache"), contents(tmp_path / "whole")
    assert {name: found[name] for name in wanted} == wanted


def test_a_cut_array_is_refused(tmp_path):
    feed = make_feed(tmp_path)
    make([tiny.model()], feed, tmp_path / "cache")
    file = tmp_path / "cache" / "logits.npy"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(InputError, match=r"logits.npy is damaged"):
        make([tiny.model()], feed, tmp_path / "cache")


def test_kept_hidden_states_are_the_live_ones_at_every_real_token(tmp_path):
    feed, model = make_feed(tmp_path), tiny.model()
    make([model], feed, tmp_path / "cache")  # the states join the logits of an earlier run
    teacher = make([model], feed, tmp_path / "cache", STATES | ANSWERS, hidden=True)
    flat = np.load(tmp_path / "cache" / "hidden.npy", mmap_mode="r")
    assert flat.shape[1:] == (3, 32)
    for rows in (np.arange(8), np.arange(100, 108)):  # in the order of the file: all lengths
        batch = feed.batch(rows, CPU)
        kept, live = teacher(batch), teacher.ask(batch)
        real = batch["attention_mask"].bool()
        assert not real.all()
        assert len(kept.hidden) == len(live.hidden) == 3
        for ours, theirs in zip(kept.hidden, live.hidden, strict=True):
            assert ours.shape == theirs.shape
            assert ours.dtype == torch.float32
            # float16 has eleven bits
            torch.testing.assert_close(ours[real], theirs[real], rtol=2**-10, atol=1e-4)
            assert not ours[~real].any()
        torch.testing.assert_close(kept.logits, live.logits, rtol=1e-4, atol=1e-5)


def test_hidden_states_are_kept_only_when_asked_for_and_attention_never(tmp_path):
    feed, model = make_feed(tmp_path), tiny.model()
    live = make([model], feed, tmp_path / "cache", STATES)
    assert "--cache-hidden" in live.why_not
    assert live.cache is None
    both = STATES | {ATTENTION}
    assert make([model], feed, tmp_path / "cache", both).cache is None
    with pytest.raises(UsageError, match="queries, keys and values"):
        make([model], feed, tmp_path / "cache", both, hidden=True)
    with pytest.raises(UsageError, match="no objective looks at"):
        make([model], feed, tmp_path / "cache", ANSWERS, hidden=True)
    assert not (tmp_path / "cache").exists()


def test_hidden_states_too_large_for_their_format_are_refused(tmp_path):
    feed, model = make_feed(tmp_path), tiny.model()
    with torch.no_grad():
        model.bert.embeddings.LayerNorm.weight.mul_(1e6)
    with pytest.raises(InputError, match="too large for float16"):
        make([model], feed, tmp_path / "cache", STATES, hidden=True)


def test_several_teachers_are_averaged_by_weight(tmp_path):
    feed = make_feed(tmp_path)
    models = [tiny.model(seed=seed) for seed in (0, 1)]
    teacher = make(models, feed, tmp_path / "cache", weights=[3, 1])
    batch = feed.batch(feed.plan(0)[0], CPU)
    with torch.no_grad():
        first, second = (model(**fed(model, batch)).logits for model in models)
    wanted = 0.75 * first + 0.25 * second
    torch.testing.assert_close(teacher(batch).logits, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(teacher.ask(batch).logits, wanted)


def test_a_teacher_with_another_tokenizer_reads_its_own_tokens(tmp_path):
    feed = make_feed(tmp_path)
    own = make_feed(tmp_path, tokenizer=reversed_words())
    assert not np.array_equal(own.encoded.ids, feed.encoded.ids)
    model = tiny.model()
    for limit, kept in ((10**9, True), (10, False)):
        taught = [Taught(loaded(model, own), feed=own)]
        keeping = Keeping(tmp_path / "cache", limit)
        teacher = Teacher(taught, feed, CPU, ANSWERS, keeping=keeping, check=lambda: None)
        assert (teacher.cache is not None) is kept
        batch = feed.batch(feed.plan(0)[0], CPU)
        theirs = own.batch(batch["rows"].numpy(), CPU)
        with torch.no_grad():
            wanted = model(**fed(model, theirs)).logits
            unwanted = model(**fed(model, batch)).logits
        torch.testing.assert_close(teacher(batch).logits, wanted, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(wanted, unwanted, atol=1e-2)
    with pytest.raises(UsageError, match="tokens of its own"):
        Teacher(taught, feed, CPU, STATES, keeping=Keeping(tmp_path / "c"), check=lambda: None)


def reversed_words():
    """A tokenizer with the same words under other numbers."""
    import json

    from tokenizers import Tokenizer
    from transformers import BertTokenizerFast

    content = json.loads(tiny.tokenizer().backend_tokenizer.to_str())
    vocabulary = content["model"]["vocab"]
    words = [word for word in vocabulary if word in tiny.WORDS]
    numbers = [vocabulary[word] for word in words]
    vocabulary.update(zip(words, reversed(numbers), strict=True))
    core = Tokenizer.from_str(json.dumps(content))
    return BertTokenizerFast(tokenizer_object=core, model_max_length=64)


def test_a_masked_lm_is_asked_each_time_because_its_inputs_change(tmp_path):
    feed = make_feed(tmp_path, task="masked-lm")
    model = tiny.model(head="AutoModelForMaskedLM", labels=None)
    teacher = make([model], feed, tmp_path / "cache")
    rows = feed.plan(0)[0]
    first, second = (feed.batch(rows, CPU, epoch, 0) for epoch in (0, 1))
    assert not torch.equal(first["input_ids"], second["input_ids"])
    assert not torch.equal(teacher(first).logits, teacher(second).logits)
    assert "masked LM" in teacher.why_not
    assert not (tmp_path / "cache").exists()


def test_two_runs_at_once_fill_the_folder_once(tmp_path, monkeypatch):
    """The second one waits and finds everything there."""
    feed, first, second = make_feed(tmp_path), counted(tiny.model()), counted(tiny.model())
    waited = []

    class Waiting:
        def __init__(self, folder, check):
            pass

        def __call__(self):
            waited.append(1)
            if len(waited) == 3:  # the other run comes to its end
                (tmp_path / "elsewhere").rename(tmp_path / "cache")
                holder.__exit__(None, None, None)

    monkeypatch.setattr(cache, "_Waiting", Waiting)
    make([first], feed, tmp_path / "elsewhere")
    holder = cache.locked(tmp_path / "cache")
    holder.__enter__()
    make([second], feed, tmp_path / "cache")
    assert len(waited) == 3
    assert second.rows == 1


def test_methods_that_take_any_tokenizer_look_at_answers_alone():
    config = tiny.config(labels=("one", "two", "three"))
    context = Context(tiny.model(), "text-classification", config, config, 10, 5, 1e-3)
    free = [m for m in every() if getattr(m.module, "ANY_TOKENIZER", False)]
    assert "soft_labels" in {method.name for method in free}
    for method in free:
        objective = method.module.Objective(method.options(), context)
        assert objective.teacher_shows <= ANSWERS, method.name
        assert LOGITS in objective.student_shows, method.name


def test_a_run_that_waits_says_so_once_and_can_be_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cache, "_WAIT_SECONDS", 0)
    feed, calls = make_feed(tmp_path), []

    def check():
        calls.append(1)
        if len(calls) == 3:
            raise Interrupted("stopped", signal_number=15)

    with cache.locked(tmp_path / "cache"), pytest.raises(Interrupted):
        make([tiny.model()], feed, tmp_path / "cache", check=check)
    assert capsys.readouterr().err.count("another run is writing the teacher's answers") == 1
