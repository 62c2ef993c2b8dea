"""HART against autograd with the previous potential detached."""

import pytest
import torch
from slow import NEURONS, agree, layer_gradient
from torch import Tensor

from attacks.gradients.hart import HART
from models.neurons import LIF


def hart(gamma: float) -> object:
    def neuron(layer: LIF, current: Tensor, noise: Tensor | None) -> Tensor:
        T = len(current)
        # Each step's current, with the derivative of the time-mean.
        current = current.detach() + sum(current[t] - current[t].detach() for t in range(T)) / T
        u = torch.zeros_like(current[0])
        spikes = []
        for t in range(T):
            v = layer.decay * u.detach() + current[t] + (0 if noise is None else noise[t])
            slope = ((gamma - (v - layer.v_threshold).abs()) / gamma**2).clamp(min=0)
            fired = (v >= layer.v_threshold).to(v.dtype)
            spikes.append(fired + slope.detach() * (v - v.detach()))
            u = (1 - fired) * v + layer.v_reset * fired
        return torch.stack(spikes)

    return neuron


@pytest.mark.parametrize("kind", NEURONS)
@pytest.mark.parametrize("gamma", [1.0, 0.4])
def test_it_is_the_time_mean_without_a_chain_through_the_membrane(kind: str, gamma: float) -> None:
    agree(kind, HART(gamma), hart(gamma))  # type: ignore[arg-type]


def test_by_hand() -> None:
    # V: 0.6, then 0.3 + 0.9 = 1.2 which fires; slopes 0.6 and 0.8. Gradients 1 and 2: (0.6 + 1.6) / 2 at both steps.
    current = torch.tensor([0.6, 0.9], dtype=torch.float64)[:, None, None]
    grad = torch.tensor([1.0, 2.0], dtype=torch.float64)[:, None, None]
    got = layer_gradient(LIF(), HART(), current, grad)
    assert got.flatten().tolist() == pytest.approx([1.1, 1.1])
