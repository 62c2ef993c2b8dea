"""For a terminal."""

from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from bench.report.sheet import Piece, Sheet
from bench.report.text import fits, make_table

_WIDE = 200


def write(sheet: Sheet) -> str:
    """As wide as the terminal, or 200 columns where nobody's window limits it; bold pieces are starred.

    Where the window is too narrow for a line, the parts of a piece stand below each other.
    """
    console = Console()
    printer = Console(width=console.width if console.is_terminal else _WIDE, highlight=False, markup=False)
    for layout in (_in_line, _below, _in_words):
        table = _table(sheet, layout)
        if fits(printer, table):
            break
    with printer.capture() as capture:
        # As a title the caption would be folded to the table's width.
        if sheet.caption:
            printer.print(sheet.caption)
        printer.print(table)
        for note in sheet.notes:
            printer.print(note)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _table(sheet: Sheet, layout: Callable[[Piece], str]) -> Table:
    table = make_table("")
    if layout is not _in_line:
        table.padding = (0, 1, 0, 0)
    for index, name in enumerate(sheet.columns):
        head = name.replace(" ", "\n") if layout is _in_words else name
        table.add_column(head, justify="left" if index < sheet.words else "right", overflow="fold")
    for index, row in enumerate(sheet.rows):
        if index in sheet.breaks and index:
            table.add_section()
        table.add_row(*map(layout, row))
    return table


def _in_line(piece: Piece) -> str:
    return "\n".join(filter(None, (_starred(piece) + piece.plain, piece.below)))


def _below(piece: Piece) -> str:
    small = piece.small + piece.mark if piece.small else ""
    text = piece.text + ("" if piece.small else piece.mark)
    return "\n".join(filter(None, (_starred(piece) + text, small, piece.below)))


def _in_words(piece: Piece) -> str:
    return _below(piece).replace(" ", "\n")


def _starred(piece: Piece) -> str:
    return "*" if piece.bold else ""
