"""Leaderboards as tables and as data."""

import re
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pandas as pd

from attacks.threat import format_eps
from bench.leaderboard.entry import Board, Entry
from bench.leaderboard.rank import UNAUDITED
from bench.names import short_names
from bench.report.doubt import MARK
from bench.report.formats import write_sheet
from bench.report.sheet import MISSING, Piece, Sheet, embolden
from bench.statistics import SeedMean
from bench.tuning.notes import tuned_paragraph

LEVEL = 0.05


def write_boards(found: Sequence[Board], form: str) -> str:
    """All boards as `text`, `md`, `latex` or `html`, one table each; or every entry as a line of `csv` or `json`."""
    if form in ("csv", "json"):
        from bench.frames import written_frame

        return written_frame(boards_frame(found), form)
    sheets = [board_sheet(board) for board in by_short_names(found)]
    note = tuned_rows(found)
    if note:
        # The same entries stand on several boards: what they are is said once, below the last.
        sheets[-1] = replace(sheets[-1], notes=(*sheets[-1].notes, note))
    return "\n\n".join(write_sheet(sheet, form) for sheet in sheets)


def by_short_names(found: Sequence[Board]) -> list[Board]:
    """The same boards, with the names of defenses that a table has room for; `tuned_rows` says what they stand for."""
    names = short_names((_place(board, entry), entry.defense) for board in found for entry in board.entries)
    return [
        replace(
            board,
            entries=tuple(
                replace(entry, defense=names[_place(board, entry), entry.defense]) for entry in board.entries
            ),
        )
        for board in found
    ]


def tuned_rows(found: Sequence[Board]) -> str:
    """A note on the tuned entries of all boards; empty if there are none.

    Args:
        found: as `boards` made them, with the whole names.
    """
    return tuned_paragraph(
        (_place(board, entry), entry.defense, entry.tuned) for board in found for entry in board.entries
    )


def _place(board: Board, entry: Entry) -> tuple[str, ...]:
    return board.dataset, entry.model, f"T {entry.T}"


def board_title(board: Board) -> str:
    """What a board compares, in a line."""
    eps = format_eps(Fraction(board.eps))
    draws = f", {board.draws} draws" if board.draws > 1 else ""
    return f"{board.dataset}, {board.division} networks, {board.norm} eps {eps}, first {board.n} test images{draws}"


def board_sheet(board: Board) -> Sheet:
    """A board as a table: ranked entries, then those that are not."""
    rows = [_row(entry) for entry in board.entries]
    ranked = sum(entry.rank is not None for entry in board.entries)
    notes = [f"Cost: forward and backward passes per image over all attacks. Required: {', '.join(board.required)}."]
    if any(entry.verdict == "suspect" for entry in board.entries):
        notes.append(f"{MARK} suspect, perhaps too high; see bench audit and bench show.")
    notes += [
        f"Left out of {entry.defense} ({entry.model}): {line}." for entry in board.entries for line in entry.left_out
    ]
    notes += [f"Not ranked: {entry.defense} ({entry.model}) {entry.why}." for entry in board.entries if entry.why]
    heads = ("rank", "defense", "model", "worst case", "clean", "strongest", "above next", "seeds", "cost", "verdict")
    return Sheet(
        (*heads, "code"), tuple(rows), 3, frozenset({ranked} if 0 < ranked < len(rows) else ()),
        caption=f"{board_title(board)}. Robust accuracy in percent, per image the worst case over all attacks (any "
        "iterate), with 95% interval: Wilson's for one training seed, Student's over several. Above next: whether it "
        f"is really more robust than the entry below (exact paired, or Welch over seeds; Holm, level {LEVEL:g}).",
        notes=tuple(notes), label=f"leaderboard-{re.sub(r'[^A-Za-z0-9]+', '-', board_title(board))}",
    )  # fmt: skip


def _row(entry: Entry) -> tuple[Piece, ...]:
    mark = MARK if entry.verdict == "suspect" else ""
    worst = _mean(entry.worst, mark)
    strongest = ", ".join(dict.fromkeys(seed.strongest for seed in entry.seeds)) or MISSING
    apart = MISSING if entry.apart is None else "yes" if entry.apart < LEVEL else "no"
    commit = (entry.commit or "?")[:8] + ("+" if entry.dirty else "")
    return (
        Piece(str(entry.rank or MISSING)), Piece(entry.defense), Piece(f"{entry.model}, T {entry.T}"),
        embolden(worst) if entry.rank == 1 else worst, _mean(entry.clean), Piece(strongest), Piece(apart),
        Piece(str(len(entry.seeds))), Piece(f"{entry.passes:,}"), Piece(_verdict(entry)), Piece(commit),
    )  # fmt: skip


def _verdict(entry: Entry) -> str:
    return f"{entry.verdict}, {UNAUDITED}" if UNAUDITED in entry.reasons else entry.verdict


def _mean(mean: SeedMean, mark: str = "") -> Piece:
    if not mean.values:
        return Piece(MISSING)
    return Piece(f"{100 * mean.value:.1f}", f"[{100 * mean.low:.1f}, {100 * mean.high:.1f}]", mark=mark)


def boards_frame(found: Sequence[Board]) -> pd.DataFrame:
    """One row for each entry, ranked or not, with everything; rates are shares in [0, 1]."""
    return pd.DataFrame([entry_line(board, entry) for board in found for entry in board.entries])


def entry_line(board: Board, entry: Entry) -> dict[str, Any]:
    """An entry as one line of data."""
    line: dict[str, Any] = {
        "division": board.division, "dataset": board.dataset, "norm": board.norm,
        "eps": format_eps(Fraction(board.eps)), "n": board.n, "rank": entry.rank, "defense": entry.defense,
        "model": entry.model, "T": entry.T, "epochs": entry.recipe.get("epochs"), "seeds": len(entry.seeds),
        "worst": entry.worst.value, "worst_low": entry.worst.low, "worst_high": entry.worst.high,
        "clean": entry.clean.value, "clean_low": entry.clean.low, "clean_high": entry.clean.high,
        "strongest": ", ".join(dict.fromkeys(seed.strongest for seed in entry.seeds)),
        "verdict": entry.verdict, "reasons": "; ".join(entry.reasons), "not_ranked": entry.why,
        "left_out": "; ".join(entry.left_out),
        "p_above_next": entry.apart, "passes_per_image": entry.passes, "seconds": round(entry.seconds, 3),
        "device": entry.device, "version": entry.version, "commit": entry.commit, "dirty": entry.dirty,
        "worst_per_seed": " ".join(f"{value:.6f}" for value in entry.worst.values),
        "weights": " ".join(str(seed.weights.get("sha256", "?")) for seed in entry.seeds),
        "test_set": board.test_hash, "repeat": entry.repeat, "submitted_by": entry.submitted.get("by"),
        "tuned": entry.tuned or None,
    }  # fmt: skip
    names = dict.fromkeys([*board.required, *(row.attack for seed in entry.seeds for row in seed.cells)])
    for name in names:
        values = [
            row.summary.robust_any.value
            for seed in entry.seeds
            for row in seed.cells
            if row.summary is not None and row.attack == name
        ]
        line[f"under {name}"] = sum(values) / len(values) if values else None
    return line
