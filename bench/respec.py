"""Specs from their stored JSON: the inverse of `identity_of`.

A field that an old row lacks takes its default, so the row can still be read; its key is
then the stored one and not `key_of` of what comes back.
"""

import re
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from bench.errors import BenchError
from bench.registry import ATTACKS
from bench.spec import AttackSpec, CellSpec, ModelSpec, Recipe, TrainSpec

_Spec = TypeVar("_Spec")
_NUMBER = re.compile(r"-?\d+(/\d+)?")


def model_from_json(data: Mapping[str, Any]) -> ModelSpec:
    """A `ModelSpec` from its identity.

    Raises:
        BenchError: not a model, or stored by a newer version.
    """
    return spec_from_json(ModelSpec, data)


def recipe_from_json(data: Mapping[str, Any]) -> Recipe:
    """A `Recipe` from its identity; raises as `model_from_json`."""
    return spec_from_json(Recipe, data)


def train_from_json(data: Mapping[str, Any], *, dataset: str, defense_name: str, log_eps: Fraction) -> TrainSpec:
    """A `TrainSpec` from its identity and the labels that are no part of it; raises as `model_from_json`."""
    return spec_from_json(TrainSpec, data, dataset=dataset, defense_name=defense_name, log_eps=log_eps)


def attack_from_json(data: Mapping[str, Any], *, name: str, shares_trajectory: bool = False) -> AttackSpec:
    """An `AttackSpec` from its identity; raises as `model_from_json`.

    A parameter written as a number, `1/100` or `2`, was an exact fraction, unless the attack's default for it
    is text.
    """
    spec = spec_from_json(AttackSpec, data, name=name, shares_trajectory=shares_trajectory)
    defaults = ATTACKS.get(spec.family).defaults if spec.family in ATTACKS else {}
    params = tuple((key, _number(value, defaults.get(key))) for key, value in spec.params)
    return replace(spec, params=params)


def cell_from_json(
    data: Mapping[str, Any], *, dataset: str, defense_name: str, seed: int, attack_name: str
) -> CellSpec:
    """A `CellSpec` from its identity and its labels; raises as `model_from_json`."""
    parts = {name: value for name, value in data.items() if name != "attack"}
    attack = attack_from_json(data.get("attack", {}), name=attack_name)
    return spec_from_json(CellSpec, parts, attack=attack, dataset=dataset, defense_name=defense_name, seed=seed)


def spec_from_json(kind: type[_Spec], data: Mapping[str, Any], **labels: Any) -> _Spec:
    """A spec of any kind.

    Args:
        kind: a dataclass of `bench.spec`, or `NeuronSpec`.
        data: what `identity_of` gave, before or after JSON.
        labels: runtime fields, which an identity does not hold.

    Raises:
        BenchError: fields that this version does not know, or lacks a value for.
    """
    if not isinstance(data, Mapping):
        raise BenchError(f"a stored {kind.__name__} is {type(data).__name__}, not a mapping; the row is damaged")
    hints = get_type_hints(kind)
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if strange := sorted(set(data) - set(known)):
        raise BenchError(
            f"a stored {kind.__name__} has the field '{strange[0]}', which this version does not know; "
            "read it with the version that stored it"
        )
    values = {name: _typed(hints[name], value) for name, value in data.items()} | labels
    lacking = [
        name
        for name, f in known.items()
        if name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if lacking:
        raise BenchError(f"a stored {kind.__name__} lacks '{lacking[0]}', which has no default; the row is damaged")
    return kind(**values)


def _typed(hint: Any, value: Any) -> Any:
    """A JSON value as what the annotation says."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        inner = [arm for arm in get_args(hint) if arm is not type(None)]
        return None if value is None else _typed(inner[0], value)
    if is_dataclass(hint) and isinstance(hint, type):
        return spec_from_json(hint, value)
    if hint is Fraction:
        return Fraction(value)
    if origin is tuple:
        return tuple(_typed(arm, item) for arm, item in zip(_arms(hint, value), value, strict=True))
    if hint is Any and isinstance(value, list):
        # Specs are hashed, which lists cannot be.
        return tuple(_typed(Any, item) for item in value)
    return value


def _arms(hint: Any, value: Any) -> tuple[Any, ...]:
    arms = get_args(hint)
    return (arms[0],) * len(value) if len(arms) == 2 and arms[1] is Ellipsis else arms


def _number(value: Any, default: Any) -> Any:
    exact = isinstance(value, str) and _NUMBER.fullmatch(value) and not isinstance(default, str)
    return Fraction(value) if exact else value
