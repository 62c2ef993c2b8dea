"""For papers: needs the packages booktabs and, for wide tables, graphicx."""

from bench.report.sheet import MISSING, Piece, Sheet

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "†": r"$^{\dagger}$", "‡": r"$^{\ddagger}$", "ε": r"$\varepsilon$", "λ": r"$\lambda$",
    "−": "--", "–": "--", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "Δ": r"$\Delta$", "∞": r"$\infty$",
    "…": r"\dots{}", "·": r"$\cdot$", "“": "``", "”": "''", "’": "'",
}  # fmt: skip


def write(sheet: Sheet) -> str:
    """A `table` environment with booktabs' rules; the best of its kind is bold.

    Wide tables are shrunk to the width of the text.
    """
    align = "l" * sheet.words + "r" * (len(sheet.columns) - sheet.words)
    lines = [
        r"% needs \usepackage{booktabs,graphicx}",
        r"\begin{table}[t]",
        r"  \centering",
        *([f"  \\caption{{{escape(sheet.caption)}}}"] if sheet.caption else []),
        f"  \\label{{tab:{sheet.label}}}",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        f"  \\begin{{tabular}}{{{align}}}",
        r"    \toprule",
        "    " + " & ".join(escape(name) for name in sheet.columns) + r" \\",
        r"    \midrule",
    ]
    for index, row in enumerate(sheet.rows):
        if index in sheet.breaks and index:
            lines.append(r"    \midrule")
        lines.append("    " + " & ".join(_first(piece) for piece in row) + r" \\")
        if any(piece.below for piece in row):
            lines.append("    " + " & ".join(_small(piece.below) for piece in row) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}}"]
    lines += [f"  \\par\\smallskip\\footnotesize {escape(note)}" for note in sheet.notes]
    return "\n".join([*lines, r"\end{table}"])


def escape(text: str) -> str:
    """Text that LaTeX sets as it is. Letters that pdfLaTeX does not know become `?`."""
    written = "".join(_SPECIAL.get(letter, letter) for letter in " ".join(text.split()))
    return "".join(letter if ord(letter) < 0x180 else "?" for letter in written)


def _first(piece: Piece) -> str:
    if piece.text == MISSING and not piece.small:
        return "--" if not piece.mark else "--" + escape(piece.mark)
    text = escape(piece.text)
    text = f"\\textbf{{{text}}}" if piece.bold else text
    return text + (f" {_small(piece.small)}" if piece.small else "") + escape(piece.mark)


def _small(text: str) -> str:
    return f"{{\\scriptsize {escape(text)}}}" if text else ""
