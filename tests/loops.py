"""Short trainings of a tiny model by the loop itself, without the command line."""

import tiny
from compressor.data.dataset import open_dataset
from compressor.data.encode import encode
from compressor.methods.objectives import task
from compressor.model.load import Loaded
from compressor.train.accelerator import make_accelerator
from compressor.train.feed import Feed
from compressor.train.options import TrainingOptions
from compressor.train.run import Run
from compressor.train.state import StateFolder

OPTIONS = TrainingOptions(epochs=2, learning_rate=5e-3, batch_size=16, save_steps=3)


def make_feeds(folder, train):
    dataset = open_dataset(str(tiny.data(folder / "data", train=train, validation=48)))
    tokenizer = tiny.tokenizer()

    def feed(split):
        encoded = encode(
            dataset.rows(split), tokenizer, dataset.task, max_length=32, folder=folder / split
        )
        return Feed(encoded, tokenizer, dataset.task, 16, seed=1)

    return feed("train"), feed("validation")


def make_run(feeds, folder, options=OPTIONS, *, objective=None, modifiers=(), watch=None, seed=1):
    """A run on a fresh tiny model; `watch(step)` is called before each step."""
    feed, held_out = feeds
    folder.mkdir(parents=True, exist_ok=True)
    loaded = Loaded(tiny.model(seed=0), feed.tokenizer, None, "text-classification")
    watchers = [lambda context: Watcher(watch)] if watch else []
    state = StateFolder(folder / "out", {"seed": seed, "lr": options.learning_rate})
    state.prepare(resume=options.resume, force=False)
    return Run(
        student=loaded,
        objectives=[objective or (lambda context: task.Objective(task.Options(), context))],
        modifiers=[*modifiers, *watchers],
        feed=feed,
        held_out=held_out,
        options=options,
        seed=seed,
        state=state,
        accelerator=make_accelerator(options, "cpu"),
    )


class Watcher:
    def __init__(self, watch):
        self.watch = watch

    def before_step(self, step):
        self.watch(step)
