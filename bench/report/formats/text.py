"""For a terminal."""

from rich.console import Console

from bench.report.sheet import Piece, Sheet
from bench.report.text import make_table

_WIDE = 200


def write(sheet: Sheet) -> str:
    """As wide as the terminal, or 200 columns where nobody's window limits it; bold pieces are starred."""
    table = make_table("")
    for index, name in enumerate(sheet.columns):
        table.add_column(name, justify="left" if index < sheet.words else "right", overflow="fold")
    for index, row in enumerate(sheet.rows):
        if index in sheet.breaks and index:
            table.add_section()
        table.add_row(*map(_piece, row))
    console = Console()
    printer = Console(width=console.width if console.is_terminal else _WIDE, highlight=False, markup=False)
    with printer.capture() as capture:
        # As a title the caption would be folded to the table's width.
        if sheet.caption:
            printer.print(sheet.caption)
        printer.print(table)
        for note in sheet.notes:
            printer.print(note)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _piece(piece: Piece) -> str:
    line = ("*" if piece.bold else "") + piece.plain
    return f"{line}\n{piece.below}" if piece.below else line
