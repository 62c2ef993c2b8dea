"""LaTeX in finished pages becomes MathML, which browsers draw by themselves: no script, no font from elsewhere."""

import html
import re

from bench.errors import BenchError

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# The converter sets bare bars apart, as if they were operators.
_BARS = {r"\lvert": r"\left|", r"\rvert": r"\right|", r"\lVert": r"\left\|", r"\rVert": r"\right\|"}
_LEFT_OVER = re.compile(r">([^<]*[\\&][^<]*)<")


def with_mathml(page: str) -> str:
    """A page's HTML in which each formula that arithmatex marked is MathML.

    Args:
        page: HTML with `<span class="arithmatex">` around LaTeX between `\\(` and `\\)`, or `<div>` and `\\[`, `\\]`.

    Raises:
        BenchError: LaTeX that cannot be drawn.
    """
    return _FORMULA.sub(lambda found: mathml(html.unescape(found[3]).strip(), found[2] == "["), page)


def mathml(latex: str, display: bool) -> str:
    """A formula as MathML.

    Args:
        latex: without dollars.
        display: on a line of its own instead of within one.

    Raises:
        BenchError: a command that the converter does not know, which it would print as it is.
    """
    from latex2mathml.converter import convert

    barred = re.sub(r"\\[lr][vV]ert(?![a-zA-Z])", lambda found: _BARS[found[0]], latex)
    try:
        drawn = convert(barred, display="block" if display else "inline")
    except Exception as error:
        # It raises exceptions of many kinds, none of which has a base of its own.
        raise BenchError(f"the formula '{latex}' is not LaTeX: {type(error).__name__} {error}") from error
    if left := _LEFT_OVER.search(re.sub(r"&#x?\w+;|&[a-z]+;", "", drawn)):
        raise BenchError(f"the formula '{latex}' has '{left[1]}', which cannot be drawn; write it in another way")
    return f'<div class="formula">{drawn}</div>' if display else drawn
