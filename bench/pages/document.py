"""Which parts of a Markdown file are the output of a command, and which commands write files beside it.

    <!-- $ bench compare trades at --sentences --format md -->
    - what it prints; two commands in one comment, each on its line after a $, print one below the other
    <!-- end -->

    <!-- writes -->
    ```sh
    bench table --format csv -o cells.csv
    ```

Comments cannot be seen where Markdown is rendered; commands that write files can.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import BenchError

_OPENS, _CLOSES, _END, _WRITES = "<!-- $ ", "-->", "<!-- end -->", "<!-- writes -->"


@dataclass(frozen=True)
class Command:
    """A command of a page.

    Attributes:
        arguments: what follows `bench`.
        place: `FILE:LINE`, for messages.
    """

    arguments: tuple[str, ...]
    place: str

    def __str__(self) -> str:
        return shlex.join(["bench", *self.arguments])


@dataclass(frozen=True)
class Section:
    """A part of a file that is the output of commands: lines `start` to `end`, the latter excluded."""

    commands: tuple[Command, ...]
    start: int
    end: int


@dataclass(frozen=True)
class Document:
    """A Markdown file of a page: its lines, the parts of it that commands print, commands that write files."""

    path: Path
    lines: tuple[str, ...]
    sections: tuple[Section, ...]
    writers: tuple[Command, ...]

    def filled(self, texts: Sequence[str]) -> str:
        """The whole file with these texts in its sections, one for each."""
        parts, at = list[str](), 0
        for section, text in zip(self.sections, texts, strict=True):
            parts += [*self.lines[at : section.start], text]
            at = section.end
        return "\n".join([*parts, *self.lines[at:]])


def read_document(path: Path) -> Document:
    """Read a Markdown file and find what commands make in it.

    Raises:
        BenchError: a part that begins and does not end, or something that is no command of `bench`.
    """
    lines = path.read_text(encoding="utf-8").split("\n")
    sections, writers, at = list[Section](), list[Command](), 0
    while at < len(lines):
        if lines[at].startswith(_OPENS):
            begin = _next(lines, at, lambda line: line.endswith(_CLOSES), f"{path}:{at + 1}: this comment does not end")
            text = "\n".join(lines[at : begin + 1]).removeprefix("<!--").removesuffix(_CLOSES)
            missing = f"{path}:{at + 1}: no line {_END} follows before the next part"
            end = _next(lines, begin + 1, lambda line: line.startswith(("<!-- $ ", "<!-- end")), missing)
            if lines[end] != _END:
                raise BenchError(missing)
            sections.append(Section(_commands(text, path, at, "$ "), begin + 1, end))
            at = end
        elif lines[at] == _WRITES:
            if lines[at + 1 : at + 2] != ["```sh"]:
                raise BenchError(f"{path}:{at + 1}: a line ```sh must follow {_WRITES}")
            end = _next(lines, at + 2, lambda line: line == "```", f"{path}:{at + 2}: this block does not end")
            writers += _commands("\n".join(lines[at + 2 : end]), path, at + 2, "")
            at = end
        at += 1
    return Document(path, tuple(lines), tuple(sections), tuple(writers))


def _next(lines: Sequence[str], start: int, holds: Callable[[str], bool], missing: str) -> int:
    for number in range(start, len(lines)):
        if holds(lines[number]):
            return number
    raise BenchError(missing)


def _commands(text: str, path: Path, first: int, mark: str) -> tuple[Command, ...]:
    """The commands of a block, one a line; a line that ends in a backslash goes on in the next."""
    found, begun, at = list[Command](), "", first
    for number, line in enumerate(text.split("\n"), first):
        at = at if begun else number
        begun += line.strip() if not begun else f" {line.strip()}"
        if begun.endswith("\\"):
            begun = begun[:-1].rstrip()
            continue
        if begun:
            found.append(_command(begun, mark, f"{path}:{at + 1}"))
        begun = ""
    if begun:
        raise BenchError(f"{path}:{at + 1}: nothing follows the backslash")
    return tuple(found)


def _command(text: str, mark: str, place: str) -> Command:
    try:
        words = shlex.split(text.removeprefix(mark))
    except ValueError as error:
        raise BenchError(f"{place}: {error}") from None
    if not text.startswith(mark) or words[:1] != ["bench"]:
        raise BenchError(f"{place}: '{text}' must begin with '{mark}bench'")
    return Command(tuple(words[1:]), place)
