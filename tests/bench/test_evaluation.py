"""Attacks propose, the harness disposes: scoring, flags, shared trajectories."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attacks.base import Attack
from bench.data import Dataset, load_dataset
from bench.errors import BenchError
from bench.evaluation import evaluate
from bench.outcome import Flag, Outcome
from bench.proposal import CHUNK
from bench.registry import ATTACKS, Entry
from bench.resolve import build_model, parse_attack
from bench.spec import CellSpec, ModelSpec
from models.neurons import NeuronSpec, NoisyLIF
from models.random import CounterRNG

CPU = torch.device("cpu")
NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))


@pytest.fixture(scope="module")
def data(tiny_npz: Path) -> Dataset:
    return load_dataset(str(tiny_npz), Path())


def network(data: Dataset, neuron: NeuronSpec = NOISY) -> tuple[nn.Module, ModelSpec]:
    spec = ModelSpec("cnn-small", data.num_classes, data.in_shape, 2, neuron, data.mean, data.std)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(spec).eval()
    # Fresh weights barely reach the threshold; a silent network would make every comparison here empty.
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 4.0)
    with torch.no_grad():
        assert model(data.x_test).std(0).min() > 0.01
    return model, spec


def cell(data: Dataset, spec: ModelSpec, attack: str, eps: str = "0.1", n: int = 40, draws: int = 2) -> CellSpec:
    resolved = parse_attack(attack, eps)
    return CellSpec("train:x", spec, data.test_hash, n, resolved, draws, 0, data.name, "vanilla", 0)


def measure(model: nn.Module, data: Dataset, *cells: CellSpec) -> dict[str, Outcome]:
    parts: dict[str, list[Outcome]] = {}
    for result in evaluate(model, data, cells, device=CPU):
        for spec, outcome in result.outcomes.items():
            parts.setdefault(spec.attack.name, []).append(outcome)
    return {name: Outcome.concatenate(outcomes) for name, outcomes in parts.items()}


@pytest.fixture
def attack() -> Iterator[Callable[..., None]]:
    """Registers an attack called `mine` for one test."""

    def add(run: Callable[..., Tensor], **options: Any) -> None:
        ATTACKS._entries["mine"] = Entry("mine", Attack(run, "test", **options), True)

    yield add
    ATTACKS._entries.pop("mine", None)


@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
def test_one_trajectory_gives_each_step_count_what_a_run_of_its_own_would(data: Dataset, neuron: NeuronSpec) -> None:
    model, spec = network(data, neuron)
    together = measure(model, data, *(cell(data, spec, name) for name in ("pgd2", "pgd5", "pgd9")))
    for name in ("pgd2", "pgd5", "pgd9"):
        alone = measure(model, data, cell(data, spec, name))
        assert alone[name].pack() == together[name].pack()


def test_restarts_of_a_noisy_network_do_not_depend_on_which_steps_are_kept(data: Dataset) -> None:
    model, spec = network(data)
    together = measure(model, data, *(cell(data, spec, f"pgd{k}:restarts=2") for k in (2, 4)))
    alone = measure(model, data, cell(data, spec, "pgd2:restarts=2"))
    assert alone["pgd2:restarts=2"].pack() == together["pgd2:restarts=2"].pack()


def test_a_budget_of_zero_scores_exactly_the_clean_accuracy_of_a_noisy_network(data: Dataset) -> None:
    model, spec = network(data)
    outcome = measure(model, data, cell(data, spec, "pgd3", eps="0", draws=5))["pgd3"]
    assert np.array_equal(outcome.clean, outcome.last)
    assert np.array_equal(outcome.robust_any, outcome.clean.mean(1))
    assert 0 < outcome.clean.mean() < 1


def test_outcomes_of_an_image_do_not_depend_on_how_many_are_attacked(data: Dataset) -> None:
    model, spec = network(data)
    model = model.double()
    wide = replace(data, x_test=data.x_test.double().float())
    few = measure(_Double(model), wide, cell(data, spec, "pgd3", n=40))["pgd3"]
    more = measure(_Double(model), wide, cell(data, spec, "pgd3", n=CHUNK + 12))["pgd3"]
    for name in ("clean", "last", "best"):
        assert np.array_equal(getattr(few, name), getattr(more, name)[:40]), name


class _Double(nn.Module):
    """Computes in float64, where the order of additions flips no spike."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.double())
        return logits.float()


def test_chunks_that_are_done_are_skipped(data: Dataset) -> None:
    model, spec = network(data, NeuronSpec())
    wanted = cell(data, spec, "fgsm", n=150, draws=1)
    starts = [r.start for r in evaluate(model, data, [wanted], device=CPU, done=frozenset({0}))]
    assert starts == [CHUNK]


def test_an_attack_that_leaves_the_ball_is_flagged(data: Dataset, attack: Callable[..., None]) -> None:
    model, spec = network(data)
    attack(lambda model, x, y, threat, *, rng: (x + 1.001 * float(threat.eps)).clamp(0, 1))
    outcome = measure(model, data, cell(data, spec, "mine"))["mine"]
    assert (outcome.flags & Flag.OUTSIDE).all()


def test_an_attack_that_leaves_the_box_is_flagged(data: Dataset, attack: Callable[..., None]) -> None:
    model, spec = network(data)
    attack(lambda model, x, y, threat, *, rng: x + 0.25)
    outcome = measure(model, data, cell(data, spec, "mine", eps="1"))["mine"]
    leaves = (data.x_test[:40].flatten(1).amax(1) > 0.75).numpy()
    assert 0 < leaves.sum() < 40
    assert np.array_equal(outcome.flags & Flag.OUTSIDE > 0, leaves)


def test_nan_pixels_are_outside_the_ball(data: Dataset, attack: Callable[..., None]) -> None:
    model, spec = network(data)
    attack(lambda model, x, y, threat, *, rng: x * torch.nan)
    outcome = measure(model, data, cell(data, spec, "mine"))["mine"]
    assert (outcome.flags & Flag.OUTSIDE).all()


def test_nan_logits_count_neither_as_robust_nor_unnoticed(data: Dataset) -> None:
    class Fragile(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            value = x.flatten(1).mean(1)
            logits = torch.stack([value, 1 - value], 1)
            return torch.where((value > 0.45)[:, None], torch.nan, logits)

    spec = network(data)[1]
    outcome = measure(Fragile(), data, cell(data, spec, "fgsm", eps="0.3", draws=1))["fgsm"]
    broken = outcome.flags & Flag.NAN > 0
    assert broken.any()
    assert not (outcome.clean & outcome.last)[broken].any()


def test_a_tie_is_flagged_and_is_not_a_correct_prediction(data: Dataset) -> None:
    class Silent(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :2] * 0

    spec = network(data)[1]
    outcome = measure(Silent(), data, cell(data, spec, "fgsm", draws=1))["fgsm"]
    assert (outcome.flags & Flag.TIE).all()
    assert not outcome.clean.any()


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda model, x, y, threat, *, rng: x[:3], r"returned \[3, 1, 8, 8\] instead of images"),
        (lambda model, x, y, threat, *, rng: None, "returned NoneType"),
        (lambda model, x, y, threat, *, rng: {}["boom"], "KeyError: 'boom'"),
        (lambda model, x, y, threat, *, rng: x.double(), "returned torch.float64 on cpu instead of torch.float32"),
    ],
)
def test_an_attack_that_breaks_its_contract_fails_with_its_name(
    data: Dataset, attack: Callable[..., None], run: Callable[..., Tensor], message: str
) -> None:
    model, spec = network(data)
    attack(run)
    with pytest.raises(BenchError, match=message):
        measure(model, data, cell(data, spec, "mine"))


def test_an_attack_cannot_move_the_images_or_labels_it_is_judged_by(data: Dataset, attack: Callable[..., None]) -> None:
    model, spec = network(data)

    def move(model: nn.Module, x: Tensor, y: Tensor, threat: object, *, rng: CounterRNG) -> Tensor:
        y.copy_(1 - y)
        rng.samples.zero_()
        return x.copy_(1 - x)

    honest = measure(model, data, cell(data, spec, "clean"))["clean"]
    attack(move)
    outcome = measure(model, data, cell(data, spec, "mine"))["mine"]
    assert (outcome.flags & Flag.OUTSIDE).all()
    assert np.array_equal(outcome.clean, honest.clean)


def train_mode(model: nn.Module, x: Tensor) -> None:
    model.train()
    model(x)


def move_a_weight(model: nn.Module, x: Tensor) -> None:
    next(model.parameters()).data.add_(0.1)


def move_and_fail(model: nn.Module, x: Tensor) -> None:
    move_a_weight(model, x)
    raise RuntimeError("later")


@pytest.mark.parametrize("meddle", [train_mode, move_a_weight, move_and_fail])
def test_an_attack_that_changes_the_model_fails_and_the_model_is_put_back(
    data: Dataset, attack: Callable[..., None], meddle: Callable[..., None]
) -> None:
    model, spec = network(data)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def run(model: nn.Module, x: Tensor, y: Tensor, threat: object, *, rng: CounterRNG) -> Tensor:
        meddle(model, x)
        return x

    attack(run)
    with pytest.raises(BenchError, match="changed the model it attacks"):
        measure(model, data, cell(data, spec, "mine"))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_an_attack_that_draws_from_torch_s_generator_is_repeatable(data: Dataset, attack: Callable[..., None]) -> None:
    model, spec = network(data)
    seen = []

    def run(model: nn.Module, x: Tensor, y: Tensor, threat: object, *, rng: CounterRNG) -> Tensor:
        seen.append(torch.rand(3))
        return x

    attack(run)
    before = torch.get_rng_state()
    for _ in range(2):
        measure(model, data, cell(data, spec, "mine", n=CHUNK + 1))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_more_restarts_lose_no_image_that_fewer_won(data: Dataset) -> None:
    model, spec = network(data, NeuronSpec())
    outcomes = [
        measure(model, data, cell(data, spec, f"pgd3:restarts={k}", draws=1, n=CHUNK)).popitem()[1] for k in (1, 2, 4)
    ]
    for fewer, more in pairwise(outcomes):
        assert not (more.last & ~fewer.last).any()
        assert not (more.best & ~fewer.best).any()
        assert (more.margin_last <= fewer.margin_last + 1e-6).all()
        assert (more.margin_last < fewer.margin_last - 1e-4).any()


def test_a_network_of_one_s_own_meets_fresh_noise_in_every_draw(data: Dataset) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.neuron, self.readout = NoisyLIF(), nn.Linear(64, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.readout(self.neuron(x.flatten(1).expand(2, len(x), 64)).mean(0))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Own().eval()
    spec = network(data)[1]
    outcome = measure(model, data, cell(data, spec, "clean", draws=8))["clean"]
    assert (outcome.clean != outcome.clean[:, :1]).any()


def test_passes_are_counted_in_images(data: Dataset) -> None:
    model, spec = network(data, NeuronSpec())
    (result,) = evaluate(model, data, [cell(data, spec, "pgd5", draws=1)], device=CPU)
    assert result.backwards == 5 * 40
    assert result.forwards == (5 + 4) * 40, "the attack, and the clean, placebo, last and best scorings"


def test_attacker_surrogate_changes_the_attack_and_not_the_scoring(data: Dataset) -> None:
    model, spec = network(data, NeuronSpec())
    plain = cell(data, spec, "pgd5", draws=1)
    other = replace(plain, attack=parse_attack("pgd5", "0.1", surrogate="arctan:alpha=8"))
    outcomes = measure(model, data, plain) | measure(model, data, other)
    a, b = outcomes.values()
    assert np.array_equal(a.margin_clean, b.margin_clean)
    assert not np.array_equal(a.margin_last, b.margin_last)


class Blinded(nn.Module):
    """A network whose gradient is zero for some images, which it knows by their first pixel."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        blind = (x[:, 0, 0, 0] > 0.5).view(-1, 1, 1, 1)
        return self.model(torch.where(blind, x.detach(), x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("attack", ["fgsm", "pgd3", "autoattack-rand:loss=margin", "sweep2"])
def test_blind_images_are_found_whatever_part_of_the_batch_an_attack_works_on(data: Dataset, attack: str) -> None:
    model, spec = network(data, NeuronSpec())
    x = data.x_test[:40].clone()
    x[::3, 0, 0, 0], x[1::3, 0, 0, 0], x[2::3, 0, 0, 0] = 1.0, 0.0, 0.0
    part = replace(data, x_test=torch.cat([x, data.x_test[40:]]))
    (outcome,) = measure(Blinded(model), part, cell(part, spec, attack, draws=1)).values()
    watched = outcome.flags & Flag.UNWATCHED == 0
    blind = outcome.flags & Flag.ZERO_GRADIENT != 0
    expected = np.arange(40) % 3 == 0
    assert watched.any()
    assert np.array_equal(blind[watched], expected[watched])
    assert not blind[~watched].any()
    if attack in ("fgsm", "pgd3"):
        assert watched.all()
