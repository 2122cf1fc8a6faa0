"""The command line, and the one place where an error becomes an exit code.

Exit codes: 0 done; 1 a bug of ours; 2 usage; 3 input refused; 4 a gate refused; 5 training
diverged; 6 the machine; 130/143 stopped by a signal, state saved. Nothing here imports torch.
"""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated

from compressor import __version__, console
from compressor.errors import CompressorError, MachineError, UsageError

VERBS = {
    "finetune": "Train a checkpoint on a task.",
    "distill": "Train a smaller student to answer like its teacher.",
    "prune": "Remove weights or layers from a checkpoint.",
    "quantize": "Store a checkpoint's weights as int8.",
    "export": "Make an ONNX folder that ONNX Runtime runs fast, int8 by default.",
    "benchmark": "Measure accuracy, size and latency against a baseline, with gates.",
    "inspect": "Show what a checkpoint is made of, without loading it.",
    "methods": "List the methods, or show one with its options.",
    "run": "Run a recipe: the same verbs in order, finished steps skipped.",
}
EPILOG = (
    "Exit codes: 0 done, 1 bug, 2 usage, 3 input refused, 4 gate refused, 5 training diverged, "
    "6 machine, 130/143 interrupted."
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(words: list[str]) -> int:
    """Run one command line; returns the exit code."""
    before = (console.settings.quiet, console.settings.debug, console.settings.json)
    console.settings.quiet = "--quiet" in words or not console.is_main_process()
    console.settings.debug = "--debug" in words
    console.settings.json = "--json" in words
    try:
        dispatch(words)
    except BaseException as problem:
        return _exit_code(problem)
    finally:
        console.settings.quiet, console.settings.debug, console.settings.json = before
    return 0


def _exit_code(problem: BaseException) -> int:
    """Say what went wrong, and the code that tells a script."""
    if isinstance(problem, SystemExit):
        raise problem
    if isinstance(problem, BrokenPipeError):
        # The reader of our stdout has left: nothing to say to it, and nothing at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(problem, KeyboardInterrupt):
        console.note("stopped")
        return 130
    known = _in_words(problem)
    if known is None:
        return _bug(problem)
    if console.settings.debug:
        traceback.print_exception(problem)
    console.error(known)
    return known.exit_code


def _in_words(problem: BaseException) -> CompressorError | None:
    """The failure as one of ours; None for what nobody foresaw."""
    if isinstance(problem, CompressorError):
        return problem
    hint = "a smaller --batch-size or a shorter --max-length"
    if isinstance(problem, MemoryError) or type(problem).__name__ == "OutOfMemoryError":
        return MachineError(f"out of memory: {problem}".rstrip(": "), hint=hint)
    if isinstance(problem, ModuleNotFoundError):
        package = (problem.name or "").partition(".")[0]
        return MachineError(f"package {package} is missing", hint=f"pip install {package}")
    if isinstance(problem, OSError):
        return MachineError(str(problem))
    return None


def dispatch(words: list[str]) -> None:
    """Parse the words and run their verb.

    Raises:
        CompressorError: the command failed in a way that can be explained.
    """
    import typer

    from compressor.commands.signature import command_for

    if words[:1] == ["--version"]:
        console.result(f"compressor {__version__}")
        return
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
        code = app(words, standalone_mode=False, prog_name="compressor")
    except typer.TyperException as problem:
        raise _usage(problem, verb, words) from None
    except typer.Abort:
        raise KeyboardInterrupt from None
    if isinstance(code, int) and code:
        raise UsageError("see compressor --help")


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


def _bug(problem: BaseException) -> int:
    """One sentence about a failure that nobody foresaw, and where its traceback is."""
    text = "".join(traceback.format_exception(problem))
    if console.settings.debug:
        sys.stderr.write(text)
    with tempfile.NamedTemporaryFile("w", prefix="compressor-", suffix=".log", delete=False) as log:
        log.write(text)
    first_line = str(problem).partition("\n")[0]
    console.error(
        CompressorError(
            f"unexpected {type(problem).__name__}: {first_line}", hint=f"report it with {log.name}"
        )
    )
    return 1


if __name__ == "__main__":
    main()
