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
        f'<figure class="results">{caption}\n<div class="scroll" role="region" aria-label="Table" tabindex="0">\n'
        f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n{notes}</figure>"
    )


def _cell(piece: Piece, word: bool) -> str:
    text = escape(piece.text)
    text = f"<strong>{text}</strong>" if piece.bold else text
    text += f" <small>{escape(piece.small)}</small>" if piece.small else ""
    text += f"<sup>{escape(piece.mark)}</sup>" if piece.mark else ""
    text += f"<br><small>{escape(piece.below)}</small>" if piece.below else ""
    return f'<th scope="row">{text}</th>' if word else f'<td class="number">{text}</td>'


_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #5c5c66; --rule: #c9c9d1; --paper: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf1; --soft: #a9a9b6; --rule: #44444f; --paper: #16161a; } }
body { margin: 2rem auto; padding: 0 1rem; max-width: 80rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; }
figure { margin: 0; }
.scroll { overflow-x: auto; }
figcaption, .note { color: var(--soft); max-width: 50rem; margin: 0.6rem 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.5rem; text-align: right; white-space: nowrap; vertical-align: top; }
th { text-align: left; font-weight: 600; }
thead th { border-bottom: 2px solid var(--ink); text-align: right; }
thead th:first-child, tbody th { text-align: left; }
tbody tr { border-bottom: 1px solid var(--rule); }
tr.group { border-top: 2px solid var(--rule); }
td small { color: var(--soft); }
@media (max-width: 40rem) { td small { display: block; } td br { display: none; } }
"""


def page(fragment: str, title: str) -> str:
    """A whole document around what `write` gives: readable by itself, light and dark, on a phone as well."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{fragment}\n</body>\n</html>"
    )
