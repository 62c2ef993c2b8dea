"""Attacks on events as a table: a row for each cell, with both rates, what was changed and what it cost."""

from collections.abc import Sequence
from fractions import Fraction

from attacks.events.threat import EVENTS
from attacks.threat import format_eps
from bench.errors import BenchError
from bench.names import short_names
from bench.report.sheet import MISSING, Piece, Sheet, rate_piece
from bench.statistics.edits import edit_summary
from bench.store import CellRow, Store
from bench.tuning.notes import tuning_note

_HEADS = (
    "defense", "attack", "eps", "n", "clean", "robust", "success", "by its own frames", "changed, %", "events changed",
    "passes", "gradients", "ms",
)  # fmt: skip
_NOTES = (
    "Clean and robust accuracy and attack success in percent with 95% Wilson intervals, of the edited recordings "
    "framed again by the dataset's own framing; by its own frames: success on those that the attack computed with.",
    "Changed: mean share, and mean number, of a recording's events over those that were broken. Passes, gradients and "
    "milliseconds are for one recording; passes include scoring.",
)


def edits_sheet(store: Store, rows: Sequence[CellRow]) -> Sheet:
    """A row for each finished cell of an attack on events, those of a defense and a budget together.

    Args:
        store: holds the outcomes.
        rows: cells; those of other attacks and invalid ones are left out.

    Raises:
        BenchError: none is of an attack on events.
    """
    chosen = [row for row in rows if row.norm == EVENTS and row.summary is not None and row.verdict != "invalid"]
    if not chosen:
        raise BenchError("no finished cell of an attack on events matches; see: bench ls runs")
    # Not in the order in which several workers happened to finish.
    defenses = sorted({row.defense for row in chosen}, key=lambda name: (name != "vanilla", len(name), name))
    places = {name: number for number, name in enumerate(defenses)}
    chosen.sort(key=lambda row: (row.dataset, row.model, row.seed, places[row.defense], Fraction(row.eps), row.attack))
    names = short_names(((row.dataset, row.model, row.seed), row.defense) for row in chosen)
    lines: list[tuple[Piece, ...]] = []
    breaks: set[int] = set()
    before: tuple[object, ...] | None = None
    for row in chosen:
        place = (row.dataset, row.model, row.seed, row.defense, row.eps)
        if before is not None and place != before:
            breaks.add(len(lines))
        before = place
        lines.append(_line(store, row, names[(row.dataset, row.model, row.seed), row.defense]))
    of = sorted({f"{row.dataset} / {row.model}, T {row.spec['model']['T']}, seed {row.seed}" for row in chosen})
    notes = filter(None, (*_NOTES, tuning_note(store, chosen)))
    return Sheet(
        _HEADS, tuple(lines), 2, frozenset(breaks), f"Attacks on events: {'; '.join(of)}.", tuple(notes), "events"
    )


def _line(store: Store, row: CellRow, name: str) -> tuple[Piece, ...]:
    outcome = store.outcome(row.key)
    summary = edit_summary(outcome) if outcome is not None else None
    assert row.summary is not None
    assert summary is not None
    broken = bool(summary.broken)
    return (
        Piece(name),
        Piece(row.attack),
        Piece(format_eps(Fraction(row.eps))),
        Piece(str(row.n)),
        rate_piece(row.summary.clean),
        rate_piece(row.summary.robust),
        rate_piece(row.summary.attack_success),
        Piece(f"{100 * summary.believed.value:.1f}" if summary.believed.n else MISSING),
        Piece(f"{100 * summary.mean_share:.2f}" if broken else MISSING),
        Piece(f"{summary.mean:.0f}" if broken else MISSING),
        Piece(f"{row.forwards / row.n:.0f}"),
        Piece(f"{row.backwards / row.n:.0f}"),
        Piece(f"{1000 * row.seconds / row.n:.0f}"),
    )
