"""What makes two runs the same."""

from dataclasses import fields, replace
from fractions import Fraction

import pytest

from bench.canonical import canonical_json
from bench.spec import (
    AttackSpec,
    CellSpec,
    ModelSpec,
    Recipe,
    TrainSpec,
    identity_of,
    key_of,
    randomness_key,
    trajectory_key,
)
from models.neurons import NeuronSpec

MODEL = ModelSpec("cnn-small", 10, (1, 8, 8), 4, NeuronSpec(), (0.3,), (0.4,))
ATTACK = AttackSpec("pgd", 40, (("alpha", Fraction(1, 100)),), 1, 1, "linf", Fraction(8, 255), 0.0, 1.0, None, "pgd40")
CELL = CellSpec("train:abc", MODEL, "hash", 500, ATTACK, 1, 0, "digits", "vanilla", 0)
TRAIN = TrainSpec(MODEL, Recipe(15, 64), (), "hash", 0, Fraction(1, 10), "vanilla", "digits")


@pytest.mark.parametrize("spec", [ModelSpec, Recipe, TrainSpec, AttackSpec, CellSpec])
def test_every_field_is_declared_identity_or_runtime(spec: type) -> None:
    undeclared = [f.name for f in fields(spec) if f.metadata.get("role") not in ("identity", "runtime")]
    assert not undeclared


def changed(value: object) -> object:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, int | float | Fraction):
        return value + 1
    if isinstance(value, ModelSpec):
        return replace(value, T=value.T + 1)
    if isinstance(value, AttackSpec):
        return replace(value, steps=value.steps + 1)
    if isinstance(value, Recipe):
        return replace(value, epochs=value.epochs + 1)
    if isinstance(value, NeuronSpec):
        return replace(value, decay=value.decay / 2)
    if isinstance(value, tuple):
        return (*value, 7.0)
    return "arctan:alpha=2.0"


@pytest.mark.parametrize("spec", [MODEL, TRAIN.recipe, TRAIN, ATTACK, CELL], ids=lambda spec: type(spec).__name__)
def test_key_changes_with_every_identity_field_and_with_no_runtime_field(spec: object) -> None:
    for field in fields(spec):  # type: ignore[arg-type]
        other = replace(spec, **{field.name: changed(getattr(spec, field.name))})  # type: ignore[type-var]
        assert (key_of(other) != key_of(spec)) == (field.metadata["role"] == "identity"), field.name


def test_every_field_of_a_neuron_is_identity() -> None:
    for field in fields(NeuronSpec):
        other = replace(MODEL, neuron=replace(NeuronSpec(), **{field.name: changed(getattr(NeuronSpec(), field.name))}))
        assert key_of(other) != key_of(MODEL), field.name


def test_key_is_stable_across_versions_of_the_code() -> None:
    assert key_of(CELL) == "9aa3e5faab56725add2e79d48fad11cb9b7dfc5dd4beff5350ce5c2022831e46"


def test_step_counts_share_a_trajectory_but_not_a_key() -> None:
    longer = replace(CELL, attack=replace(ATTACK, shares_trajectory=True))
    shorter = replace(longer, attack=replace(longer.attack, steps=7))
    assert trajectory_key(shorter) == trajectory_key(longer)
    assert key_of(shorter) != key_of(longer)


def test_an_attack_whose_schedule_knows_the_step_count_runs_once_for_each() -> None:
    shorter = replace(CELL, attack=replace(ATTACK, steps=7))
    assert trajectory_key(shorter) != trajectory_key(CELL)
    assert randomness_key(shorter) == randomness_key(CELL)


@pytest.mark.parametrize(
    "other",
    [
        replace(CELL, n=3),
        replace(CELL, draws=3),
        replace(CELL, attack=replace(ATTACK, steps=3)),
        replace(CELL, attack=replace(ATTACK, restarts=3)),
        replace(CELL, attack=replace(ATTACK, eot=3)),
    ],
)
def test_random_numbers_do_not_depend_on_how_much_is_done(other: CellSpec) -> None:
    assert randomness_key(other) == randomness_key(CELL)
    assert key_of(other) != key_of(CELL)


@pytest.mark.parametrize(
    "other",
    [
        replace(CELL, attack_seed=1),
        replace(CELL, attack=replace(ATTACK, eps=Fraction(4, 255))),
        replace(CELL, weights="train:abd"),
    ],
)
def test_another_seed_budget_or_network_has_other_random_numbers(other: CellSpec) -> None:
    assert randomness_key(other) != randomness_key(CELL)
    assert trajectory_key(other) != trajectory_key(CELL)


def test_canonical_json_ignores_the_order_of_keys_and_refuses_nan() -> None:
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1})
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(float("nan"))


def test_a_value_without_a_stable_form_cannot_enter_a_key() -> None:
    with pytest.raises(TypeError, match="cannot be part of a key"):
        identity_of(object())
