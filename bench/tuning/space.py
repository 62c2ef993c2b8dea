"""What of a defense and its recipe is searched, and how a point of that space is written on the command line."""

import inspect
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from bench.errors import BenchError
from bench.names import defense_terms
from bench.parameters import split_parameters
from bench.registry import DEFENSES
from bench.resolve import parse_defense
from bench.spec import Recipe
from defenses.base import Setting
from defenses.search import Choice, Range, space_of

RECIPE = ("lr", "weight_decay")
"""What of the recipe is searched for every defense."""

_DIGITS = 4
"""Of a searched number: a command stays readable, and runs exactly what was tried."""


@dataclass(frozen=True)
class Dimension:
    """One thing that is searched.

    Attributes:
        term: the summand of the defense whose parameter it is, as typed; empty for the recipe's.
        parameter: its name.
        range: where it is searched; the default lies in it.
        default: its value in trial 0; None where nobody knows it.
        whole: whether it is a whole number.
    """

    term: str
    parameter: str
    range: Range | Choice
    default: str | None
    whole: bool = False

    @property
    def name(self) -> str:
        """`tgo.lam_max`, `lr`."""
        head = self.term.partition(":")[0].strip()
        return f"{head}.{self.parameter}" if head else self.parameter

    def written(self, value: Any) -> str:
        """A value as a user would write it, rounded to what is tried."""
        if isinstance(self.range, Choice):
            return str(value)
        return str(round(value)) if self.whole else f"{value:.{_DIGITS}g}"

    def as_json(self) -> dict[str, Any]:
        """What identifies it."""
        if isinstance(self.range, Choice):
            return {"choice": list(self.range.values)}
        return {"low": self.range.low, "high": self.range.high, "log": self.range.log, "whole": self.whole}


@dataclass(frozen=True)
class Space:
    """All that is searched of one defense.

    Attributes:
        defense: as typed.
        dimensions: in the order of the summands, the recipe's last.
    """

    defense: str
    dimensions: tuple[Dimension, ...]

    def defense_at(self, values: Mapping[str, str]) -> str:
        """The defense with the values of a trial, as a user would write it."""
        written = []
        for term in defense_terms(self.defense):
            added = [
                f"{dimension.parameter}={values[dimension.name]}"
                for dimension in self.dimensions
                if dimension.term == term and dimension.name in values
            ]
            sign = "," if ":" in term else ":"
            written.append(f"{term}{sign}{','.join(added)}" if added else term)
        return "+".join(written)

    def recipe_at(self, values: Mapping[str, str]) -> dict[str, float]:
        """Of the recipe what a trial sets."""
        return {name: float(values[name]) for name in RECIPE if name in values}

    def as_json(self) -> dict[str, Any]:
        """What identifies it."""
        return {dimension.name: dimension.as_json() for dimension in self.dimensions}


def space_for(defense: str, setting: Setting, recipe: Recipe, fixed: Mapping[str, Any]) -> Space:
    """What may be tuned of a defense: what its summands declare, and the recipe's learning rate and weight decay.

    What the user has written stays: a parameter behind the defense's name, or an option for the recipe. A weight decay
    that the defense itself decides is not searched. A default outside its declared range widens the range, so that no
    search is denied what everybody gets without one.

    Args:
        defense: as typed, for example `mc:delta=0.5+at`.
        setting: of the run, which settles defaults.
        recipe: of trial 0.
        fixed: of the recipe what the user decided, by field.

    Raises:
        BenchError: an unknown defense, or one that cannot be built.
    """
    found, whole = [], parse_defense(defense).settled(setting)
    for term in dict.fromkeys(defense_terms(defense)):
        name, given = split_parameters(term)
        builder = DEFENSES.get(name)
        parts = parse_defense(term).settled(setting).parts
        signature = inspect.signature(builder).parameters
        for parameter, declared in space_of(builder).items():
            if parameter not in signature:
                raise BenchError(f"defense '{name}' declares a range for '{parameter}', which it does not take")
            if parameter in given:
                continue
            values = [getattr(part, parameter) for part in parts if hasattr(part, parameter)]
            values = [
                value for value in [*values, signature[parameter].default] if isinstance(value, int | float | Fraction)
            ]
            integer = re.search(r"\bint\b", str(signature[parameter].annotation)) is not None
            found.append(_dimension(term, parameter, declared, values[0] if values else None, integer))
    decided = any(part.weight_decay is not None for part in whole.parts)
    if "lr" not in fixed:
        found.append(_dimension("", "lr", Range(recipe.lr / 10, recipe.lr * 5, log=True), recipe.lr, False))
    if "weight_decay" not in fixed and not decided:
        found.append(_dimension("", "weight_decay", Range(1e-5, 1e-2, log=True), recipe.weight_decay, False))
    if not found:
        raise BenchError(
            f"nothing is left to search of '{defense}': leave out one of its parameters, --lr or --weight-decay"
        )
    return Space(defense, tuple(found))


def _dimension(term: str, parameter: str, declared: Range | Choice, default: Any, integer: bool) -> Dimension:
    whole = integer and isinstance(declared, Range)
    if default is None:
        return Dimension(term, parameter, declared, None, whole)
    if isinstance(declared, Choice):
        alike = [value for value in declared.values if _number(value) == _number(str(default))]
        values = declared.values if alike else (*declared.values, str(default))
        return Dimension(term, parameter, Choice(values), alike[0] if alike else str(default))
    value = float(default)
    # A default of 0, such as no weight decay, is no ratio: it is tried as trial 0 and not searched around.
    if math.isfinite(value) and not (declared.log and value <= 0):
        declared = replace(declared, low=min(declared.low, value), high=max(declared.high, value))
    return Dimension(term, parameter, declared, str(default), whole)


def _number(text: str) -> Fraction | str:
    try:
        # As decimal digits say it: 0.1 is a tenth.
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        return text
