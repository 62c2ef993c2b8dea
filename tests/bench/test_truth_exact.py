"""Branch and bound against brute force that shares nothing with it but the network."""

import itertools
from fractions import Fraction
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor
from truth_networks import random_images, random_network

from attacks.combinators import run_attack
from attacks.losses import margin
from attacks.threat import Threat
from bench.errors import BenchError
from bench.registry import ATTACKS
from bench.resolve import attack_arguments, parse_attack
from bench.truth.bounds import OPEN, SLACK, margin_bound, spike_ranges
from bench.truth.exact import BROKEN, ROBUST, UNKNOWN, Limits, Verdict
from bench.truth.images import verdicts
from bench.truth.network import network_of, noise_off
from bench.truth.reach import Reach
from models.neurons import NeuronSpec
from models.random import CounterRNG
from models.tiny import SpikingMLP

EPS = st.sampled_from(["0", "1/50", "1/10", "1/4", "1"])


def right(model: torch.nn.Module, x: Tensor, y: int) -> Tensor:
    with torch.no_grad():
        return margin(model(x), torch.full((len(x),), y)) < 0


def first_currents(model: SpikingMLP, x: Tensor) -> Tensor:
    return model.stem((x - model.mean) / model.std).detach()


def brute_force(model: SpikingMLP, x: Tensor, y: int, eps: float, steps: int) -> bool:
    """Whether every combination of trains that some image of the ball produces is classified right.

    One feasibility program for each combination, none left out; the trains and their intervals are found by
    bisection on the neuron, the answers by running the model's body.
    """
    double = noise_off(model)
    pixels = x.numel()
    zero = first_currents(double, torch.zeros(1, 1, 1, pixels, dtype=torch.float64))[0]
    unit = first_currents(double, torch.eye(pixels, dtype=torch.float64).view(pixels, 1, 1, pixels)) - zero
    box = [(max(0.0, float(v) - eps), min(1.0, float(v) + eps)) for v in x.flatten()]
    neuron = double.neurons[0]

    def train(current: Tensor) -> tuple[int, ...]:
        return tuple(int(s) for s in neuron(current.expand(steps, 1)).flatten())

    def pieces(low: float, high: float) -> list[tuple[float, float]]:
        """[low, high] cut where the train changes, by bisection of a fine grid."""
        grid = torch.linspace(low, high, 400, dtype=torch.float64)
        cuts = [low]
        for a, b in itertools.pairwise(grid):
            if train(a) != train(b):
                inner = [float(a), float(b)]
                for _ in range(60):
                    middle = sum(inner) / 2
                    inner[int(train(torch.tensor(middle, dtype=torch.float64)) != train(a))] = middle
                cuts.append(inner[1])
        return list(itertools.pairwise([*cuts, high + 1e-7]))

    spread = [
        (
            float(zero[i]) + sum(min(float(unit[p, i]) * end for end in box[p]) for p in range(pixels)),
            float(zero[i]) + sum(max(float(unit[p, i]) * end for end in box[p]) for p in range(pixels)),
        )
        for i in range(len(zero))
    ]
    matrix = unit.T.numpy()
    for choice in itertools.product(*(pieces(low, high) for low, high in spread)):
        low, high = (np.array(side) - zero.numpy() for side in zip(*choice, strict=True))
        found = linprog(
            np.zeros(pixels), np.vstack([matrix, -matrix]), np.concatenate([high, -low]), bounds=box, method="highs-ipm"
        )
        if found.status == 0:
            middle = torch.tensor([(a + b) / 2 for a, b in choice], dtype=torch.float64)
            with torch.no_grad():
                lost = margin(double.body(middle.expand(steps, 1, -1), None, steps).mean(0), torch.tensor([y]))
            if float(lost) >= 0:
                return False
    return True


def decided(model: torch.nn.Module, x: Tensor, y: Tensor, eps: str, limits: Limits | None = None) -> list[Verdict]:
    """Verdicts by enumeration alone: lucky guesses would hide what it misses."""
    with patch("bench.truth.exact.lowest_margins", lambda *_: iter(())):
        return list(verdicts(model, x, y, Threat(Fraction(eps)), limits or Limits()))


def check_witness(model: torch.nn.Module, x: Tensor, y: int, eps: str, verdict: Verdict) -> None:
    assert verdict.witness is not None
    witness = torch.from_numpy(verdict.witness).view(x.shape)
    assert witness.dtype == torch.float64
    assert float((witness - x).abs().max()) <= float(Fraction(eps))
    assert float(witness.min()) >= 0 and float(witness.max()) <= 1
    assert not right(noise_off(model), witness[None], y)[0]


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    h1=st.integers(1, 3),
    pixels=st.integers(1, 3),
    T=st.integers(1, 4),
    decay=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    eps=EPS,
)
def test_it_agrees_with_brute_force(seed: int, h1: int, pixels: int, T: int, decay: float, eps: str) -> None:
    model = random_network(seed, (h1, 4), pixels, T=T, decay=decay)
    x = random_images(seed, 1, pixels)
    with torch.no_grad():
        y = noise_off(model)(x).argmax(1)
    (verdict,) = decided(model, x, y, eps)
    assert verdict.status == (ROBUST if brute_force(model, x[0], int(y), float(Fraction(eps)), T) else BROKEN)
    if verdict.status == BROKEN:
        check_witness(model, x[0], int(y), eps, verdict)


@pytest.mark.parametrize("widths", [(4, 4), (4,), (4, 3, 3)])
def test_no_point_of_a_dense_grid_contradicts_it(widths: tuple[int, ...]) -> None:
    statuses = set()
    for seed in range(12):
        model = random_network(seed, widths, 2)
        double, x = noise_off(model), random_images(seed, 1, 2)
        with torch.no_grad():
            y = double(x).argmax(1)
        (verdict,) = decided(model, x, y, "1/20")
        side = torch.linspace(-0.05, 0.05, 161, dtype=torch.float64)
        grid = (x + torch.cartesian_prod(side, side).view(-1, 1, 1, 2)).clamp(0, 1)
        survives = bool(right(double, grid, int(y)).all())
        statuses.add(verdict.status)
        assert survives or verdict.status == BROKEN
        if verdict.status == BROKEN:
            check_witness(model, x[0], int(y), "1/20", verdict)
    assert statuses == {ROBUST, BROKEN}


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), widths=st.sampled_from([(3,), (3, 4), (2, 3, 3)]), T=st.integers(1, 5))
def test_a_bound_holds_for_every_completion_and_is_exact_for_a_full_pattern(
    seed: int, widths: tuple[int, ...], T: int
) -> None:
    model = noise_off(random_network(seed, widths, 3, T=T))
    network = network_of(model)
    count = len(network.trains.spikes)
    ranges = spike_ranges(network, np.tile([0, count - 1], (network.neurons, 1)))
    full = np.array(list(itertools.product(range(count), repeat=network.neurons)), dtype=np.int8)
    spikes = torch.from_numpy(network.trains.spikes[full]).permute(2, 0, 1)
    with torch.no_grad():
        for linear, neuron in zip(model.hidden, list(model.neurons)[1:], strict=True):
            spikes = neuron(linear(spikes.flatten(0, 1)).unflatten(0, (T, -1)))
        exact = -margin(model.readout(spikes).mean(0), torch.full((len(full),), 1)).numpy()
    assert np.abs(margin_bound(network, full, ranges, 1) - exact).max() < 1e-9
    for open_neurons in itertools.product([False, True], repeat=network.neurons):
        partial = np.where(open_neurons, np.int8(OPEN), full)
        assert (margin_bound(network, partial, ranges, 1) <= exact + 1e-9).all()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), pixels=st.integers(1, 4), eps=st.sampled_from([0.02, 0.2, 0.6]))
def test_no_certificate_excludes_what_an_image_produces(seed: int, pixels: int, eps: float) -> None:
    network = network_of(random_network(seed, (4, 3), pixels))
    random = np.random.default_rng(seed)
    centre = random.random(pixels)
    low, high = (centre - eps).clip(0), (centre + eps).clip(max=1)
    reach = Reach(network, low, high)
    spans = [np.arange(first, last + 1) for first, last in reach.reachable]
    for _ in range(20):
        reach.probe(np.array([random.choice(span) for span in spans], dtype=np.int8))
    images = low + (high - low) * random.choice([0.0, 1.0, 0.3, 0.7], (400, pixels))
    produced = network.trains.index(network.currents(images)).astype(np.int8)
    assert len(reach.surviving(produced)) == len(produced)


def test_the_weights_are_the_models() -> None:
    model = random_network(3, (3, 4), 5)
    x = random_images(0, 50, 5)
    expected = first_currents(noise_off(model), x).numpy()
    assert np.abs(network_of(model).currents(x.flatten(1).numpy()) - expected).max() < 1e-12


def test_no_attack_goes_below_the_truth() -> None:
    eps, n = "1/20", 60
    gaps = []
    for seed in range(4):
        model = random_network(seed, (6, 8), 6)
        double, x = noise_off(model), random_images(seed, n, 6)
        with torch.no_grad():
            y = double(x).argmax(1)
        robust = torch.tensor([verdict.status == ROBUST for verdict in decided(model, x, y, eps)])
        for name in ("fgsm", "rfgsm", "pgd10", "pgd10:loss=margin"):
            spec = parse_attack(name, eps)
            path = run_attack(
                ATTACKS.get(spec.family), double, x, y, Threat(Fraction(eps)), rng=CounterRNG(0, torch.arange(n)),
                **({"steps": (spec.steps,)} if spec.steps else {}), **attack_arguments(spec),
            )  # fmt: skip
            for x_adv in path[spec.steps]:
                with torch.no_grad():
                    survived = margin(double(x_adv), y) < 0
                assert not bool((robust & ~survived).any())
                gaps.append(int(survived.sum()) - int(robust.sum()))
    assert min(gaps) >= 0
    assert max(gaps) > 0


def test_without_a_budget_it_is_the_clean_accuracy() -> None:
    model = random_network(1, (6, 8), 6)
    x = random_images(1, 80, 6)
    y = torch.randint(0, 3, (80,), generator=torch.Generator().manual_seed(0))
    correct = right_labels(model, x, y)
    assert [verdict.status == ROBUST for verdict in decided(model, x, y, "0")] == correct
    assert 0 < sum(correct) < 80


def right_labels(model: torch.nn.Module, x: Tensor, y: Tensor) -> list[bool]:
    with torch.no_grad():
        return [bool(v) for v in margin(noise_off(model)(x), y) < 0]


def test_noise_is_switched_off_and_the_model_left_as_it_is() -> None:
    noisy = random_network(2, (4, 4), 3, neuron=NeuronSpec("nlif", params=(("noise_var", 0.4),)))
    plain = random_network(2, (4, 4), 3)
    x, y = random_images(2, 20, 3), torch.zeros(20, dtype=torch.int64)
    statuses = [[verdict.status for verdict in decided(model, x, y, "1/20")] for model in (noisy, plain)]
    assert statuses[0] == statuses[1]
    assert noisy.neurons[0].noise_on
    assert noisy.readout.weight.dtype == torch.float32


@pytest.mark.parametrize("limits", [Limits(nodes=1), Limits(seconds=1e-9), Limits(programs=0)])
def test_a_limit_gives_unknown_and_honest_bounds(limits: Limits) -> None:
    model = random_network(5, (8, 8), 6)
    x = random_images(5, 40, 6)
    with torch.no_grad():
        y = noise_off(model)(x).argmax(1)
    exact, limited = decided(model, x, y, "1/10"), decided(model, x, y, "1/10", limits)
    unknown = [verdict for verdict in limited if verdict.status == UNKNOWN]
    assert unknown
    assert all(verdict.reason in ("nodes", "seconds", "programs") and verdict.witness is None for verdict in unknown)
    for full, part in zip(exact, limited, strict=True):
        assert part.status in (full.status, UNKNOWN)


def one_pixel_network(bias: float) -> SpikingMLP:
    """Class 0 while the only neuron, whose current is x + bias, stays silent, else class 1."""
    model = SpikingMLP(2, (1, 1, 1), (1,), NeuronSpec().build, T=1, mean=(0.0,), std=(1.0,)).double()
    _, linear, norm = model.stem
    with torch.no_grad():
        linear.weight.fill_(1)
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        norm.bias.fill_(bias)
        model.readout.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.readout.bias.copy_(torch.tensor([0.5, -0.5]))
    return model.eval()


@pytest.mark.parametrize(
    ("bias", "status"),
    [(0.25 - 1e-6, ROBUST), (0.25 - 1e-12, UNKNOWN), (0.25 + 1e-12, BROKEN), (0.25 + 1e-6, BROKEN)],
)
def test_a_breakpoint_at_the_balls_very_edge(bias: float, status: str) -> None:
    """The ball ends at x = 0.75, where the current is 1 or nearly; only a verified witness breaks an image."""
    (verdict,) = decided(one_pixel_network(bias), torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]), "1/4")
    assert verdict.status == status
    assert verdict.reason == ("edge" if status == UNKNOWN else "")
    assert SLACK > 1e-12


def test_guessing_first_changes_no_verdict() -> None:
    model, x = random_network(7, (6, 8), 6), random_images(7, 60, 6)
    with torch.no_grad():
        y = noise_off(model)(x).argmax(1)
    guessed = list(verdicts(model, x, y, Threat(Fraction(1, 20)), Limits()))
    assert [v.status for v in guessed] == [v.status for v in decided(model, x, y, "1/20")]
    for number, verdict in enumerate(guessed):
        if verdict.status == BROKEN:
            check_witness(model, x[number], int(y[number]), "1/20", verdict)


@pytest.mark.parametrize(("lead", "status"), [(1e-6, ROBUST), (0.0, BROKEN), (-1e-6, BROKEN)])
def test_a_tie_that_only_an_attack_reaches_is_not_robust(lead: float, status: str) -> None:
    """Firing, which x = 0.6 does, leaves class 0 ahead by `lead`."""
    model = one_pixel_network(0.4)
    with torch.no_grad():
        model.readout.weight.copy_(torch.tensor([[-1.0], [0.0]]))
        model.readout.bias.copy_(torch.tensor([1.0 + lead, 0.0]))
    (verdict,) = decided(model, torch.full((1, 1, 1, 1), 0.5), torch.tensor([0]), "1/4")
    assert verdict.status == status


def test_another_architecture_or_norm_is_refused() -> None:
    x, y = random_images(0, 1, 3), torch.tensor([0])
    with pytest.raises(BenchError, match="--model tiny"):
        decided(torch.nn.Linear(3, 2), x, y, "1/10")
    with pytest.raises(BenchError, match="linf norm only"):
        list(verdicts(random_network(0), x, y, Threat(Fraction(1, 10), "l2"), Limits()))


def test_weights_too_large_for_a_proof_are_refused() -> None:
    model = random_network(0)
    with torch.no_grad():
        model.readout.weight.mul_(1e5)
    with pytest.raises(BenchError, match="round too coarsely"):
        network_of(model)
