"""What pages are made of: the frame around them, tables, facts, commands and pictures.

Nothing is fetched: styles, script and pictures are inside, and a content policy forbids the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from compressor.measure.page_style import SCRIPT, STYLE

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def page(title: str, parts: Sequence[str], name: str, value: Mapping[str, Any]) -> str:
    """A whole page.

    Args:
        title: plain text.
        parts: the body, as HTML.
        name: id of the script element that holds `value`.
        value: what the page shows, as it stands in the file beside it; finite numbers.
    """
    body = "\n".join(parts)
    # "<" inside a script could close it.
    data = json.dumps(value, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
<script type="application/json" id="{name}">{data}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def findings_list(sentences: Sequence[str]) -> str:
    """What a reader must know first; empty when there is nothing."""
    if not sentences:
        return ""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f'<ul class="findings">{items}</ul>'


def figure(svg: str, caption: str, kind: str = "") -> str:
    """A picture with its caption."""
    return f'<figure class="{kind}">{svg}<figcaption>{escape(caption)}</figcaption></figure>'


def command_box(command: str) -> str:
    """A command with a button that copies it; empty for no command."""
    if not command:
        return ""
    return (
        f'<div class="command"><code>{escape(command)}</code>'
        '<button type="button">Copy</button></div>'
    )


def facts_list(facts: Mapping[str, str]) -> str:
    """Names and what they are; empty values are left out."""
    pairs = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        for name, value in facts.items()
        if value
    )
    return f'<dl class="facts">{pairs}</dl>'


def cell(
    text: str,
    *,
    exact: float | None = None,
    head: bool = False,
    kind: str = "",
    tag: str = "",
    title: str = "",
) -> str:
    """A table cell; `exact` is the number behind the text, `tag` is HTML that stands after it."""
    name = "th" if head else "td"
    attributes = ' scope="row"' if head else ""
    attributes += f' class="{kind}"' if kind else ""
    attributes += f' data-value="{exact!r}"' if exact is not None else ""
    shown = title or (repr(exact) if isinstance(exact, float) else "")
    attributes += f' title="{escape(shown)}"' if shown else ""
    return f"<{name}{attributes}>{escape(text)}{tag}</{name}>"


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    beaten: Sequence[bool] = (),
    text_columns: Sequence[int] = (),
) -> str:
    """A table of `cell`s that scrolls on its own; `beaten` rows are greyed."""
    head = "".join(
        f'<th scope="col"{" class=text" if index in text_columns else ""}>{escape(name)}</th>'
        for index, name in enumerate(heads)
    )
    body = "".join(
        f"<tr{' class=beaten' if index < len(beaten) and beaten[index] else ''}>{''.join(row)}</tr>"
        for index, row in enumerate(rows)
    )
    return (
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
