"""The parts of a `--matrix` file as what they are: matrices, with what the command itself says in their place."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_origin

import typer

from bench.cli import options as o
from bench.cli.matrix import Matrix, Typed, field_hints, named_fields, option_fields, parsed
from bench.cli.matrix_file import MatrixFile, Options, Part, Values, read_matrix_file
from bench.errors import BenchError
from bench.names import split_list

_OF_A_FILE = frozenset({"file", "parts"})
"""Fields that say which file, and what of it."""
_OF_A_SEARCH = ("attacks", "trials", "seeds")
"""Fields that say how settings are tried, beside those of the protocol."""
_OF_A_TRAINING = ("dataset", "model", "plugin")
"""Options that say what a part trains, beside those of the training itself."""
_OF_THE_TEST = ("attack", "seed", "tuned", "images", "draws")
"""Options that a search has from its own table or not at all, although all parts may share them."""


def read(path: Path) -> MatrixFile:
    """A file, whichever command reads it.

    Raises:
        BenchError: see `read_matrix_file`.
    """
    from bench.cli.tune import Tuning

    return read_matrix_file(path, _options(Tuning, search=False), _options(Tuning, search=True))


def matrices(part: Part, command: Matrix) -> list[Matrix]:
    """A part of a command's file, with what was typed: several matrices where it excludes some cells.

    Raises:
        BenchError: a value that an option does not take.
    """
    with said_of(part.where):
        whole = _overridden(_as_typed(Matrix, part.values), command)
    if not part.excluded:
        return [whole]
    left = part.matrices(split_list(whole.defenses or ["vanilla"]), split_list(whole.attacks or ["pgd40"]))
    # None is what given weights are called.
    return [replace(whole, defenses=whole.defenses and defenses, attacks=attacks) for defenses, attacks in left]


def searched(command: Typed) -> list[tuple[str, Typed]]:
    """What the parts of a command's file train that are to be tuned, each with where it stands.

    How it is tried is said by the command, else by the file's table `tune`, else by what all parts share.

    Raises:
        BenchError: a mistake in the file, or no part says `tuned = true`.
    """
    file, kind = command.file_parts, type(command)
    of_training = {name for name, f in named_fields(Matrix).items() if _panel(kind, f.name) == o.TRAINING}
    of_training = (of_training | {*_OF_A_TRAINING}) - {*_OF_THE_TEST}
    shared = {k: v for k, v in file.shared.items() if k not in of_training and k not in (*_OF_THE_TEST, "defense")}
    found = []
    for part in file.parts:
        if "tuned" not in part.values:
            continue
        for name in ("preset", "weights"):
            if name in part.values:
                raise BenchError(f"{part.where}: {name} cannot be tuned; write out its defenses, or leave tuned out")
        own = {name: value for name, value in part.values.items() if name in of_training}
        for matrix in matrices(part, command):
            defenses = {"defense": tuple(matrix.defenses or ["vanilla"])}
            with said_of(part.where):
                values = shared | own | defenses | dict(file.search or {})
                found.append((part.where, _overridden(_as_typed(kind, values), command)))
    if not found:
        raise BenchError(f"{command.file}: no part says tuned = true, so there is nothing to search")
    return found


def search_command(command: Matrix) -> str:
    """What searches for what a command's file needs; empty where the file does not say how."""
    if command.file_parts.search is None:
        return ""
    return f"bench tune{of_file(command)}{command.store_options()}"


def of_file(command: Matrix) -> str:
    """The options that say which file and which of its parts; begins with a space."""
    named = "".join(f" --part {shlex.quote(name)}" for name in command.parts or [])
    return f" --matrix {shlex.quote(str(command.file))}{named}"


@contextmanager
def said_of(where: str) -> Iterator[None]:
    """Errors say which part of which file they are about."""
    try:
        yield
    except BenchError as error:
        raise BenchError(f"{where}: {error}") from error


def _overridden(matrix: Typed, command: Matrix) -> Typed:
    names = {f.name for f in option_fields(type(matrix))} & command.typed - _OF_A_FILE
    return replace(matrix, **{name: getattr(command, name) for name in names})


def _as_typed(kind: type[Typed], values: Values) -> Typed:
    words = [f"--{name}={text}" for name, texts in values.items() for text in texts]
    try:
        return parsed(kind, [*words, *(f"--{name}" for name, texts in values.items() if not texts)])
    except typer.BadParameter as error:
        raise BenchError(error.format_message()) from error


def _panel(kind: type[Matrix], name: str) -> str | None:
    panel = field_hints(kind)[name].__metadata__[0].rich_help_panel
    return str(panel) if panel else None


def _options(kind: type[Matrix], *, search: bool) -> Options:
    """What a file's parts, or its table `tune`, may say of the options of a command."""
    known, flags, several, refused = [], [], [], {}
    hints, of_parts = field_hints(kind), field_hints(Matrix)
    for name, f in named_fields(kind).items():
        hint, option = get_args(hints[f.name])[:2]
        panel = option.rich_help_panel
        if panel in (None, o.HOW, o.WHERE) or f.name in _OF_A_FILE:
            refused[name] = f"is for the command, not for its file: give --{name} there"
        elif search and panel in (o.WHAT, o.TRAINING) and f.name not in _OF_A_SEARCH:
            refused[name] = "belongs into the parts: a search trains what they do"
        elif not search and f.name not in of_parts:
            refused[name] = "belongs below [tune]"
        else:
            known.append(name)
            flags += [name] if hint is bool else []
            several += [name] if any(get_origin(one) is list for one in (hint, *get_args(hint))) else []
    return Options(known, flags, several, refused)
