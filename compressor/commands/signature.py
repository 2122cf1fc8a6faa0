"""A verb's function under a signature with all the flags that one command line makes possible.

A verb is `run(...)` in its own file. Its dataclass parameters become flags, its slots take
methods, and the methods that the words name add their own options.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from compressor.commands.options import parameters_of, rebuild
from compressor.commands.slots import Methods, Picked, Slot, chosen_methods
from compressor.methods.find import known

KEYWORD = inspect.Parameter.KEYWORD_ONLY
GIVEN = ("words", "methods")


def command_for(verb: str, words: Sequence[str]) -> Callable[..., Callable[[], None]]:
    """The function that Typer turns into the command `verb` for these words.

    It checks the options and returns the verb's call, which `dispatch` then makes.

    Args:
        verb: name of a file in `compressor/commands/`.
        words: the words after the verb, not parsed yet.

    Raises:
        UsageError: the words name a method that does not exist.
    """
    module = importlib.import_module(f"compressor.commands.{verb}")
    slots: tuple[Slot, ...] = getattr(module, "SLOTS", ())
    chosen = chosen_methods(slots, words, verb)
    own = inspect.signature(module.run, eval_str=True).parameters
    groups = {
        name: parameter.annotation
        for name, parameter in own.items()
        if name not in GIVEN and hasattr(parameter.annotation, "__dataclass_fields__")
    }
    flags = [
        parameter.replace(kind=KEYWORD)
        for name, parameter in own.items()
        if name not in groups and name not in GIVEN
    ]
    helping = not {"-h", "--help"}.isdisjoint(words)
    flags += [_slot_parameter(slot, verb, listing=helping) for slot in slots]
    every = [method for methods in chosen.values() for method in methods]
    for options in (*dict.fromkeys(method.options for method in every), *groups.values()):
        # Methods used together share a flag of the same name.
        taken = {parameter.name for parameter in flags}
        flags += [made for made in parameters_of(options) if made.name not in taken]

    def command(**values: Any) -> Callable[[], None]:
        given: dict[str, Any] = {
            name: value for name, value in values.items() if name in own and name not in groups
        }
        given.update({name: rebuild(options, values) for name, options in groups.items()})
        if "words" in own:
            given["words"] = [verb, *words]
        if slots:
            picked = {
                slot: [Picked(method, rebuild(method.options, values)) for method in methods]
                for slot, methods in chosen.items()
            }
            typed = {slot.name: values[f"slot_{slot.name}"] for slot in slots}
            given["methods"] = Methods(picked, typed)
        return partial(module.run, **given)

    command.__signature__ = inspect.Signature(flags)
    command.__doc__ = module.run.__doc__
    return command


def _slot_parameter(slot: Slot, verb: str, *, listing: bool) -> inspect.Parameter:
    """The flag of a slot, as text: `chosen_methods` has read it already."""
    import typer

    text = slot.help
    if listing:  # it imports every method's file
        text += f": {', '.join(known(slot.kinds, slot.flag, verb))}"
    if slot.default:
        text += f" [default: {slot.default}]"
    annotation = Annotated[
        list[str] if slot.many else str, typer.Option(slot.flag, help=text, show_default=False)
    ]
    default: Any = [] if slot.many else ""
    return inspect.Parameter(f"slot_{slot.name}", KEYWORD, default=default, annotation=annotation)


def known_flags(verb: str, words: Sequence[str]) -> set[str]:
    """Every long flag that `verb` takes with the methods that `words` name."""
    import typer

    found = set()
    for parameter in inspect.signature(command_for(verb, words)).parameters.values():
        for part in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(part, type(typer.Option())):
                # Inside Annotated, Typer keeps the first spelling where the default would be.
                first = [part.default] if isinstance(part.default, str) else []
                spellings = [*first, *(part.param_decls or ())]
                spellings = spellings or ["--" + parameter.name.replace("_", "-")]
                every = (word for text in spellings for word in text.split("/"))
                found.update(word for word in every if word.startswith("--"))
    return found
