"""For papers: needs the packages booktabs and, for wide tables, graphicx."""

import re
import unicodedata
from dataclasses import replace

from bench.report.sheet import Piece, Sheet

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "ε": r"$\varepsilon$", "λ": r"$\lambda$",
    "−": "--", "–": "--", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "Δ": r"$\Delta$", "∞": r"$\infty$",
    "…": r"\dots{}", "·": r"$\cdot$", "“": "``", "”": "''", "’": "'",
    "\u200b": "{}",
}  # fmt: skip
_ACCENTS = {*"\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"}
_LETTERS = {*"ßæøœłÆØŒŁı"}
_MANY = 6
_PAGE, _STACKED_PAGE = 33, 48
"""Lines that a page of `article` has room for below a caption of eight lines and above three lines of notes."""


def write(sheet: Sheet) -> str:
    """A `table` environment with booktabs' rules; the best of its kind is bold.

    Wide tables are shrunk to the width of the text; in those of many numbers intervals stand below their values, so
    that they need not be shrunk until nobody can read them. For the same reason a table that is too long for a page is
    not shrunk: it goes on in another environment, with the same number and head; its notes stand at its end.
    """
    stacked = len(sheet.columns) - sheet.words >= _MANY
    parts = _on_pages(sheet, stacked)
    return "\n\n".join(_table(part, stacked, goes_on=part is not parts[0]) for part in parts)


def _on_pages(sheet: Sheet, stacked: bool) -> list[Sheet]:
    """The sheet, in halves as often as it takes for each to fit a page, cut between blocks where there are any."""
    lengths = [_lines(row, stacked) for row in sheet.rows]
    if sum(lengths) <= (_STACKED_PAGE if stacked else _PAGE) or len(lengths) < 2:
        return [sheet]
    cuts = sorted(sheet.breaks - {0}) or range(1, len(lengths))
    cut = min(cuts, key=lambda row: abs(sum(lengths[:row]) - sum(lengths[row:])))
    above = frozenset(row for row in sheet.breaks if row < cut)
    below = frozenset(row - cut for row in sheet.breaks if row >= cut)
    first = replace(sheet, rows=sheet.rows[:cut], breaks=above, notes=())
    return [*_on_pages(first, stacked), *_on_pages(replace(sheet, rows=sheet.rows[cut:], breaks=below), stacked)]


def _lines(row: tuple[Piece, ...], stacked: bool) -> int:
    return 1 + (stacked and any(piece.small for piece in row)) + any(piece.below for piece in row)


def _table(sheet: Sheet, stacked: bool, goes_on: bool) -> str:
    caption = [f"  \\caption{{{escape(sheet.caption)}}}"]
    if goes_on:
        caption = [r"  \addtocounter{table}{-1}", r"  \caption{(continued)}"]
    align = "l" * sheet.words + "r" * (len(sheet.columns) - sheet.words)
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}[t]",
        r"  \centering",
        *(caption if sheet.caption else []),
        # Most classes leave no room between a caption and what stands below it.
        r"  \vspace{4pt}",
        f"  \\setlength{{\\tabcolsep}}{{{'3pt' if stacked else '4pt'}}}",
        *([] if goes_on else [f"  \\label{{tab:{sheet.label}}}"]),
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        # Smaller type that is shrunk less keeps what is small in it readable, and a long table on its page.
        *([r"  \footnotesize\renewcommand{\arraystretch}{0.85}"] if stacked else []),
        f"  \\begin{{tabular}}{{{align}}}",
        r"    \toprule",
        "    " + " & ".join(escape(name) for name in sheet.columns) + r" \\",
        r"    \midrule",
    ]
    for index, row in enumerate(sheet.rows):
        if index in sheet.breaks and index:
            lines.append(r"    \midrule")
        lines.append("    " + _guarded(" & ".join(_first(piece, stacked) for piece in row)) + r" \\")
        below = [[piece.small for piece in row]] if stacked else []
        below.append([piece.below for piece in row])
        lines += ["    " + " & ".join(map(_small, texts)) + r" \\" for texts in below if any(texts)]
        if any(map(any, below)):
            lines[-1] += "[3pt]"
    lines += [r"    \bottomrule", r"  \end{tabular}}"]
    lines += [f"  \\par\\smallskip\\raggedright\\footnotesize {escape(note)}" for note in sheet.notes]
    return "\n".join([*lines, r"\end{table}"])


def _guarded(row: str) -> str:
    # The line break of the row before would take these for its options.
    return "{}" + row if row.startswith(("[", "*")) else row


def escape(text: str) -> str:
    """Text that LaTeX sets as it is. What pdfLaTeX does not know with its oldest fonts becomes `?`."""
    # Two hyphens, of an option, would become a dash.
    apart = re.sub("-(?=-)", "-\u200b", " ".join(text.split()))
    return "".join(_SPECIAL.get(letter) or _plain(letter) for letter in apart)


def _plain(letter: str) -> str:
    base, *accents = [*unicodedata.normalize("NFD", letter)]
    known = base in _LETTERS or (base.isascii() and base.isprintable())
    return letter if ord(letter) < 0x180 and known and not {*accents} - _ACCENTS else "?"


def _first(piece: Piece, stacked: bool) -> str:
    text = escape(piece.text)
    text = f"\\textbf{{{text}}}" if piece.bold else text
    return text + (f" {_small(piece.small)}" if piece.small and not stacked else "") + escape(piece.mark)


def _small(text: str) -> str:
    return f"{{\\scriptsize {escape(text)}}}" if text else ""
