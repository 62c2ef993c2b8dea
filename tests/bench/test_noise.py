"""One rule says which networks draw noise, whoever asks."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from measuring import tiny_request

from bench.leaderboard.checks import _check_name
from bench.noise import draws_noise, is_noisy_cell
from bench.plan import Plan, make_plan
from bench.report.matrix import _named_alike
from bench.spec import CellSpec, identity_of, is_noisy, noise_version
from bench.training import build_without_rng
from models.encoding import ENCODERS
from models.neurons import NEURONS, NeuronSpec, is_stochastic

NOISY = ("nlif", "stog", "poisson", "signed-rate", "sqe")
STILL = ("vanilla", "dlif", "el", "fe", "hosnn", "nlif:noise_var=0")


def planned(tiny_npz: Path, folder: Path, defense: str, attack: str = "pgd3:eot=5") -> tuple[Plan, CellSpec]:
    plan = make_plan(tiny_request(tiny_npz, defenses=(defense,), attacks=(attack,), n=24), folder, folder)
    [cell] = plan.cells
    return plan, cell


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("encoder", ["", *ENCODERS])
def test_the_rule_says_what_the_network_does(tiny_npz: Path, tmp_path: Path, kind: str, encoder: str) -> None:
    plan, cell = planned(tiny_npz, tmp_path, "vanilla")
    model = replace(cell.model, neuron=NeuronSpec(kind), encoder=encoder)
    network = build_without_rng(replace(plan.jobs[0].spec, model=model))
    assert draws_noise(model.neuron, model.encoder) == is_stochastic(network)
    assert is_noisy_cell({"model": identity_of(model)}) == is_stochastic(network)


@pytest.mark.parametrize(("defense", "noisy"), [*((d, True) for d in NOISY), *((d, False) for d in STILL)])
def test_a_cell_is_as_noisy_as_it_was_planned(tiny_npz: Path, tmp_path: Path, defense: str, noisy: bool) -> None:
    plan, cell = planned(tiny_npz, tmp_path, defense)
    assert is_noisy(cell) == is_noisy_cell(identity_of(cell)) == noisy
    # It may be attacked again and submitted.
    assert noise_version(cell) == cell.noise_version
    # Nobody passes for deterministic by leaving out what the cell should say.
    assert is_noisy(replace(cell, noise_version=1)) == noisy
    parcel = SimpleNamespace(key="0" * 64, spec=identity_of(cell))
    _check_name(parcel, cell, plan.dataset)  # type: ignore[arg-type]
    # A mean over draws is in the name of a noisy network's attack, and of no other's.
    assert ("eot" in cell.attack.name) == noisy


def test_what_a_newer_version_stored_is_as_noisy_as_it_says() -> None:
    model = {"neuron": {"kind": "of-tomorrow"}, "encoder": "of-tomorrow"}
    assert not is_noisy_cell({"model": model})
    assert is_noisy_cell({"model": model, "noise_version": 3})


@pytest.mark.parametrize("defense", ["dlif", "hosnn", "fe"])
def test_without_noise_a_cell_stands_in_the_column_of_a_mean(tiny_npz: Path, tmp_path: Path, defense: str) -> None:
    rows = []
    for name in (defense, "nlif", "poisson"):
        _, cell = planned(tiny_npz, tmp_path, name)
        rows.append(SimpleNamespace(key=name, attack=cell.attack.name, spec=identity_of(cell)))
    assert _named_alike(rows) == {defense: "pgd3:eot=5"}  # type: ignore[arg-type]
