"""What foreign attack code gets to see, and what it may not leave behind."""

import contextlib
import importlib
import random
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attacks.gradients.estimation import active_estimation
from models.random import CounterRNG, derive_key


class View(nn.Module):
    """A network as a foreign library sees it: a function without weights, modes or submodules.

    Whatever the library does to it (`.to`, `.train`, `.zero_grad`, hooks) does not reach the network. The logits
    are a fresh tensor, since the official Square writes into them. Where the attacker's gradient comes from
    another forward pass than the network's own, the values are the network's and only the gradient is the other's.

    Args:
        model: maps x [N, *] to logits [N, K]; must already be `frozen`.
        like: an input of the network: its device and dtype are the network's.
    """

    def __init__(self, model: nn.Module, like: Tensor) -> None:
        super().__init__()
        self._logits: Callable[[Tensor], Tensor] = model.__call__
        self._device, self._dtype = like.device, like.dtype

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, *] of any device and dtype -> logits [N, K], there."""
        own = x.to(self._device, self._dtype)
        logits = self._logits(own)
        if logits.requires_grad and not active_estimation().faithful:
            with torch.no_grad():
                values = self._logits(own)
            logits = logits + (values - logits).detach()
        return logits.to(x.device, x.dtype, copy=True)

    def classes(self, x: Tensor) -> int:
        """K, by one forward pass of one image of x [N, *]."""
        with torch.no_grad():
            return self(x[:1]).shape[1]  # type: ignore[no-any-return]


def seed_of(rng: CounterRNG) -> int:
    """A seed in [0, 2^31) for one batch, for code that knows no more of random numbers than that."""
    return derive_key("foreign", rng.key, rng.samples.tolist()) % 2**31


@contextlib.contextmanager
def hosted(seed: int) -> Iterator[None]:
    """Run code that uses global generators, prints and sets traces; afterwards all is as it was.

    Torch's, numpy's and Python's generators start from `seed`, and so does a `numpy.random.RandomState()`
    without a seed, which ART makes to be different each time. What is printed goes to the error stream.

    Args:
        seed: in [0, 2^31).
    """
    kept = random.getstate(), np.random.get_state(), np.random.RandomState, sys.gettrace()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices), contextlib.redirect_stdout(sys.stderr):
            torch.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            np.random.RandomState = _SeededState  # type: ignore[misc]
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
        np.random.RandomState = kept[2]  # type: ignore[misc]
        sys.settrace(kept[3])


class _SeededState(np.random.RandomState):
    def __init__(self, seed: Any = None) -> None:
        super().__init__(np.random.randint(2**31) if seed is None else seed)


def load(module: str) -> Any:
    """Import a module by name, now."""
    return importlib.import_module(module)
