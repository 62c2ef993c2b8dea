"""Attacks beside the exact robust accuracy, as text, Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from attacks.threat import format_eps
from bench.report.text import emit, make_console, make_table
from bench.truth.compare import Attacked, Comparison


def render(rows: Sequence[Comparison], form: str, iterate: str = "last") -> str:
    """The comparison as `text`, `md`, `csv` or `json`.

    Args:
        rows: one for each network and eps.
        form: how; csv and json hold both iterates, csv one line for each attack.
        iterate: `last` or `any`.
    """
    if form == "json":
        return json.dumps([_plain(row) for row in rows], indent=1)
    if form == "csv":
        return _csv(rows)
    header, lines = _lines(rows, iterate)
    if form == "md":
        written = ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines)]
        return "\n".join([caption(rows, iterate), "", *written])
    table = make_table("")
    for number, name in enumerate(header):
        table.add_column(name, justify="left" if not number else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    console = make_console()
    with console.capture() as capture:
        console.print(caption(rows, iterate), soft_wrap=True)
        emit(console, table)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def caption(rows: Sequence[Comparison], iterate: str) -> str:
    """What the numbers are, in one paragraph."""
    row = rows[0]
    facts = (
        f"Robust accuracy in percent on the first {row.n} test images of {row.dataset}, model {row.model}, linf. "
        "Truth: found by exact enumeration; a range where images were left undecided. Attacks "
        f"({'last iterate' if iterate == 'last' else 'any iterate'}): what they leave standing and, in brackets, how "
        "far that is above the truth."
    )
    if any(row.noisy for row in rows):
        facts += (
            f" Networks trained with noise ({', '.join(sorted({row.defense for row in rows if row.noisy}))}) "
            "are judged, and attacked, with their noise switched off."
        )
    return facts + " Everything is computed on the float64 network."


def problems(rows: Sequence[Comparison]) -> list[str]:
    """What must not happen, one line each."""
    found = []
    for row in rows:
        where = f"{row.defense} at eps {format_eps(row.eps)}"
        for attack in row.attacks:
            if attack.error:
                found.append(f"{where}: {attack.error}")
            if attack.contradictions:
                images = ", ".join(map(str, attack.contradictions[:5]))
                found.append(
                    f"CONTRADICTION: {attack.name} broke images of {where} that enumeration proved robust "
                    f"(number {images}): one of the two has a bug; report it with cell {attack.key[:12]}"
                )
            if attack.invalid:
                found.append(f"{where}: {attack.name} left the ball or gave NaN for {attack.invalid} images")
    return found


def _lines(rows: Sequence[Comparison], iterate: str) -> tuple[list[str], list[list[str]]]:
    several_seeds = len({row.seed for row in rows}) > 1
    header = ["defense", *(["seed"] if several_seeds else []), "eps", "clean", "truth"]
    header += [attack.name for attack in rows[0].attacks]
    lines = []
    for row in rows:
        truth = _percent(row.robust, row.n)
        if row.robust != row.upper:
            truth = f"{truth} to {_percent(row.upper, row.n)}"
        seed = [str(row.seed)] if several_seeds else []
        line = [row.defense, *seed, format_eps(row.eps), _percent(row.clean, row.n), truth]
        lines.append(line + [_shown(row, attack, iterate) for attack in row.attacks])
    return header, lines


def _shown(row: Comparison, attack: Attacked, iterate: str) -> str:
    if attack.error:
        return "failed"
    if attack.contradictions:
        return "CONTRADICTION"
    if attack.invalid:
        return "invalid"
    left = attack.last if iterate == "last" else attack.any
    above = {left - row.upper, left - row.robust}
    gap = " to ".join(f"{100 * value / row.n:+.1f}" for value in sorted(above))
    return f"{_percent(left, row.n)} ({gap})"


def _percent(count: int, n: int) -> str:
    return f"{100 * count / n:.1f}"


def _plain(row: Comparison) -> dict[str, Any]:
    return {
        "dataset": row.dataset, "model": row.model, "defense": row.defense, "seed": row.seed,
        "eps": format_eps(row.eps), "norm": "linf", "dtype": "float64", "noise_off": row.noisy, "n": row.n,
        "clean": row.clean, "robust_lower": row.robust, "robust_upper": row.upper,
        "unknown": row.upper - row.robust, "unknown_because": row.reasons, "seconds": round(row.seconds, 2),
        "attacks": [
            {
                "attack": attack.name, "cell": attack.key, "last": attack.last, "any": attack.any,
                "contradictions": list(attack.contradictions), "invalid": attack.invalid, "error": attack.error,
            }
            for attack in row.attacks
        ],
    }  # fmt: skip


def _csv(rows: Sequence[Comparison]) -> str:
    lines = []
    for row in rows:
        shared = _plain(row)
        attacks = shared.pop("attacks")
        shared.pop("unknown_because")
        lines += [shared | attack | {"contradictions": len(attack["contradictions"])} for attack in attacks]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().rstrip()
