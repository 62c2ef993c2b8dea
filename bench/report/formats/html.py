"""For web pages and notebooks."""

from html import escape

from bench.report.sheet import Piece, Sheet


def write(sheet: Sheet) -> str:
    """A `figure` element with the table, its caption and its notes, without any style of its own."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in sheet.columns)
    body = []
    for index, row in enumerate(sheet.rows):
        group = ' class="group"' if index in sheet.breaks and index else ""
        body.append(f"<tr{group}>{''.join(_cell(piece, i < sheet.words) for i, piece in enumerate(row))}</tr>")
    caption = f"<figcaption>{escape(sheet.caption)}</figcaption>" if sheet.caption else ""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in sheet.notes)
    rows = "\n".join(body)
    return (
        f'<figure class="results">{caption}\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n'
        f"</table>\n{notes}</figure>"
    )


def _cell(piece: Piece, word: bool) -> str:
    text = escape(piece.text)
    text = f"<strong>{text}</strong>" if piece.bold else text
    text += f" <small>{escape(piece.small)}</small>" if piece.small else ""
    text += f"<sup>{escape(piece.mark)}</sup>" if piece.mark else ""
    text += f"<br><small>{escape(piece.below)}</small>" if piece.below else ""
    return f'<th scope="row">{text}</th>' if word else f'<td class="number">{text}</td>'
