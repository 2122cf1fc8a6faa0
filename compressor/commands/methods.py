"""`methods`: the catalogue, read from the method files themselves."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from compressor import console
from compressor.errors import UsageError
from compressor.methods.find import Method, every
from compressor.methods.option import flag_of


def run(
    name: Annotated[str, typer.Argument(metavar="[METHOD]", help="a method to show whole")] = "",
    *,
    verb: Annotated[str, typer.Option(help="only the methods of this verb")] = "",
    json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
) -> None:
    """List the methods, or show one with its options and its source.

    compressor methods

    compressor methods gmp
    """
    found = [method for method in every() if not verb or verb in method.verbs]
    if name:
        found = [method for method in found if method.name == name.replace("-", "_")]
        if not found:
            known = ", ".join(method.name for method in every())
            raise UsageError(f"no method is called {name}; there are {known}")
    if json:
        console.result_json([as_facts(method) for method in found])
    elif name:
        for method in found:
            console.result(as_text(method))
    else:
        rows = [
            (method.name, method.kind[:-1], ", ".join(method.verbs), method.summary)
            for method in found
        ]
        console.listing(("method", "kind", "verbs", "what it does"), rows)


def as_facts(method: Method) -> dict[str, Any]:
    """A method as plain data."""
    return {
        "name": method.name,
        "kind": method.kind[:-1],
        "verbs": list(method.verbs),
        "summary": method.summary,
        "options": [
            {
                "flag": flag_of(field),
                "default": field.default,
                "help": field.metadata["help"],
                "source": field.metadata["source"],
            }
            for field in dataclasses.fields(method.options)
        ],
    }


def as_text(method: Method) -> str:
    """A method for people: its docstring, then its options."""
    lines = [f"{method.name} ({method.kind[:-1]}; {', '.join(method.verbs)})", ""]
    lines += [(method.module.__doc__ or "").strip(), ""]
    fields = dataclasses.fields(method.options)
    lines.append("options:" if fields else "no options")
    width = max((len(flag_of(field)) for field in fields), default=0)
    for field in fields:
        default = f" [default: {field.default}]" if field.default != "" else ""
        choices = " (" + ", ".join(filter(None, field.metadata["choices"])) + ")"
        text = field.metadata["help"] + (choices if field.metadata["choices"] else "")
        lines.append(f"  {flag_of(field):{width}}  {text}{default}")
    return "\n".join(lines)
