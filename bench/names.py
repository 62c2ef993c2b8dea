"""What a user types and a store says, taken apart as far as that needs no part to be loaded."""

import re
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

from attacks.threat import parse_eps
from bench.errors import BenchError

HELD_OUT = "held-out:"
"""Begins the name of a dataset whose test set is a held-out part of a training set (`bench.data.held_out`)."""

_TUNED = " (tuned: "
_DEFAULT = "the default"


class Tuned(NamedTuple):
    """The name under which the winner of a search is stored, taken apart.

    Attributes:
        defense: what was run, as it is typed: `nlif:noise_var=0.2656`.
        plain: the same without parameters: `nlif`.
        effort: `best of 8 trials`.
        recipe: what the search chose of the training, `lr 0.3868` and others; nothing where the default won.
        default: whether the default won.
    """

    defense: str
    plain: str
    effort: str
    recipe: tuple[str, ...]
    default: bool

    @property
    def parameters(self) -> list[str]:
        """Of the defense, `noise_var 0.2656`; those of a sum with the term they belong to, `tgo lam_max 0.3`."""
        terms = [term.partition(":") for term in defense_terms(self.defense)]
        return [
            " ".join(([head] if len(terms) > 1 else []) + [piece.strip().replace("=", " ", 1)])
            for head, _, rest in terms
            for piece in rest.split(",")
            if piece.strip()
        ]

    @property
    def settings(self) -> str:
        """What it was run with, in words: `noise_var 0.2656, lr 0.3868, weight_decay 0.000295`."""
        rest = [f"otherwise {_DEFAULT}" if self.parameters else _DEFAULT] if self.default else self.recipe
        return ", ".join([*self.parameters, *rest])


def marked_tuned(text: str) -> str:
    """What is put behind the name of a defense whose values a search found.

    Args:
        text: how many trials, and what it chose of the training, with `; ` between: `best of 8 trials; lr 0.3868`.
    """
    return f"{_TUNED}{text})"


def tuned_name(name: str) -> Tuned | None:
    """What a stored name of a defense says of a search that found its values; None where it names none."""
    defense, mark, rest = name.partition(_TUNED)
    if not mark or not rest.endswith(")"):
        return None
    effort, *recipe = rest[:-1].split("; ")
    plain = "+".join(term.partition(":")[0].strip() for term in defense_terms(defense))
    default = recipe == [_DEFAULT]
    return Tuned(defense, plain, effort, () if default else tuple(recipe), default)


def short_name(name: str) -> str:
    """A stored name of a defense as a table shows it: `nlif (tuned)`, if a search found its values; else itself."""
    tuned = tuned_name(name)
    return f"{tuned.plain} (tuned)" if tuned else name


def short_names(rows: Iterable[tuple[Hashable, str]]) -> dict[tuple[Hashable, str], str]:
    """Place and stored name of each row of one output -> the name that it shows: the short one where that is clear.

    Where different names of one place would be shown alike, all of them stay as they are.

    Args:
        rows: what a row says besides its defense and so tells it from others, such as its dataset and model; and the
            stored name of its defense.
    """
    alike: dict[tuple[Hashable, str], set[str]] = {}
    listed = list(dict.fromkeys(rows))
    for place, name in listed:
        alike.setdefault((place, short_name(name)), set()).add(name)
    return {
        (place, name): short if len(alike[place, short]) == 1 else name
        for place, name in listed
        for short in (short_name(name),)
    }


def defense_called(name: str) -> set[str]:
    """What a user may type for a stored name of a defense.

    The whole of it, or without what stands in brackets behind it; and for one whose values a search found also what
    tables show, `nlif (tuned)`, and the bare `nlif`, so that nobody has to type what only the search knew.
    """
    tuned = tuned_name(name)
    return {name, name.partition(" (")[0], *((tuned.plain, short_name(name)) if tuned else ())}


def defense_terms(text: str) -> list[str]:
    """The summands of a defense as they are typed: `mc:lam_max=1e+2+at` is [`mc:lam_max=1e+2`, `at`]."""
    return re.split(r"\+(?=[A-Za-z])", text)


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
