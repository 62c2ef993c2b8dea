"""The path of an iterative attack: where candidates are kept, and which images need not take every step."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from attacks.gradients import SpikeGradient
from attacks.gradients.estimation import active_estimation
from models.neurons import is_stochastic
from models.random import active_noise_stream

_LEAST_STEPS = 4
_OURS = ("torch", "models", "attacks", "bench")
LEAST_ROWS = 16
"""Batches are not made smaller: below this, kernels choose other ways to sum, and the bits of an image change."""


def is_memoryless(model: nn.Module, x: Tensor) -> bool:
    """Whether an image's next iterate follows from its present one, bit by bit, whatever the batch around it.

    Not so with noise, with a gradient that may remember earlier points, and on accelerators, whose kernels differ
    from one batch size to the next. Of a network with modules of others' making nobody knows.
    """
    remembers = isinstance(active_estimation().gradient, SpikeGradient)
    known = all(type(module).__module__.partition(".")[0] in _OURS for module in model.modules())
    return x.device.type == "cpu" and known and not is_stochastic(model) and not remembers


class Walk:
    """The iterates of one run, kept where candidates are wanted.

    A deterministic path that comes back to a point goes round for ever. Brent's algorithm (BIT 20, 1980) finds the
    period while it keeps one earlier point; once every wanted step of the round has passed, the image is left alone.
    What comes out is what all the steps would have given.

    Args:
        x: first iterate [N, *].
        wanted: step counts at which an iterate is kept.
        watch: whether to look for cycles.

    Attributes:
        x: the present iterate [N, *].
        kept: iterates by step count, complete once that step was taken or no image is left.
        left: numbers of the images that still have to move.
    """

    def __init__(self, x: Tensor, wanted: Iterable[int], *, watch: bool) -> None:
        self.x = x
        self.kept = {step: x.clone(memory_format=torch.preserve_format) for step in wanted}
        self.left = torch.arange(len(x), device=x.device)
        self._watch = watch and max(self.kept) >= _LEAST_STEPS
        self._earlier, self._since, self._power = x, 0, 1
        self._period = torch.zeros_like(self.left)
        self._until = torch.zeros_like(self.left)

    @property
    def batch(self) -> Tensor:
        """Numbers of the images to compute with, ascending: those that are left, and others where these are few."""
        return at_least(self.left, len(self.x))

    def of_left(self, values: Tensor, batch: Tensor) -> Tensor:
        """From a value for each image of the batch those of the images that are left."""
        return values if len(batch) == len(self.left) else values[torch.searchsorted(batch, self.left)]

    def move(self, x: Tensor, step: int) -> None:
        """The images that are left take step number `step`, to x [len(left), *]."""
        left = self.left
        self.x = x if len(left) == len(self.x) else self.x.index_copy(0, left, x)
        if self._watch:
            back = (self._period[left] == 0) & (self.x[left] == self._earlier[left]).flatten(1).all(1)
            self._period[left[back]] = step - self._since
            self._until[left[back]] = 2 * step - self._since - 1
            if step - self._since == self._power:
                self._earlier, self._since, self._power = self.x, step, 2 * self._power
        period = self._period[left]
        for wanted, kept in self.kept.items():
            if wanted >= step:
                here = left[(period > 0) & ((wanted - step) % period.clamp(min=1) == 0)] if wanted > step else left
                kept[here] = self.x[here]
        if self._watch:
            self.left = left[(period == 0) | (self._until[left] > step)]

    def settle(self, rows: Tensor, step: int) -> None:
        """Images that are to stay where they are from step number `step` on."""
        for wanted, kept in self.kept.items():
            if wanted >= step:
                kept[rows] = self.x[rows]
        self.left = self.left[~torch.isin(self.left, rows)]


def at_least(rows: Tensor, size: int) -> Tensor:
    """These rows of a batch of `size`, ascending [M], and others with them where they are fewer than `LEAST_ROWS`."""
    missing = min(LEAST_ROWS, size) - len(rows)
    if missing <= 0:
        return rows
    others = torch.ones(size, dtype=torch.bool, device=rows.device)
    others[rows] = False
    return torch.cat([rows, others.nonzero().squeeze(1)[:missing]]).sort().values


def rows_of(x: Tensor, index: Tensor) -> Tensor:
    """Rows of a batch [N, *], ascending, in the memory layout that the batch has."""
    if len(index) == len(x):
        return x
    return torch.index_select(x, 0, index, out=torch.empty_like(x[: len(index)]))


def part_of_batch(index: Tensor, size: int) -> AbstractContextManager[None]:
    """Inside the block the model is called with these images of a batch of `size`."""
    stream = active_noise_stream()
    return nullcontext() if stream is None or len(index) == size else stream.rows(index)
