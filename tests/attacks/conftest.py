"""A generator of random numbers for any batch."""

from collections.abc import Callable

import pytest
import torch

from models.random import CounterRNG


@pytest.fixture(scope="session")
def rng() -> Callable[..., CounterRNG]:
    """`rng(n)` or `rng(indices)`, with `key`."""

    def make(samples: int | torch.Tensor, key: int = 7) -> CounterRNG:
        return CounterRNG(key, torch.arange(samples) if isinstance(samples, int) else samples)

    return make
