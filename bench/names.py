"""What a user types, taken apart as far as that needs no part to be loaded."""

import re
from collections.abc import Sequence

from attacks.threat import parse_eps
from bench.errors import BenchError

HELD_OUT = "held-out:"
"""Begins the name of a dataset whose test set is a held-out part of a training set (`bench.data.held_out`)."""


def parse_eps_text(text: str) -> str:
    """The exact form in which an eps is stored: `0.15` is `3/20`.

    Raises:
        BenchError: not a number.
    """
    try:
        return str(parse_eps(text))
    except ValueError as error:
        raise BenchError(str(error)) from error


def split_list(values: Sequence[str]) -> list[str]:
    """Flatten repeated and comma-separated options; `a:k=1,m=2,b` is [`a:k=1,m=2`, `b`].

    A piece whose `=` comes before any `:` or `@` continues the parameters of the item before it.
    """
    items: list[str] = []
    for value in values:
        for number, piece in enumerate(value.split(",")):
            piece = piece.strip()
            if number and re.match(r"[^:@]*=", piece) and items:
                items[-1] += f",{piece}"
            elif piece:
                items.append(piece)
    return list(dict.fromkeys(items))


def without_eot(name: str) -> str:
    """An attack's name without a mean over draws, of which a deterministic network has none."""
    return without("eot", name)


def without(parameter: str, name: str) -> str:
    """An attack's name without one of its parameters."""
    attack, at, gradient = name.partition("@")
    return re.sub(rf"\b{parameter}=[^,]+,?", "", attack).rstrip(":,") + at + gradient


def split_held_out(name: str) -> tuple[str, str]:
    """What a dataset's name begins with where it is held out of a training set, and the name of the dataset itself.

    `held-out:200-of-1000:digits` is (`held-out:200-of-1000:`, `digits`); of another name the first is empty.
    """
    found = re.match(rf"{HELD_OUT}(?:\d+(?:-of-\d+)?:)?", name)
    return (found[0], name[found.end() :]) if found else ("", name)
