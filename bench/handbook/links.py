"""One text, two places: what links to files of the repository links to pages of the site."""

import os
import re
from pathlib import PurePosixPath

from bench.errors import BenchError

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)
_INCLUDED = re.compile(r"^<!-- (\w+\.md): (.+) -->$", re.MULTILINE)
PICTURES = (".png", ".svg")
_HOMES = {
    "README.md": "index.md",
    "README.md#what-the-numbers-mean": "numbers.md",
    "CONTRIBUTING.md": "contributing.md",
}


def page_of(file: str) -> str | None:
    """The page, or picture, of the site that holds a file of the repository; None if no page does.

    Args:
        file: its path from the repository's root, `#anchor` behind it or not.
    """
    name, hash_, anchor = file.partition("#")
    if file in _HOMES:
        return _HOMES[file]
    if name in _HOMES:
        return _HOMES[name] + hash_ + anchor
    path = PurePosixPath(name)
    if path.parts[:2] == ("docs", "formulas"):
        # A reader of the repository finds the formula there, and of the site the whole page.
        return str(PurePosixPath("parts", *path.parts[2:])) + ("" if path.suffix else "/index.md") + hash_ + anchor
    if path.parts[:1] == ("docs",):
        return str(PurePosixPath(*path.parts[1:])) + hash_ + anchor
    if path.parts[:1] == ("results",) and len(path.parts) > 1:
        if path.suffix in PICTURES:
            return str(PurePosixPath("measured", *path.parts[1:]))
        if path.name == "README.md" or (len(path.parts) == 2 and not path.suffix):
            return f"measured/{'index' if path.parts[1] == path.name else path.parts[1]}.md" + hash_ + anchor
        if path.suffix == ".md" and len(path.parts) == 3:
            return f"measured/{path.parts[1]}-{path.stem.lower()}.md" + hash_ + anchor
    return None


def relinked(text: str, source: str, page: str) -> str:
    """Markdown of the repository as Markdown of the site.

    A link to what is no page of the site, code for example, becomes its text.

    Args:
        text: the Markdown.
        source: where it stands in the repository: `results/perf/README.md`.
        page: the page that shows it: `measured/perf.md`.
    """

    def replaced(found: re.Match[str]) -> str:
        picture, shown, target = found[1], relinked(found[2], source, page), found[3]
        if re.match(r"\w+:|#", target):
            return f"{picture}[{shown}]({target})"
        file, hash_, anchor = target.partition("#")
        whole = os.path.normpath(PurePosixPath(source).parent / file) + hash_ + anchor
        home = page_of(whole)
        if home is None:
            return shown
        return f"{picture}[{shown}]({os.path.relpath(home, PurePosixPath(page).parent)})"

    pieces = _FENCE.split(text)
    return "".join(piece if piece.startswith("```") else _LINK.sub(replaced, piece) for piece in pieces)


def with_sections(text: str, files: dict[str, str], page: str) -> str:
    """Markdown in which each line `<!-- README.md: Title -->` has become what stands there under that heading.

    Args:
        text: the Markdown.
        files: the texts that may be named.
        page: the page that shows it.

    Raises:
        BenchError: no such file or heading.
    """

    def included(found: re.Match[str]) -> str:
        if found[1] not in files:
            raise BenchError(f"{page} asks for a section of {found[1]}; it can have those of {', '.join(files)}")
        return relinked(section(files[found[1]], found[2]), found[1], page)

    return _INCLUDED.sub(included, text)


def section(text: str, title: str) -> str:
    """What stands under a heading of a Markdown text, down to the next one of its level or above.

    Raises:
        BenchError: no such heading.
    """
    lines, level, fenced = [], 0, False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else re.match(r"(#+) (.*)", line)
        if level and heading and len(heading[1]) <= level:
            break
        if level:
            lines.append(line)
        elif heading and heading[2] == title:
            level = len(heading[1])
    if not level:
        raise BenchError(f"there is no heading '{title}'; mend the page that asks for it")
    return "\n".join(lines).strip() + "\n"
