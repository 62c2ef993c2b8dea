"""For README files and pull requests."""

import re

from bench.report.sheet import Piece, Sheet

# Brackets and ampersands only where they would begin a link or an entity: intervals stay readable in the source.
_SPECIAL = re.compile(r"([\\`*_{}<>|#~$]|\](?=[(\[:])|&(?=#?\w+;))")


def write(sheet: Sheet) -> str:
    """A GitHub-flavoured table under its caption; the best of its kind is bold."""
    header = "| " + " | ".join(escape(name) for name in sheet.columns) + " |"
    rule = "|" + "|".join(" --- " for _ in sheet.columns) + "|"
    body = ["| " + " | ".join(_piece(piece) for piece in row) + " |" for row in sheet.rows]
    above = [escape(sheet.caption), ""] if sheet.caption else []
    below = [line for note in sheet.notes for line in ("", escape(note))]
    return "\n".join([*above, header, rule, *body, *below])


def escape(text: str) -> str:
    """Text that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _piece(piece: Piece) -> str:
    text = escape(piece.text)
    text = f"**{text}**" if piece.bold else text
    text += f" {escape(piece.small)}" if piece.small else ""
    text += escape(piece.mark)
    return f"{text}<br>{escape(piece.below)}" if piece.below else text
