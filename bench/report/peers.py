"""Comparisons with other libraries: tables for people, Markdown, and for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from attacks.threat import format_eps
from bench.peers.compare import Match, Row
from bench.report.text import emit, make_console, make_table, percent

FORMATS = ("text", "md", "json")
_COLUMNS = ("", "robust %, 95%", "grads", "fwds", "s", "out", "p")
NOTES = (
    "Robust: right without and under the attack's last proposal, by this project's rule; the same images, and on "
    "noisy networks the same scoring draws, for all. Gradients, forwards: passes an image, counted at the network. "
    "Outside: images whose proposal left the float64 ball or the box and was projected (in brackets: "
    "how many of them stand again by that). "
    "p: against the first line, exact McNemar test on the same images."
)

_FATE = {False: "FAILED", True: "not asked"}


def render(matches: Sequence[Match], form: str, missing: Sequence[str], releases: Mapping[str, str]) -> None:
    """Print everything in a form other than JSON."""
    if form == "md":
        print("\n".join(markdown(matches, missing, releases)))
        return
    console = make_console()
    for match in matches:
        if match.rows:
            emit(console, _table(match))
        console.print(verdict(match), width=80)
        console.print()
    for line in (NOTES, *missing, ", ".join(releases.values())):
        console.print(line, width=80)


def verdict(match: Match) -> str:
    """Whether ours is the lowest, and if not, who is and by how much."""
    if match.skipped:
        return f"{match.contest.name} on {match.defense}: left out, {match.skipped}."
    if match.rows[0].measured.error:
        return f"{match.rows[0].attack} FAILED: {match.rows[0].measured.error}"
    first, *others = (row for row in match.rows if not row.measured.error)
    failed = [
        f" {row.by} {_FATE[row.measured.refused]}: {row.measured.error}." for row in match.rows if row.measured.error
    ]
    peers = [row for row in others if row.by != "ours"]
    lower = [row for row in peers if row.robust.hits < first.robust.hits]
    if not peers:
        return f"Nothing to compare {first.attack} with." + "".join(failed)
    if not lower:
        equal = [row.by for row in peers if row.robust.hits == first.robust.hits]
        return f"{first.attack} is the lowest" + (f", with {', '.join(equal)}." if equal else ".") + "".join(failed)
    text = "; ".join(
        f"{row.by} is lower by {100 * (first.robust.value - row.robust.value):.1f} points "
        f"({row.fewer} images fall only there, {row.more} only here, p {row.p:.2g})"
        for row in lower
    )
    lowest = min(row.robust.hits for row in peers)
    better = [row.attack for row in others if row.by == "ours" and row.robust.hits <= lowest]
    also = f" Of ours, {', '.join(better)} is no higher than any of them." if better else ""
    return f"{first.attack} is not the lowest: {text}.{also}" + "".join(failed)


def _table(match: Match) -> Table:
    table = make_table(_title(match))
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name else "left")
    for row in match.rows:
        table.add_row(*_cells(row))
    return table


def _title(match: Match) -> str:
    attack = match.cell.attack
    return (
        f"{match.contest.name} on {match.defense}, n {match.n}, eps {format_eps(attack.eps)}: {match.contest.summary}"
    )


def _cells(row: Row) -> tuple[str, ...]:
    found = row.measured
    name = f"ours, {row.attack.partition(':')[0]}" if row.by == "ours" else row.by
    if found.error:
        return (name, _FATE[found.refused], "", "", "", "", "")
    spent = (f"{found.backwards:.0f}", f"{found.forwards:.0f}", f"{found.seconds:.1f}")
    outside = f"{found.outside} ({found.undone})" if found.undone else str(found.outside)
    return (name, percent(row.robust), *spent, outside, "" if row.p != row.p else f"{row.p:.2g}")


def markdown(matches: Sequence[Match], missing: Sequence[str], releases: Mapping[str, str]) -> list[str]:
    """The lines of one Markdown table and its notes."""
    lines = [
        "| network | contest | attack | robust %, 95% | gradients | forwards | s | outside | p |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for match in matches:
        start = f"| {match.defense} | {match.contest.name} | "
        lines += [start + " | ".join(_cells(row)) + " |" for row in match.rows]
    lines += ["", NOTES, "", *(f"- {match.defense}, {match.contest.name}: {verdict(match)}" for match in matches)]
    return [*lines, *(f"- {line}" for line in missing), "", f"Releases: {', '.join(releases.values())}."]


def peers_json(matches: Sequence[Match], missing: Sequence[str], releases: Mapping[str, str]) -> dict[str, Any]:
    """Everything for programs; rates are shares in [0, 1]."""
    return {
        "releases": dict(releases),
        "missing": list(missing),
        "matches": [
            {
                "defense": match.defense,
                "contest": match.contest.name,
                "n": match.n,
                "eps": str(match.cell.attack.eps),
                "skipped": match.skipped,
                "verdict": verdict(match),
                "rows": [_row_json(row) for row in match.rows],
            }
            for match in matches
        ],
    }


def _row_json(row: Row) -> dict[str, Any]:
    found, robust = row.measured, row.robust
    shown: dict[str, Any] = {"by": row.by, "attack": row.attack, "error": found.error}
    if not found.error:
        shown["robust"] = {"value": robust.value, "low": robust.low, "high": robust.high, "n": robust.n}
        shown |= {name: getattr(found, name) for name in ("outside", "undone", "forwards", "backwards", "seconds")}
        shown["excess"] = found.excess if found.excess < float("inf") else None
        shown |= {"fewer": row.fewer, "more": row.more, "p": None if row.p != row.p else row.p}
    return shown
