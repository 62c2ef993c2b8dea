"""Three ways to compute: the fast one, what it must agree with, and a rounded one that is never taken for either."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from measuring import tiny_request
from test_evaluation import CPU, NOISY, cell, data, measure, network  # noqa: F401
from torch import nn

from bench.arithmetic import computing
from bench.data import Dataset
from bench.errors import BenchError
from bench.evaluation import CleanScores, evaluate
from bench.leaderboard.rank import boards
from bench.plan import make_plan
from bench.report.matrix import matrix
from bench.report.run import _cells_of
from bench.resolve import parse_attack
from bench.scheduler import Listener, run_plan
from bench.spec import key_of, randomness_key, trajectory_key
from bench.store import Store
from bench.worst import networks
from models.kernels import native
from models.neurons import NeuronSpec, spiking_layers


class Watched(nn.Module):
    """Notes the type of every logit and whether the neurons were written out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: set[tuple[bool, torch.dtype, bool]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(x)
        references = {layer.reference for layer in spiking_layers(self).values()}
        assert len(references) == 1
        self.seen.add((x.requires_grad, logits.dtype, references.pop()))
        return logits


@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
def test_the_fast_path_gives_what_the_reference_gives(data: Dataset, neuron: NeuronSpec) -> None:  # noqa: F811
    """Sums in another order may flip a spike now and then; at these sizes hardly one image's fate."""
    model, spec = network(data, neuron)
    names = ("fgsm", "pgd10")
    fast = measure(model, data, *(cell(data, spec, name) for name in names[:1]))
    slow = measure(model, data, *(cell(data, spec, f"{name}:arithmetic=reference") for name in names[:1]))
    a, b = fast["fgsm"], slow["fgsm:arithmetic=reference"]
    assert np.array_equal(a.clean, b.clean)
    assert np.allclose(a.margin_clean, b.margin_clean, rtol=0, atol=1e-5)
    assert (a.last == b.last).mean() > 0.95
    assert not all(layer.reference for layer in spiking_layers(model).values())


def test_the_reference_fuses_nothing_and_leaves_nothing_behind(data: Dataset) -> None:  # noqa: F811
    model, spec = network(data, NeuronSpec())
    watched = Watched(model)
    inside = []
    with computing(model, "reference", CPU):
        inside.append(native.available())
    assert inside == [False]
    measure(watched, data, cell(data, spec, "pgd2:arithmetic=reference"))
    assert watched.seen == {(True, torch.float32, True), (False, torch.float32, True)}
    watched.seen.clear()
    measure(watched, data, cell(data, spec, "pgd2"))
    assert watched.seen == {(True, torch.float32, False), (False, torch.float32, False)}


def test_bf16_is_how_an_attack_computes_and_not_how_it_is_judged(data: Dataset) -> None:  # noqa: F811
    model, spec = network(data, NeuronSpec())
    watched = Watched(model)
    rounded = measure(watched, data, cell(data, spec, "pgd3:arithmetic=bf16"))
    assert watched.seen == {(True, torch.bfloat16, False), (False, torch.float32, False)}
    plain = measure(model, data, cell(data, spec, "pgd3"))
    assert np.array_equal(rounded["pgd3:arithmetic=bf16"].clean, plain["pgd3"].clean)


def test_another_arithmetic_is_another_cell_with_the_same_random_numbers(data: Dataset) -> None:  # noqa: F811
    _, spec = network(data)
    plain, rounded = cell(data, spec, "pgd3"), cell(data, spec, "pgd3:arithmetic=bf16")
    stopped = cell(data, spec, "pgd3:early_stop=true")
    assert len({key_of(c) for c in (plain, rounded, stopped)}) == 3
    assert len({trajectory_key(c) for c in (plain, rounded, stopped)}) == 3
    assert len({randomness_key(c) for c in (plain, rounded, stopped)}) == 1
    # What came later leaves the keys of what was stored before as they were.
    assert key_of(plain) == key_of(replace(plain, attack=replace(plain.attack, arithmetic="fast")))
    assert "early_stop" not in dict(plain.attack.params)
    assert parse_attack("clean:arithmetic=bf16", "0").name == "clean"
    with pytest.raises(BenchError, match="arithmetic must be one of fast, bf16, reference, got 'fp8'"):
        parse_attack("pgd3:arithmetic=fp8", "0.1")


def test_noisy_networks_carry_their_generator_s_version_and_plain_ones_do_not(tiny_npz: Path, tmp_path: Path) -> None:
    plan = make_plan(tiny_request(tiny_npz, defenses=("vanilla", "nlif")), tmp_path, tmp_path)
    quiet, noisy = plan.jobs
    assert (quiet.spec.noise_version, quiet.cells[0].noise_version) == (1, 1)
    assert noisy.spec.noise_version == noisy.cells[0].noise_version > 1


def test_what_is_known_without_attack_is_computed_once(data: Dataset) -> None:  # noqa: F811
    model, spec = network(data)
    known: CleanScores = {}
    costs, calls = [], []
    for name in ("fgsm", "fgsm"):
        made: list[int] = []
        hook = model.register_forward_hook(lambda *_, made=made: made.append(1))
        (result,) = evaluate(model, data, [cell(data, spec, name)], device=CPU, clean=known)
        hook.remove()
        costs.append(result.forwards)
        calls.append(len(made))
    assert calls[0] - calls[1] == 2
    assert costs[0] == costs[1]
    assert len(known) == 1


def test_rounded_rows_are_stored_named_and_not_ranked(tiny_npz: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "bench.sqlite")
    for params in ({}, {"arithmetic": "bf16"}, {"arithmetic": "reference"}):
        request = tiny_request(tiny_npz, attacks=("fgsm",), params=params)
        plan = make_plan(request, tmp_path, tmp_path).known_to(store)
        report = run_plan(plan, store, tmp_path, CPU, Listener())
        assert not report.failures
    rows = store.cells(status="done")
    assert [row.attack for row in rows] == ["fgsm", "fgsm:arithmetic=bf16", "fgsm:arithmetic=reference"]
    (board,) = boards(store, rows)
    shown = {row.attack for entry in board.entries for seed in entry.seeds for row in seed.cells}
    assert shown == {"fgsm"}
    store.close()


def test_a_row_that_stopped_early_has_no_last_iterate(tiny_npz: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "bench.sqlite")
    request = tiny_request(tiny_npz, attacks=("fgsm", "pgd5"), params={"early_stop": "true"})
    plan = make_plan(request, tmp_path, tmp_path).known_to(store)
    assert not run_plan(plan, store, tmp_path, CPU, Listener()).failures
    rows = store.cells(status="done")
    assert [row.attack for row in rows] == ["fgsm", "pgd5:early_stop=true"]
    assert "pgd5:early_stop=true" not in matrix(rows, "last").rates.columns
    assert "pgd5:early_stop=true" in matrix(rows, "any").rates.columns
    assert [_cells_of(row)["robust accuracy"] == "-" for row in rows] == [False, True]
    assert networks(store, rows, "last") == []
    assert len(networks(store, rows, "any")) == 1
    store.close()


def test_training_in_bf16_or_by_the_reference_is_another_training(tiny_npz: Path, tmp_path: Path) -> None:
    keys = set()
    for arithmetic in (None, "bf16", "reference"):
        request = tiny_request(
            tiny_npz, defenses=("tgo+at",), attacks=("clean",), recipe={"epochs": 1, "arithmetic": arithmetic}
        )
        plan = make_plan(request, tmp_path, tmp_path)
        store = Store(tmp_path / "bench.sqlite")
        report = run_plan(plan.known_to(store), store, tmp_path, CPU, Listener())
        assert not report.failures
        keys.add(plan.jobs[0].weights_key)
        sidecar = json.loads(next(tmp_path.glob(f"{key_of(plan.jobs[0].spec)[:16]}.json")).read_text())
        assert sidecar["spec"]["recipe"].get("arithmetic") == arithmetic
        assert np.isfinite([line["loss"] for line in sidecar["log"]]).all()
        store.close()
    assert len(keys) == 3
