"""PDSG against standard deviations taken one by one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from slow import NEURONS, agree, membrane, potentials
from torch import Tensor

from attacks.gradients.pdsg import PDSG, spread
from models.neurons import LIF


def deviation(v: Tensor, t: int, n: int, channel: int) -> float:
    """Over all steps up to t and all places of one channel of one image; a linear layer is one channel."""
    values = v[: t + 1, n, channel] if v.dim() > 3 else v[: t + 1, n]
    numbers = values.flatten().tolist()
    mean = math.fsum(numbers) / len(numbers)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in numbers) / len(numbers))


def slow_spread(v: Tensor) -> Tensor:
    sd = torch.ones_like(v)
    for t in range(v.shape[0]):
        for n in range(v.shape[1]):
            for channel in range(v.shape[2]):
                sd[t, n, channel] = deviation(v, t, n, channel) or 1.0
    return sd


def pdsg(layer: LIF, current: Tensor, noise: Tensor | None) -> Tensor:
    _, v = potentials(layer, current, noise)
    sd = slow_spread(v)

    def slope(t: int, v: Tensor) -> Tensor:
        return torch.distributions.Normal(sd[t] / 2, sd[t]).log_prob(v - layer.v_threshold).exp()

    return membrane(layer, current, noise, slope)


@pytest.mark.parametrize("kind", NEURONS)
def test_it_is_bptt_with_the_normal_density(kind: str) -> None:
    agree(kind, PDSG(), pdsg)


@given(st.sampled_from([(3, 2, 4), (1, 2, 3), (4, 2, 3, 5, 2), (2, 1, 2, 1, 1), (3, 2, 2, 6)]), st.integers(0, 999))
def test_the_spread_is_over_the_steps_so_far_and_each_image_s_own(shape: tuple[int, ...], seed: int) -> None:
    v = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 3
    assert torch.allclose(spread(v).expand_as(v), slow_spread(v), rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.7, -123.4])
@pytest.mark.parametrize("shape", [(4, 2, 3, 7, 9), (5, 2, 33)])
def test_where_nothing_varies_it_is_1_and_not_rounding_noise(
    shape: tuple[int, ...], value: float, dtype: torch.dtype
) -> None:
    assert torch.equal(spread(torch.full(shape, value, dtype=dtype)).unique(), torch.ones(1, dtype=dtype))


def test_in_float32_a_large_mean_does_not_drown_a_small_spread() -> None:
    v = 100 + 0.01 * torch.randn(4, 3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(spread(v).double().expand_as(v), slow_spread(v.double()), rtol=1e-3)
