"""What `bench.evaluate` found, as a table."""

from collections.abc import Sequence
from fractions import Fraction

from attacks.threat import format_eps
from bench.report.cells import verdict
from bench.report.doubt import mark
from bench.report.sheet import Piece, Sheet, rate_piece
from bench.store import CellRow


def evaluation_sheet(rows: Sequence[CellRow]) -> Sheet:
    """One row for each attack."""
    first = rows[0]
    lines = []
    for row in rows:
        assert row.summary is not None
        rates = (row.summary.robust, row.summary.robust_any, row.summary.attack_success)
        lines.append((Piece(row.attack), *(rate_piece(rate, mark(row)) for rate in rates), Piece(verdict(row))))
    assert first.summary is not None
    clean = rate_piece(first.summary.clean).plain
    noisy = f", {first.draws} scoring draws" if first.draws > 1 else ""
    return Sheet(
        ("attack", "robust accuracy", "any iterate", "attack success", "verdict"), tuple(lines), 1,
        caption=f"{first.defense}: clean accuracy {clean} on {first.n} images{noisy}; {first.norm} eps "
        f"{format_eps(Fraction(first.eps))}. Percent with 95% Wilson interval.",
    )  # fmt: skip
