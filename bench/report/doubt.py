"""Why a cell is not to be believed, in a few words or in full; no report ranks a doubted number silently."""

from collections import Counter
from collections.abc import Iterable, Sequence

from bench.audit.finding import INVALID, NOTE, OK, SUSPECT, Finding
from bench.outcome import Flag
from bench.store import CellRow

MARK = "†"
"""Stands behind the rates of suspect cells."""


def doubts(row: CellRow) -> tuple[Finding, ...]:
    """The findings that speak against a cell, its own and its network's."""
    return tuple(finding for finding in row.findings or () if finding.verdict not in (OK, NOTE))


def reasons(row: CellRow) -> list[str]:
    """What speaks against a cell, a few words each."""
    held = row.audit.findings if row.audit else ()
    # A cell's own finding may be the audit's too.
    named = [*dict.fromkeys(f"audit: {one.check}" if one in held else one.check for one in doubts(row))]
    # Cells of the first releases have flags and no findings.
    return named or ([f"{count} {_FLAGS[name]}" for name, count in row.flags.items()] if row.verdict == INVALID else [])


_FLAGS = {
    Flag.NAN.name: "with NaN logits",
    Flag.OUTSIDE.name: "outside the ball",
    Flag.TIE.name: "tied",
    Flag.PLACEBO.name: "differ with eps = 0",
    Flag.ZERO_GRADIENT.name: "without a gradient",
}


def mark(row: CellRow) -> str:
    """What to put behind a cell's rates."""
    return MARK if row.verdict == SUSPECT else ""


def footnote(rows: Sequence[CellRow]) -> str | None:
    """What the mark means in a table of these cells, and why; None where nothing is marked."""
    suspect = [row for row in rows if row.verdict == SUSPECT]
    if not suspect:
        return None
    why = counted_reasons(suspect)
    return f"{MARK} suspect, perhaps too high: {len(suspect)} of {len(rows)} cells ({why}); see bench show KEY."


def counted_reasons(rows: Iterable[CellRow]) -> str:
    """`black box 2, ties 1`: in how many cells each reason occurs, the most frequent first."""
    counts = Counter(reason for row in rows for reason in reasons(row))
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common())


def audit_line(row: CellRow) -> str:
    """What the audit of a cell's network says, in a line."""
    if row.audit is None:
        return "unaudited; check the network with: bench audit"
    doubted = [finding.check for finding in row.audit.findings if finding.verdict not in (OK, NOTE)]
    checks = f"{len(row.audit.findings)} checks on {row.audit.n} images at eps {row.audit.eps}"
    return f"{row.audit.verdict}, {checks}" + (f": {', '.join(doubted)}" if doubted else "")


def placebo_line(row: CellRow) -> str:
    """What eps = 0 does, which must be nothing."""
    if row.findings is None:
        return "not measured (stored by an earlier release)"
    differing = row.flags.get(Flag.PLACEBO.name or "", 0)
    if not differing:
        return f"(eps = 0) equals clean accuracy on all {row.n} images"
    return f"(eps = 0) differs from clean accuracy on {differing} of {row.n} images"
