"""Docstrings of the house's form, taken apart."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_SECTION = re.compile(r"^(Source|Cost|Args|Returns|Raises|Attributes|Args, returns):(.*)$")
_PARAMETER = re.compile(r"^ {4}(\w+(?:, \w+)*): (.*)$")


@dataclass(frozen=True)
class Docstring:
    """What a docstring says.

    Attributes:
        summary: its first paragraph.
        body: further paragraphs, blank lines between them, without the sections below.
        source: what stands behind `Source:`, empty if nothing does.
        parameters: what `Args:` says of each name.
        raises: what stands under `Raises:`.
    """

    summary: str
    body: str = ""
    source: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    raises: str = ""


def read_docstring(text: str) -> Docstring:
    """Take a docstring apart.

    Args:
        text: as `inspect.getdoc` gives it. A section begins with its name and a colon at the start of a line and ends
            with a blank line. Names that share a line of `Args:` share what is said.
    """
    summary, *rest = re.split(r"\n\s*\n", text.strip())
    body: list[str] = []
    found: dict[str, list[str]] = {}
    for paragraph in rest:
        prose: list[str] = []
        lines = prose
        for line in paragraph.splitlines():
            if match := _SECTION.match(line):
                lines = found.setdefault(match[1], [])
                line = match[2].strip()
            lines.append(line)
        body += filter(None, [_prose(prose)])
    parameters = _parameters(found.get("Args", []))
    source, raises = (_prose(found.get(name, [])) for name in ("Source", "Raises"))
    return Docstring(_prose(summary.splitlines()), "\n\n".join(body), source, parameters, raises)


def _prose(lines: Sequence[str]) -> str:
    """Lines as Markdown, in which a list wants an empty line before it."""
    return re.sub(r"^((?!- | ).+)\n(?=- )", r"\1\n\n", "\n".join(lines), flags=re.MULTILINE).strip()


def _parameters(lines: Sequence[str]) -> dict[str, str]:
    said: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if match := _PARAMETER.match(line):
            names = match[1].split(", ")
            said |= dict.fromkeys(names, match[2].strip())
        else:
            said |= {name: f"{said[name]} {line.strip()}" for name in names}
    return said
