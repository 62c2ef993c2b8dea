"""MS-MPPD: two passes under one noise, and how far the last layer's currents drift apart."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from support import images, labels, spiking_net
from torch import Tensor
from torch.nn import functional

from defenses import Step
from defenses.mppd import PerturbationDynamics, dynamics, mppd
from defenses.rat import rat
from models import CounterRNG, NeuronSpec
from models.dynamic import DynamicLIF
from models.neurons import last_currents, spiking_layers
from models.random import NoiseStream, noise_stream
from models.shaped import settle_shapes

PART = PerturbationDynamics(rho=0.7, sigma=Fraction(1, 5))


def step_of(model: torch.nn.Module, x: Tensor, clean: Tensor, y: Tensor) -> Step:
    with last_currents(model) as kept:
        logits = model(x)
    return Step(model, x, y, logits, {}, 0.5, clean, CounterRNG(3, torch.arange(len(x))), currents=kept[0])


def test_y_is_the_leaky_sum_of_the_change() -> None:
    change = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = dynamics(change, 0.7)
    for index in torch.cartesian_prod(torch.arange(2), torch.arange(3)).tolist():
        kept = 0.0
        for t in range(4):
            kept = 0.7 * kept + float(change[(t, *index)])
            assert float(y[(t, *index)]) == pytest.approx(kept)


def last_inputs(model: torch.nn.Module, x: Tensor) -> Tensor:
    """The last layer's currents, by the network's own modules."""
    seen: list[Tensor] = []
    last = list(spiking_layers(model).values())[-1]
    handle = last.register_forward_hook(
        lambda layer, arguments, _: seen.append(
            torch.stack([arguments[1](now) for now in arguments[0]]) if arguments[1] is not None else arguments[0]
        )
    )
    model(x)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("perturbed", [True, False])
def test_the_loss_is_the_equation_s(perturbed: bool) -> None:
    model, y = spiking_net(dtype=torch.float64), labels(6)
    clean = images(6, dtype=torch.float64)
    noise = 0.2 * CounterRNG(3, torch.arange(6)).normal(1, (1, 8, 8), stream=1)[0].double()
    x = (clean + 0.1).clamp(max=1) if perturbed else clean.detach()
    other = x if perturbed else clean + noise
    loss = PART.task_loss(step_of(model, x, clean, y))
    change = (last_inputs(model, clean) - last_inputs(model, other)).detach()
    both = [functional.cross_entropy(model(inputs), y) for inputs in (clean, other)]
    kept, total = torch.zeros_like(change[0]), 0.0
    for now in change:
        kept = 0.5 * kept + now
        total += float(kept.square().sum())
    assert total > 0
    expected = 0.5 * sum(float(value.detach()) for value in both) + 0.7 * total / change.numel()
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


def test_only_the_perturbed_pass_is_pulled() -> None:
    """The clean currents are a target: where nothing is perturbed there is nothing to learn from them."""
    model, y, clean = spiking_net(), labels(6), images(6)
    x = (clean + 0.1).clamp(max=1)
    weight = next(model.parameters())
    grads = []
    for part in (replace(PART, rho=0.0), PART):
        model.zero_grad()
        part.task_loss(step_of(model, x, clean, y)).backward()
        assert weight.grad is not None
        grads.append(weight.grad.clone())
    model.zero_grad()
    (0.7 * dynamics(last_inputs(model, clean).detach() - last_inputs(model, x), 0.5).square().mean()).backward()
    torch.testing.assert_close(grads[1] - grads[0], weight.grad, rtol=1e-3, atol=1e-5)


def test_the_currents_are_those_before_a_gain() -> None:
    spec = NeuronSpec("dlif")
    model = spiking_net(spec)
    settle_shapes(model, (1, 8, 8), 2, frames=False)
    for layer in spiking_layers(model).values():
        assert isinstance(layer, DynamicLIF)
        layer.p.data.fill_(3.0)
    with last_currents(model) as kept:
        model(images(4))
    torch.testing.assert_close(kept[0], last_inputs(model, images(4)))


def test_both_passes_meet_one_noise() -> None:
    """Images that hardly change drift as little in a noisy network as in a plain one."""
    model = spiking_net(NeuronSpec("nlif", params=(("noise_var", 0.4),)))
    x, y = images(6), labels(6)
    part = replace(PART, rho=1e4, sigma=Fraction(1, 10**7))
    losses = []
    for draw in (0, 1):
        with noise_stream(model, 9, torch.arange(6)) as stream:

            @contextmanager
            def same_noise(stream: NoiseStream = stream, draw: int = draw) -> Iterator[None]:
                stream.seek(draw)
                yield

            step = replace(step_of(model, x, x.detach(), y), same_noise=same_noise)
            losses.append(float(part.task_loss(step).detach()))
    assert losses[0] < 10 < losses[1]


def test_it_composes_with_what_perturbs() -> None:
    assert [part.slot for part in (mppd() + rat()).parts] == ["input", "loss", "weights"]
