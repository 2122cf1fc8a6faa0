"""The Typer app: words become one verb's call.

Parsing and work are two steps, because the parser has its own idea of what a closed pipe or a
Ctrl-C means; while a verb works, its failures must reach `compressor.cli` as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

from compressor import __version__, console
from compressor.errors import UsageError

VERBS = {
    "finetune": "Train a checkpoint on a task.",
    "distill": "Train a smaller student to answer like its teacher.",
    "prune": "Remove weights, heads, neurons or layers from a checkpoint.",
    "quantize": "Store a checkpoint's weights as int8.",
    "export": "Make an ONNX folder that ONNX Runtime runs fast, int8 by default.",
    "benchmark": "Measure accuracy, size and latency against a baseline, with gates.",
    "compare": "Put stored reports side by side, with what may not be compared.",
    "generate": "Make training rows with a language model.",
    "inspect": "Show what a checkpoint is made of, without loading it.",
    "methods": "List the methods, or show one with its options.",
    "run": "Run a recipe: the same verbs in order, finished steps skipped.",
}
EPILOG = (
    "Exit codes: 0 done, 1 bug, 2 usage, 3 input refused, 4 gate refused, 5 training diverged, "
    "6 machine, 130/143 interrupted."
)
INTERRUPTED = 130


def dispatch(words: list[str]) -> None:
    """Parse the words and run their verb.

    Raises:
        CompressorError: the command failed in a way that can be explained.
    """
    if words[:1] == ["--version"]:
        console.result(f"compressor {__version__}")
        return
    call = _parse(words)
    if call is not None:
        call()


def _parse(words: list[str]) -> Callable[[], None] | None:
    """The call that the words ask for; None when help was all they wanted.

    Raises:
        UsageError: the words make no sense.
    """
    import typer

    from compressor.commands.signature import command_for

    verb = words[0] if words and words[0] in VERBS else ""
    app = typer.Typer(
        help="Make Transformer checkpoints small and fast, and prove what it cost.",
        epilog=EPILOG,
        add_completion=False,
        rich_markup_mode=None,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_top_level)
    for name, summary in VERBS.items():
        command = command_for(name, words[1:]) if name == verb else _placeholder
        app.command(name, help=summary if name != verb else command.__doc__)(command)
    try:
        parsed = app(words, standalone_mode=False, prog_name="compressor")
    except typer.TyperException as problem:
        raise _usage(problem, verb, words) from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    except SystemExit:  # what the parser makes of a reader that left while it printed help
        raise BrokenPipeError from None
    if callable(parsed):
        return parsed
    if parsed == INTERRUPTED:
        raise KeyboardInterrupt
    if parsed:
        raise UsageError("see compressor --help")
    return None


def _top_level(
    version: Annotated[bool, "the version"] = False,
) -> None:
    """Only here so that `--version` shows in the help; `dispatch` answers it."""


def _placeholder() -> None:
    """A verb that this command line does not name."""


def _usage(problem: Exception, verb: str, words: Sequence[str]) -> UsageError:
    """A parser's complaint in our words, naming the method that an alien option belongs to."""
    from compressor.commands.slots import owners_of

    message = problem.format_message()
    hint = f"compressor {verb} --help" if verb else "compressor --help"
    option = getattr(problem, "option_name", "")
    owners = owners_of(option) if option else []
    if owners:
        message = f"{option} is an option of {', '.join(owners)}, which this command does not use"
        hint = f"compressor methods {owners[0]}"
    return UsageError(message, hint=hint)
