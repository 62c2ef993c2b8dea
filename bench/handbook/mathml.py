"""LaTeX in finished pages becomes MathML, which browsers draw by themselves: no script, no font from elsewhere."""

import html
import re
from xml.etree import ElementTree

from bench.errors import BenchError

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
# The converter sets bare bars apart, as if they were operators.
_BARS = {r"\lvert": r"\left|", r"\rvert": r"\right|", r"\lVert": r"\left\|", r"\rVert": r"\right\|"}
_PARTS = {"mfrac": 2, "msub": 2, "msup": 2, "mover": 2, "munder": 2, "msubsup": 3, "munderover": 3}


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
        BenchError: a command that the converter does not know, which it would print as it is, or one that lacks an
            argument.
    """
    from latex2mathml.converter import convert

    barred = re.sub(r"\\[lr][vV]ert(?![a-zA-Z])", lambda found: _BARS[found[0]], latex)
    try:
        drawn = convert(barred, display="block" if display else "inline")
    except Exception as error:
        # It raises exceptions of many kinds, none of which has a base of its own.
        raise BenchError(f"the formula '{latex}' is not LaTeX: {type(error).__name__} {error}") from error
    if flaw := _flaw(drawn):
        raise BenchError(f"the formula '{latex}' has {flaw}, which cannot be drawn; write it in another way")
    return f'<div class="formula">{drawn}</div>' if display else drawn


def _flaw(drawn: str) -> str:
    """What is wrong with MathML; empty if nothing is."""
    try:
        tree = ElementTree.fromstring(drawn)
    except ElementTree.ParseError:
        return "a loose '&'"
    for element in tree.iter():
        name = element.tag.rpartition("}")[2]
        if "\\" in (element.text or ""):
            return f"'{element.text}'"
        if len(element) != _PARTS.get(name, len(element)):
            return f"a command that lacks an argument ({name})"
    return ""
