"""Specs survive being stored: the same key comes back."""

import json
from dataclasses import fields, replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import make_cell

from bench.errors import BenchError
from bench.resolve import attack_arguments, parse_attack, parse_defense
from bench.respec import attack_from_json, cell_from_json, model_from_json, recipe_from_json, train_from_json
from bench.spec import CellSpec, ModelSpec, Recipe, TrainSpec, identity_of, key_of
from defenses.base import Setting
from models.neurons import NeuronSpec

MODEL = ModelSpec(
    "cnn-small", 10, (1, 8, 8), 4, NeuronSpec("nlif", 0.25, params=(("noise_var", 0.4),)), (0.3,), (0.4,), "abc"
)


def stored(spec: Any) -> Any:
    """What a database gives back."""
    return json.loads(json.dumps(identity_of(spec)))


def reread(cell: CellSpec) -> CellSpec:
    return cell_from_json(
        stored(cell),
        dataset=cell.dataset,
        defense_name=cell.defense_name,
        seed=cell.seed,
        attack_name=cell.attack.name,
    )


def test_a_model_comes_back_equal() -> None:
    assert model_from_json(stored(MODEL)) == MODEL
    assert model_from_json(identity_of(MODEL)) == MODEL


numbers = st.floats(0, 10, allow_nan=False)
models = st.builds(
    ModelSpec,
    name=st.text(max_size=5),
    num_classes=st.integers(2, 200),
    in_shape=st.tuples(*[st.integers(1, 64)] * 3),
    T=st.integers(1, 16),
    neuron=st.builds(
        NeuronSpec,
        kind=st.sampled_from(["lif", "nlif"]),
        decay=numbers,
        detach_reset=st.booleans(),
        params=st.lists(st.tuples(st.text(max_size=3), numbers), max_size=3).map(tuple),
    ),
    mean=st.lists(numbers, max_size=3).map(tuple),
    std=st.lists(numbers, max_size=3).map(tuple),
    fingerprint=st.text(max_size=4),
)


@given(models)
@settings(max_examples=50, deadline=None)
def test_any_model_keeps_its_key(spec: ModelSpec) -> None:
    again = model_from_json(stored(spec))
    assert again == spec
    assert key_of(again) == key_of(spec)


@pytest.mark.parametrize("defense", ["vanilla", "tgo+at", "mc:lam_max=0.6,delta=0.25+rat"])
def test_a_training_run_keeps_its_key(defense: str) -> None:
    parts = parse_defense(defense).settled(Setting("cnn-small", Fraction(2, 255)))
    spec = TrainSpec(
        MODEL, Recipe(3, 16, lr=0.05, augment=True), tuple(parts.identity()), "hash", 3, Fraction(8, 255), defense, "d"
    )
    again = train_from_json(stored(spec), dataset="d", defense_name=defense, log_eps=Fraction(8, 255))
    assert key_of(again) == key_of(spec)
    assert again.recipe == spec.recipe
    assert again.model == spec.model


@pytest.mark.parametrize(
    ("name", "norm", "gradient"),
    [
        ("pgd7", "linf", None),
        ("pgd7:alpha=2/255,loss=margin,random_start=false,restarts=3", "linf", "arctan:alpha=4"),
        ("pgd3:alpha=1", "l2", None),
        ("fgsm", "linf", None),
        ("clean", "linf", None),
    ],
)
def test_a_cell_keeps_its_key_and_its_attack_s_arguments(name: str, norm: str, gradient: str | None) -> None:
    attack = parse_attack(name, "8/255", norm, gradient)
    cell = replace(make_cell(), attack=attack, draws=5)
    again = reread(cell)
    assert key_of(again) == key_of(cell)
    assert attack_arguments(again.attack) == attack_arguments(attack)
    assert again.attack.params == attack.params
    assert isinstance(hash(again), int)


def test_text_that_looks_like_a_number_stays_text_where_the_attack_s_default_is_text() -> None:
    data = stored(parse_attack("fgsm", "0.1")) | {"params": [["loss", "2"], ["alpha", "2"], ["kind", "ce"]]}
    params = dict(attack_from_json(data, name="fgsm").params)
    assert params == {"loss": "2", "alpha": Fraction(2), "kind": "ce"}
    assert isinstance(params["alpha"], Fraction)


def test_sequences_among_the_parameters_come_back_hashable() -> None:
    data = stored(parse_attack("fgsm", "0.1")) | {"params": [["budgets", [1, [2, 3]]]]}
    spec = attack_from_json(data, name="fgsm")
    assert spec.params == (("budgets", (1, (2, 3))),)
    assert isinstance(hash(spec), int)


@pytest.mark.parametrize(
    ("spec", "missing"),
    [(MODEL, "fingerprint"), (Recipe(1, 2), "holdout"), (Recipe(1, 2), "lr")],
)
def test_an_old_row_takes_the_defaults(spec: Any, missing: str) -> None:
    data = stored(spec)
    del data[missing]
    again = (model_from_json if isinstance(spec, ModelSpec) else recipe_from_json)(data)
    default = next(f.default for f in fields(type(spec)) if f.name == missing)
    assert getattr(again, missing) == default


def test_an_old_neuron_takes_the_defaults() -> None:
    data = stored(MODEL)
    del data["neuron"]["surrogate"]
    assert model_from_json(data).neuron == MODEL.neuron


def test_a_field_of_a_newer_version_and_a_damaged_row_are_errors() -> None:
    with pytest.raises(BenchError, match="'spin', which this version does not know"):
        model_from_json(stored(MODEL) | {"spin": 1})
    data = stored(MODEL)
    del data["T"]
    with pytest.raises(BenchError, match="lacks 'T'"):
        model_from_json(data)
    with pytest.raises(BenchError, match="damaged"):
        model_from_json([1, 2])  # type: ignore[arg-type]
