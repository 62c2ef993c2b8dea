"""What a page must be, made from its outcomes; how it differs from what it is; and writing it."""

import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.atomic import write_atomically
from bench.errors import BenchError
from bench.pages.commands import Ran, run_commands
from bench.pages.document import Command, Document, Section, read_document

_WIDTH = 100
_FIGURES = (".png", ".pdf", ".svg")


@dataclass(frozen=True)
class Page:
    """A page as its outcomes make it.

    Attributes:
        folder: where it lies.
        texts: of each Markdown file, by name, its sections' texts in order.
        files: what commands write, by path relative to the folder.
        trees: folders in it that a command writes as a whole: nothing else may be in them.
    """

    folder: Path
    texts: Mapping[str, tuple[str, ...]]
    files: Mapping[Path, bytes]
    trees: frozenset[Path]


def is_page(folder: Path) -> bool:
    """Whether a folder has outcomes and a Markdown file with parts that commands make."""
    return any(folder.glob("*.parquet")) and any(_made(document) for document in _documents(folder))


def make_page(folder: Path) -> Page:
    """Put all outcomes of a page (`*.parquet`) into an empty store and run its commands on it. Nothing is written.

    Raises:
        BenchError: there is nothing to make, or commands fail: which, and what they say.
    """
    parcels = sorted(folder.glob("*.parquet"))
    documents = _documents(folder)
    if not parcels:
        raise BenchError(f"'{folder}' has no outcomes; put there what bench export wrote: outcomes.parquet")
    if not any(map(_made, documents)):
        raise BenchError(f"no Markdown file in '{folder}' has parts that commands make, such as <!-- $ bench table -->")
    with tempfile.TemporaryDirectory(prefix="bench-page-") as temporary:
        results, work = Path(temporary) / "results", Path(temporary) / "work"
        results.mkdir()
        work.mkdir()
        imported = run_commands([["import", *(str(parcel.resolve()) for parcel in parcels)]], results, work)
        if imported[0].status:
            raise BenchError(f"{folder}: {_complaint(imported[0])}")
        sections = [section for document in documents for section in document.sections]
        printing = [command for section in sections for command in section.commands]
        writing = [command for document in documents for command in document.writers]
        # One command may stand in several places.
        arguments = list(dict.fromkeys(command.arguments for command in (*printing, *writing)))
        ran = dict(zip(arguments, run_commands(arguments, results, work), strict=True))
        _must_have_worked([*printing, *writing], ran)
        texts = {doc.path.name: tuple(_text(section, ran) for section in doc.sections) for doc in documents}
        files, trees = _written(writing, ran)
    return Page(folder, texts, files, trees)


def differences(page: Page) -> list[str]:
    """Where a page is not what its outcomes make, a line for each part and file with the first that differs.

    A figure is compared by the numbers it was drawn from, since other versions of Matplotlib draw the same numbers
    with other bytes; everything else byte by byte.
    """
    found = []
    for document, texts in _beside(page):
        for section, text in zip(document.sections, texts, strict=True):
            said = _first_difference("\n".join(document.lines[section.start : section.end]), text, section.start)
            if said:
                found.append(f"{document.path}: {section.commands[0]}: {said}")
    for name, made in page.files.items():
        said = _file_difference(page.folder / name, made)
        if said:
            found.append(f"{page.folder / name}: {said}")
    return [*found, *(f"{path}: no command writes it any more" for path in _stale(page))]


def write_page(page: Page) -> list[Path]:
    """Write what differs, and delete what no command writes any more; returns the paths of both.

    Every file is replaced as a whole, and only after everything was made. A figure that shows these numbers already
    is left as it is.

    Raises:
        BenchError: the folder cannot be written.
    """
    changed = []
    for document, texts in _beside(page):
        new = document.filled(texts)
        if new != "\n".join(document.lines):
            write_atomically(document.path, new.encode())
            changed.append(document.path)
    for name, made in page.files.items():
        if _file_difference(page.folder / name, made):
            write_atomically(page.folder / name, made)
            changed.append(page.folder / name)
    for path in _stale(page):
        path.unlink()
        changed.append(path)
    return changed


def _documents(folder: Path) -> list[Document]:
    return [read_document(path) for path in sorted(folder.glob("*.md"))]


def _beside(page: Page) -> Iterator[tuple[Document, tuple[str, ...]]]:
    """The Markdown files as they are now, each with what must stand in it."""
    for name, texts in page.texts.items():
        document = read_document(page.folder / name)
        if len(document.sections) != len(texts):
            raise BenchError(f"'{document.path}' was edited meanwhile; try again")
        yield document, texts


def _made(document: Document) -> bool:
    return bool(document.sections or document.writers)


def _must_have_worked(commands: Sequence[Command], ran: Mapping[tuple[str, ...], Ran]) -> None:
    failed = [command for command in commands if ran[command.arguments].status]
    if failed:
        said = (f"{command.place}: {command}: {_complaint(ran[command.arguments])}" for command in failed)
        raise BenchError("\n".join(said))


def _complaint(done: Ran) -> str:
    """The end of what a command that failed complained about, on one line."""
    return " ".join(done.err.split())[-400:] or f"exit status {done.status}, without a word"


def _text(section: Section, ran: Mapping[tuple[str, ...], Ran]) -> str:
    """What the commands of a section print: Markdown as it is, everything else as a block of text."""
    texts = []
    for command in section.commands:
        done = ran[command.arguments]
        if any(done.folder.iterdir()):
            raise BenchError(f"{command.place}: {command} writes files: it belongs into a block after <!-- writes -->")
        text = done.out.strip("\n")
        if not text:
            raise BenchError(f"{command.place}: {command} prints nothing")
        marked = "--format=md" in command.arguments or ("--format", "md") in itertools.pairwise(command.arguments)
        texts.append(text if marked else f"```text\n{text}\n```")
    items = all(line.startswith("- ") for text in texts for line in text.split("\n"))
    return ("\n" if items else "\n\n").join(texts)


def _written(
    writing: Sequence[Command], ran: Mapping[tuple[str, ...], Ran]
) -> tuple[dict[Path, bytes], frozenset[Path]]:
    """The files of commands that write, and the folders that they write as a whole."""
    files, trees = dict[Path, bytes](), set[Path]()
    for command in writing:
        folder = ran[command.arguments].folder
        mine = {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        if not mine:
            raise BenchError(f"{command.place}: {command} writes no file of this folder; name one with -o")
        twice = sorted(mine.keys() & files.keys())
        if twice:
            raise BenchError(f"{command.place}: {command} writes {twice[0]}, as a command before it does")
        files |= mine
        # A folder that it only reads, wherever that is, is nobody's to clean up.
        within = {parent for path in mine for parent in path.parents}
        trees |= within & {Path(os.path.normpath(word)) for word in command.arguments}
    return files, frozenset(trees - {Path()})


def _stale(page: Page) -> Iterator[Path]:
    for tree in sorted(page.trees):
        for path in sorted((page.folder / tree).rglob("*")):
            if path.is_file() and path.relative_to(page.folder) not in page.files:
                yield path


def _file_difference(path: Path, made: bytes) -> str | None:
    if not path.is_file():
        return "is missing"
    there = path.read_bytes()
    if there == made:
        return None
    if path.suffix in _FIGURES:
        from bench.figures.style import sum_of_numbers

        drawn = sum_of_numbers(made)
        if drawn is not None:
            return None if sum_of_numbers(there) == drawn else "was not drawn from these numbers"
    try:
        return _first_difference(there.decode(), made.decode(), 0)
    except UnicodeDecodeError:
        return "other bytes"


def _first_difference(there: str, made: str, before: int) -> str | None:
    """The first line in which two texts differ, both from a little before the place on."""
    if there == made:
        return None
    pairs = itertools.zip_longest(there.split("\n"), made.split("\n"))
    number, (old, new) = next((number, pair) for number, pair in enumerate(pairs, before + 1) if pair[0] != pair[1])
    if old is None:
        return f"line {number} is missing: '{new[:_WIDTH]}'"
    if new is None:
        return f"line {number} is too much: '{old[:_WIDTH]}'"
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, same - 30)
    return f"line {number}: '{old[start : start + _WIDTH]}' must be '{new[start : start + _WIDTH]}'"
