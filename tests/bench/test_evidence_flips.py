"""Flipped spikes: a direct recount, Theorem 1 where its premises hold, nothing at eps = 0."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from support import images, spiking_net
from torch import Tensor, nn

from bench.evidence.flips import EDGES, flip_evidence, flip_probability
from bench.evidence.probe import Probe
from models.neurons import LIF, NeuronSpec, record_membrane
from models.random import CounterRNG, noise_stream

NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))


def probe(n: int, **options: object) -> Probe:
    return Probe(torch.arange(n), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("neuron", [NeuronSpec(), NOISY], ids=["lif", "nlif"])
def test_no_perturbation_flips_nothing(neuron: NeuronSpec) -> None:
    model, x = spiking_net(neuron), images(6)
    found = flip_evidence(model, x, x.clone(), probe(6, draws=2, batch=4), "none")
    assert (found.flipped, found.predicted, found.untouched) == (0, 0, 1)
    assert all(layer.sigma == (0.0, 0.0) for layer in found.layers)
    assert sum(part.share for part in found.bins) == pytest.approx(1)


def test_flips_and_their_distances_against_a_direct_recount() -> None:
    model, x = spiking_net(T=3), images(8)
    other = (x + 0.1 * (images(8, seed=9) - 0.5)).clamp(0, 1)
    found = flip_evidence(model, x, other, probe(8, batch=3), "some")
    potentials: list[dict[str, Tensor]] = []
    for inputs in (x, other):
        with record_membrane(model) as membrane, torch.no_grad():
            model(inputs)
        potentials.append(dict(membrane))
    pairs: list[tuple[float, bool]] = []
    for layer in found.layers:
        before, after = (v[layer.name] for v in potentials)
        for t in range(3):
            seen = list(zip(before[t].flatten().tolist(), after[t].flatten().tolist(), strict=True))
            flips = [(a >= 1) != (b >= 1) for a, b in seen]
            assert layer.flipped[t] == pytest.approx(sum(flips) / len(flips))
            assert layer.sigma[t] == pytest.approx(math.sqrt(sum((b - a) ** 2 for a, b in seen) / len(seen)), rel=1e-4)
            guess = [norm.sf(abs(a - 1) / layer.sigma[t]) for a, _ in seen]
            assert layer.predicted[t] == pytest.approx(sum(guess) / len(guess), rel=1e-4)
            pairs += [(abs(a - 1.0), flip) for (a, _), flip in zip(seen, flips, strict=True)]
    assert found.flipped == pytest.approx(sum(flip for _, flip in pairs) / len(pairs))
    assert found.flipped > 0.005
    for part, low, high in zip(found.bins, EDGES, EDGES[1:], strict=False):
        inside = [flip for distance, flip in pairs if low <= distance < high]
        assert part.share == pytest.approx(len(inside) / len(pairs))
        assert part.flipped == pytest.approx(sum(inside) / len(inside))


@given(st.floats(-3, 4), st.floats(0.01, 3))
@settings(max_examples=60, deadline=None)
def test_theorem_1_as_printed(v: float, sigma: float) -> None:
    z = (1.0 - v) / sigma
    printed = norm.cdf(z) if v >= 1 else 1 - norm.cdf(z)
    assert float(flip_probability(torch.tensor([v], dtype=torch.float64), 1.0, sigma)) == pytest.approx(
        printed, abs=1e-12
    )


class Wide(nn.Module):
    """LIF neurons of one step that see the pixels as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron = LIF()

    def forward(self, x: Tensor) -> Tensor:
        return self.neuron(x[None])[0].mean(1, keepdim=True).expand(len(x), 2)


def test_theorem_1_holds_where_the_perturbation_is_gaussian_noise_on_the_potential() -> None:
    potentials = torch.linspace(-0.5, 2.5, 40_000).expand(4, -1)
    noise = 0.4 * CounterRNG(1, torch.arange(4)).normal(1, (40_000,))[0]
    found = flip_evidence(Wide(), potentials, potentials + noise, probe(4), "gaussian")
    assert found.layers[0].sigma[0] == pytest.approx(0.4, rel=0.01)
    for part in found.bins[:-1]:
        assert part.flipped == pytest.approx(part.predicted, abs=0.012)
    assert found.bins[0].flipped > 0.4


def test_theorem_1_fails_where_the_perturbation_is_aligned_with_the_threshold() -> None:
    # Every potential 0.1 below the threshold is pushed up by 0.11: all flip, where noise of that size flips 18%.
    potentials = torch.full((1, 50), 0.9)
    found = flip_evidence(Wide(), potentials, potentials + 0.11, probe(1), "aligned")
    assert found.flipped == 1
    assert found.predicted == pytest.approx(float(norm.sf(0.1 / 0.11)), rel=1e-3)


def test_a_noisy_network_meets_the_same_noise_before_and_after() -> None:
    model, x = spiking_net(NOISY), images(5)
    other = (x + 0.02).clamp(0, 1)
    found = flip_evidence(model, x, other, probe(5, key=11, draws=2), "small")
    spikes: list[list[Tensor]] = []
    for layer in model.neurons:
        layer.register_forward_hook(lambda module, args, out: spikes[-1].append(out))
    for inputs in (x, other):
        for draw in range(2):
            spikes.append([])
            with noise_stream(model, 11, torch.arange(5), draw), torch.no_grad():
                model(inputs)
    flips = [a != b for i in range(2) for a, b in zip(spikes[i], spikes[i + 2], strict=True)]
    assert found.flipped == pytest.approx(sum(int(f.sum()) for f in flips) / sum(f.numel() for f in flips))
    assert 0 < found.flipped < 0.1


def test_images_without_a_flip_keep_their_logits() -> None:
    model, x = spiking_net(), images(30)
    other = (x + 2**-11).clamp(0, 1)
    found = flip_evidence(model, x, other, probe(30), "tiny")
    with torch.no_grad():
        same = (model(x) == model(other)).all(1)
    assert 0 < found.untouched < 1
    assert float(same.double().mean()) >= found.untouched


def test_a_network_without_spikes_is_refused() -> None:
    with pytest.raises(ValueError, match="no spiking layer"):
        flip_evidence(nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1, 2), probe(1), "none")
