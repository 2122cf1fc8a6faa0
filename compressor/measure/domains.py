"""The table of a leave-one-domain-out sweep, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compressor.measure.exchange import markdown_table
from compressor.measure.metrics import LOWER_IS_BETTER
from compressor.measure.words import (
    interval_text,
    metric_heading,
    metric_text,
    significant,
)


def domain_rows(report: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and a line for every domain that was left out, and their mean where there is one.

    The gap is what is lost from the domains that were trained on to the one that was not.
    """
    found = report["domains"]
    metric = found[0]["metric"]
    columns = [
        "left out", "rows", metric_heading(metric), "95 %", "seen domains", "gap",
        "worst rise", "mean rise", "seconds",
    ]  # fmt: skip
    rows = [_row(entry, metric) for entry in found]
    means = [_mean([entry["outside"]["value"] for entry in found])]
    means.append(_mean([entry["inside"] for entry in found]))
    texts = [metric_text(metric, value) for value in (*means, _gap(metric, *reversed(means)))]
    rows.append(["mean", "", texts[0], "", texts[1], texts[2], "", "", ""])
    return columns, rows


def render_domains_markdown(report: Mapping[str, Any]) -> str:
    """`domains.md`: the command, what the columns are, the table."""
    about = (
        "Each line is a model that was trained and chosen on all other domains and is scored on "
        "the one that was left out; beside it the validation rows of the seen ones. Worst rise: "
        "how much the loss grows one step of 0.05 along its gradient; mean rise: along random "
        "directions, a quarter as long as the weights."
    )
    lines = [f"`{report['command']}`", "", about, "", *markdown_table(*domain_rows(report)), ""]
    return "\n".join(lines)


def _row(entry: Mapping[str, Any], metric: str) -> list[str]:
    outside, inside = entry["outside"], entry["inside"]
    return [
        entry["domain"],
        f"{outside['n']:,} {entry['split']}",
        metric_text(metric, outside["value"]),
        interval_text(metric, outside["low"], outside["high"]),
        metric_text(metric, inside),
        metric_text(metric, _gap(metric, inside, outside["value"])),
        significant(entry.get("worst")),
        significant(entry.get("average")),
        f"{entry['seconds']:.0f}",
    ]


def _gap(metric: str, inside: float | None, outside: float | None) -> float | None:
    """How much worse the unseen domain is; above zero is worse, whichever way the metric goes."""
    if inside is None or outside is None:
        return None
    return outside - inside if metric in LOWER_IS_BETTER else inside - outside


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None
