"""A check for people: in a terminal, and as a comment on a pull request."""

from typing import Any

from bench.gate.check import LEAST_MOVE, NOT_COMPARABLE, NOT_MEASURED, OK, REGRESSION, Check, Line
from bench.report.formats import write_sheet
from bench.report.sheet import MISSING, Piece, Sheet, rate_piece

WORDS = {OK: "ok", REGRESSION: "REGRESSION", NOT_COMPARABLE: "not comparable", NOT_MEASURED: "not measured"}
_LONG = 12


def check_sheet(check: Check, lines: tuple[Line, ...] | None = None) -> Sheet:
    """All comparisons of a check as a table."""
    chosen = check.lines if lines is None else lines
    iterate = "last iterate" if check.iterate == "last" else "any iterate"
    watched = check.max_moved is not None
    return Sheet(
        ("network", "attack", "baseline", "now", "difference", "p", *["moved"] * watched, "verdict"),
        tuple(_row(line, watched) for line in chosen),
        2,
        caption=f"Accuracy in percent with 95% Wilson interval, {iterate}; difference in points with 95% interval; "
        f"{'two' if check.both_ways else 'one'}-sided exact paired p, Holm over all comparisons. "
        f"A regression{' or rise' * check.both_ways} has p < {check.level:g} and at least "
        f"{100 * check.min_effect:g} points."
        + (
            ""
            if check.max_moved is None
            else f" Moved: percent of the images whose margin differs by over {LEAST_MOVE:g}; at most "
            f"{100 * check.max_moved:g} may."
        ),
        label="check",
    )


def _row(line: Line, watched: bool) -> tuple[Piece, ...]:
    verdict = line.says if line.paired is not None else f"{WORDS[line.status]}: {line.says}"
    verdict = verdict.upper() if line.says in ("regression", "rise", "moved") else verdict
    if line.warning:
        verdict += f" ({line.warning})"
    if line.paired is None:
        return (Piece(line.network), Piece(line.attack), *[Piece(MISSING)] * (4 + watched), Piece(verdict))
    paired = line.paired
    moved = [Piece(f"{100 * (line.moved or 0.0):.1f}")] * watched
    interval = f"[{100 * paired.low:+.1f}, {100 * paired.high:+.1f}]"
    return (
        Piece(line.network), Piece(line.attack), rate_piece(paired.second), rate_piece(paired.first),
        Piece(f"{100 * paired.difference:+.1f}", interval), Piece(f"{line.p:.2g}"), *moved,
        Piece(verdict, bold=line.status == REGRESSION),
    )  # fmt: skip


def check_text(check: Check) -> str:
    """For a terminal: the verdict, then the table."""
    return f"{check.headline}\n\n{write_sheet(check_sheet(check), 'text')}" if check.lines else check.headline


def check_markdown(check: Check) -> str:
    """For a pull request: the verdict, what needs a look, and the rest folded away where it is long."""
    says = {line.says for line in check.lines if line.status == REGRESSION}
    bad = "regression" if says & {"regression", "suspect"} else "change"
    good = "no change" if check.both_ways else "no regression"
    title = {OK: good, REGRESSION: bad}.get(check.status, "no verdict")
    parts = [f"## Robustness: {title}", "", _escaped(check.headline), ""]
    notable = tuple(line for line in check.lines if line.status != OK or line.warning)
    if len(check.lines) <= _LONG:
        return "\n".join([*parts, write_sheet(check_sheet(check), "md"), ""]) if check.lines else "\n".join(parts)
    if notable:
        parts += [write_sheet(check_sheet(check, notable), "md"), ""]
    whole = write_sheet(check_sheet(check), "md")
    return "\n".join([*parts, f"<details><summary>All {len(check.lines)} lines</summary>", "", whole, "", "</details>"])


def _escaped(text: str) -> str:
    from bench.report.formats.markdown import escape

    return escape(text)


def check_json(check: Check) -> dict[str, Any]:
    """For programs; rates are shares in [0, 1]."""
    return {
        "status": check.status,
        "verdict": WORDS[check.status],
        "headline": check.headline,
        "level": check.level,
        "min_effect": check.min_effect,
        "iterate": check.iterate,
        "both_ways": check.both_ways,
        "max_moved": check.max_moved,
        "lines": [_line_json(line) for line in check.lines],
    }


def _line_json(line: Line) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "network": line.network, "attack": line.attack, "key": line.key, "status": WORDS[line.status],
        "says": line.says, "warning": line.warning, "p": line.p,
    }  # fmt: skip
    if line.paired is not None:
        paired = line.paired
        shown |= {
            "n": paired.n, "baseline": paired.second.value, "now": paired.first.value,
            "difference": paired.difference, "low": paired.low, "high": paired.high,
            "gained": paired.only_first, "lost": paired.only_second,
            "moved": line.moved,
        }  # fmt: skip
    return shown
