"""The files of `--matrix`: parts of options, read and taken apart; what an option means is the command line's."""

import difflib
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.names import split_list

_TABLES = ("lists", "part", "tune")
_PAIR = ("defense", "attack")
Values = Mapping[str, tuple[str, ...]]
"""Options without their dashes, with each of their values as typed; a flag that is set has none."""


@dataclass(frozen=True)
class Options:
    """What may stand in a file.

    Attributes:
        known: long names without dashes.
        flags: those that are true or false.
        several: those that take more than one value.
        refused: options of the command that do not belong into a file, with the reason.
    """

    known: Collection[str]
    flags: Collection[str]
    several: Collection[str]
    refused: Mapping[str, str]


@dataclass(frozen=True)
class Part:
    """One matrix of a file.

    Attributes:
        where: file and part, for messages.
        name: what the file calls it, and perhaps others of its parts; None where it is not called anything.
        values: its options, those that all parts share among them.
        excluded: of its cells those that are left out, as pairs of a defense and an attack; None is any.
    """

    where: str
    name: str | None
    values: Values
    excluded: tuple[tuple[str | None, str | None], ...] = ()

    def matrices(self, defenses: Sequence[str], attacks: Sequence[str]) -> list[tuple[list[str], list[str]]]:
        """What is left of a matrix of defenses and attacks, as matrices."""
        if not self.excluded:
            return [([*defenses], [*attacks])]
        left: dict[tuple[str, ...], list[str]] = {}
        for defense in defenses:
            kept = (attack for attack in attacks if not any(_is(pair, defense, attack) for pair in self.excluded))
            left.setdefault(tuple(kept), []).append(defense)
        return [(named, list(kept)) for kept, named in left.items() if kept]


@dataclass(frozen=True)
class MatrixFile:
    """A file, taken apart.

    Attributes:
        parts: in its order.
        shared: options that stand above all parts.
        search: the options of its table `tune`; None where it has none.
    """

    parts: tuple[Part, ...]
    shared: Values
    search: Values | None

    def named(self, names: Sequence[str], path: Path) -> "MatrixFile":
        """The same with the parts of these names alone.

        Raises:
            BenchError: no part is called so.
        """
        known = list(dict.fromkeys(part.name for part in self.parts if part.name is not None))
        for name in names:
            if name not in known:
                there = f"choose from {', '.join(known)}" if known else 'none has one; give it one: name = "..."'
                raise BenchError(f"{path}: no part has the name '{name}'; {there}")
        return replace(self, parts=tuple(part for part in self.parts if part.name in names))


class _Lists(dict[str, tuple[str, ...]]):
    """Lists by their names, and which of them anything has asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.used = set[str]()

    def named(self, name: str, where: str) -> tuple[str, ...]:
        if name not in self:
            known = ", ".join(self) or "none"
            raise BenchError(f"{where}: there is no list '@{name}' (there: {known}); it belongs below a line [lists]")
        self.used.add(name)
        return self[name]


def read_matrix_file(path: Path, options: Options, of_search: Options) -> MatrixFile:
    """Read a file of several matrices.

    Args:
        path: a TOML file.
        options: what its parts may say.
        of_search: what its table `tune` may say.

    Raises:
        BenchError: it cannot be read, is not TOML, or says what no option does; file, part and mend are named.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BenchError(f"there is no matrix file '{path}'") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except tomllib.TOMLDecodeError as error:
        raise BenchError(f"{path}: not a TOML file: {error}") from error
    lists = _lists(content.get("lists", {}), f"{path}: [lists]")
    parts, search = content.get("part", []), content.get("tune")
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BenchError(f"{path}: write each part below a line [[part]]")
    if not parts:
        raise BenchError(f"{path}: there is no part; begin one with a line [[part]]")
    if search is not None and not isinstance(search, dict):
        raise BenchError(f"{path}: write how to search below a line [tune]")
    above = {key: value for key, value in content.items() if key not in _TABLES}
    shared = _values(above, options, lists, str(path))
    read = [_part(one, options, lists, shared, f"{path}: part {n}") for n, one in enumerate(parts, 1)]
    tried = None if search is None else _values(search, of_search, lists, f"{path}: [tune]")
    for name in lists:
        # It may be an option that was meant for all parts, which measures something else where it is not heard.
        if name not in lists.used:
            raise BenchError(
                f"{path}: [lists]: nothing names '@{name}'; leave it out, or put it above all tables if it is an option"
            )
    return MatrixFile(tuple(read), shared, tried)


def _part(content: Mapping[str, Any], options: Options, lists: _Lists, shared: Values, where: str) -> Part:
    if not content:
        raise BenchError(f"{where} is empty; give it a defense and an attack, or leave it out")
    own = {key: value for key, value in content.items() if key not in ("exclude", "name")}
    name = content.get("name")
    if name is not None and (not isinstance(name, str) or not name.strip() or "," in name):
        raise BenchError(f"{where}: a name is a text without commas, got {_shown(name)}")
    # A flag that a part sets to false is not set, whatever all parts share.
    unset = {key for key, value in own.items() if value is False}
    values = {key: value for key, value in shared.items() if key not in unset}
    values |= _values(own, options, lists, where)
    return Part(where, name, values, tuple(_excluded(content.get("exclude", []), values, lists, where)))


def _excluded(content: Any, values: Values, lists: _Lists, where: str) -> Iterator[tuple[str | None, str | None]]:
    shape = f'{where}: write exclude as [{{defense = "vanilla", attack = "pgd40"}}], one of the two or both'
    if not isinstance(content, list) or not all(isinstance(pair, dict) and pair for pair in content):
        raise BenchError(shape)
    for pair in content:
        if set(pair) - {*_PAIR}:
            raise BenchError(shape)
        named: list[list[str | None]] = []
        for key in _PAIR:
            names = split_list(_texts(pair[key], key, lists, f"{where}: exclude")) if key in pair else [None]
            for name in names:
                if name is not None and name not in split_list(values.get(key, ())):
                    raise BenchError(
                        f"{where}: exclude names {key} '{name}', which its {key} does not; write it as there"
                    )
            named.append([*names])
        yield from ((defense, attack) for defense in named[0] for attack in named[1])


def _is(pair: tuple[str | None, str | None], defense: str, attack: str) -> bool:
    return pair[0] in (None, defense) and pair[1] in (None, attack)


def _lists(content: Any, where: str) -> _Lists:
    if not isinstance(content, dict):
        raise BenchError(f'{where}: write lists below a line [lists], as noisy = ["nlif", "tgo"]')
    found = _Lists()
    for name, value in content.items():
        # A list may name those above it.
        found[name] = _texts(value, name, found, where)
        if not found[name]:
            raise BenchError(f"{where}: '{name}' is empty; name something in it, or leave it out")
    return found


def _values(content: Mapping[str, Any], options: Options, lists: _Lists, where: str) -> Values:
    values: dict[str, tuple[str, ...]] = {}
    for key, value in content.items():
        if key in options.refused:
            raise BenchError(f"{where}: '{key}' {options.refused[key]}")
        if key not in options.known:
            near = difflib.get_close_matches(key.replace("_", "-"), options.known, 1)
            mend = f"did you mean '{near[0]}'?" if near else "keys are the long options of bench run, without dashes"
            raise BenchError(f"{where}: unknown key '{key}'; {mend}")
        if key in options.flags:
            if not isinstance(value, bool):
                raise BenchError(f"{where}: {key} is true or false, got {_shown(value)}")
            if value:
                values[key] = ()
            continue
        values[key] = _texts(value, key, lists if key in options.several else None, where)
        if not values[key]:
            raise BenchError(f"{where}: '{key}' is empty; name something in it, or leave it out")
        if key not in options.several and (len(values[key]) > 1 or isinstance(value, list)):
            raise BenchError(f"{where}: {key} takes one value, got {_shown(value)}; make a part for each")
    return values


def _texts(value: Any, key: str, lists: _Lists | None, where: str) -> tuple[str, ...]:
    """The values of one key as they are typed, with named lists written out."""
    found: list[str] = []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise BenchError(f"{where}: {key} takes texts and numbers, got {_shown(item)}")
        text = str(item)
        found += lists.named(text[1:], f"{where}: {key}") if text.startswith("@") and lists is not None else [text]
    return tuple(found)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else "a table" if isinstance(value, dict) else str(value)
