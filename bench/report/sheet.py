"""A table on its way to a reader: what every format writes in its own way."""

from dataclasses import dataclass, replace

from bench.statistics import Rate

MISSING = "-"


@dataclass(frozen=True)
class Piece:
    """The content of one place in a table, as plain text; formats escape it.

    Attributes:
        text: what is read first.
        small: what stands behind it in smaller type: an interval.
        below: what stands on a line of its own under it: a published value.
        bold: what stands out, such as the best of its kind; a note should say which.
        mark: a sign that a note explains.
    """

    text: str
    small: str = ""
    below: str = ""
    bold: bool = False
    mark: str = ""

    @property
    def plain(self) -> str:
        """What stands on its first line, without emphasis."""
        return " ".join(part for part in (self.text, self.small) if part) + self.mark


@dataclass(frozen=True)
class Sheet:
    """A table.

    Attributes:
        columns: heads.
        rows: pieces, as many a row as there are columns.
        words: how many of the first columns hold words and are set left; the others hold numbers and are set right.
        breaks: indices of rows above which a rule stands.
        caption: sentences that make the table understood by itself.
        notes: below the table; explain the marks.
        label: for LaTeX's \\ref, letters and hyphens.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Piece, ...], ...]
    words: int = 1
    breaks: frozenset[int] = frozenset()
    caption: str = ""
    notes: tuple[str, ...] = ()
    label: str = "results"

    def __post_init__(self) -> None:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError("every row needs a piece for every column")


def rate_piece(rate: Rate | None, mark: str = "") -> Piece:
    """`51.2 [46.8, 55.6]` in percent; `-` for no rate, or one of nothing."""
    if rate is None or not rate.n:
        return Piece(MISSING)
    return Piece(f"{100 * rate.value:.1f}", f"[{100 * rate.low:.1f}, {100 * rate.high:.1f}]", mark=mark)


def embolden(piece: Piece) -> Piece:
    """The same, as the best of its kind."""
    return replace(piece, bold=True)
