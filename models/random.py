"""Counter-based random numbers: a value depends on (key, stream, sample, draw, position), never on order.

A neuron's noise and an attack's random start must not change when the batch is
split, reordered or resumed. A stateful generator cannot give that; Philox
(Salmon et al., SC 2011, "Parallel random numbers: as easy as 1, 2, 3") can: it
is a keyed bijection of a 128-bit counter, and the counter says which number is meant.
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor, nn

from models.kernels import kernels_for
from models.normal import box_muller, unit

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_STEP_BITS = 24
_CACHED_WORDS = 1 << 16
_GROUP, _LANES = 64, 16

NOISE_VERSION = 2
"""Part of the key of every result on a noisy network; raise it when the same counter gives other normal numbers."""

_Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox4x32(counter: Sequence[Tensor], key: int) -> _Words:
    """Philox-4x32 with 10 rounds, on unsigned 32-bit words held in int64 tensors.

    Args:
        counter: four int64 tensors with values in [0, 2^32), broadcastable to one shape.
        key: 64-bit key; its low word is the first key word.

    Returns:
        four int64 tensors of the broadcast shape with values in [0, 2^32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key & _MASK, (key >> 32) & _MASK
    for _ in range(_ROUNDS):
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        high0 = (product0 >> 32).bitwise_and_(_MASK)
        high1 = (product1 >> 32).bitwise_and_(_MASK)
        c0, c1, c2, c3 = (
            (high1 ^ c1).bitwise_xor_(k0),
            product1.bitwise_and_(_MASK),
            (high0 ^ c3).bitwise_xor_(k1),
            product0.bitwise_and_(_MASK),
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    c0, c1, c2, c3 = torch.broadcast_tensors(c0, c1, c2, c3)
    return c0, c1, c2, c3


def derive_key(*parts: object) -> int:
    """A 64-bit key from any values with a stable `str`, for example (cell key, "random start")."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


class CounterRNG:
    """Random tensors whose row i belongs to sample `samples[i]`, whatever else is in the batch.

    Args:
        key: 64-bit key, see `derive_key`.
        samples: dataset indices of the batch's rows, int64 [N], in [0, 2^32).
    """

    def __init__(self, key: int, samples: Tensor) -> None:
        self.key = key
        self.samples = samples

    def fork(self, number: int) -> "CounterRNG":
        """Generator `number` of a family of independent ones; number 0 is this one."""
        return CounterRNG(derive_key(self.key, number), self.samples) if number else self

    def rows(self, index: Tensor) -> "CounterRNG":
        """The generator of a part of the batch: the same numbers for the same samples."""
        return CounterRNG(self.key, self.samples[index])

    def uniform(self, shape: Sequence[int], *, stream: int = 0, draw: int | Tensor = 0) -> Tensor:
        """Float32 in (0, 1], [N, *shape]; `stream` and `draw` (one number, or one a row) select independent tensors."""
        count = math.prod(shape)
        out = torch.empty(len(self.samples), -(-count // 4), 4, dtype=torch.float32, device=self.samples.device)
        for part, words in _words(self.key, self.samples, 1, out.shape[1], stream, draw):
            torch.stack([unit(word[0]) for word in words], dim=-1, out=out[part])
        return out.flatten(1)[:, :count].reshape(len(self.samples), *shape)

    def normal(self, steps: int, shape: Sequence[int], *, stream: int = 0, draw: int | Tensor = 0) -> Tensor:
        """Standard normal float32, [T, N, *shape]; a longer T keeps the earlier steps.

        The numbers of an image [C, H, W] lie in memory with the channel innermost.
        """
        draws = draw if isinstance(draw, Tensor) else torch.full_like(self.samples, draw)
        return Noise(1.0, self.key, stream, self.samples, draws).tensor(steps, shape)


class Noise(NamedTuple):
    """The normal noise of one layer in one call, not yet drawn: a kernel draws it inside the neuron.

    Attributes:
        sigma: standard deviation.
        key: 64-bit key.
        stream: number of the layer.
        samples, draws: of each row of the batch, int64 [N], in [0, 2^32).
    """

    sigma: float
    key: int
    stream: int
    samples: Tensor
    draws: Tensor

    def tensor(self, steps: int, shape: Sequence[int]) -> Tensor:
        """The noise as float32 [T, N, *shape].

        Number 16 j + i of a group of 64 is made of word j of the group's block i, so that a vector unit writes
        16 neighbours at once.
        """
        n, count = len(self.samples), math.prod(shape)
        self.check(steps, count)
        groups = -(-count // _GROUP)
        order = (*shape[1:], shape[0]) if len(shape) == 3 else tuple(shape)
        out = torch.empty(steps, n, count, dtype=torch.float32, device=self.samples.device)
        kernels = kernels_for(out)
        if kernels is not None:
            kernels.fill_normal(out, self.key, self.stream, self.samples, self.draws)
        else:
            out = self.reference(steps, count, groups)
        if self.sigma != 1:
            out.mul_(self.sigma)
        out = out.view(steps, n, *order)
        return out.movedim(-1, 2) if len(shape) == 3 else out

    def check(self, steps: int, count: int) -> None:
        """Raises ValueError for more steps, or more numbers a sample and step, than the counter tells apart."""
        _check_range(steps, -(-count // _GROUP) * _LANES)

    def reference(self, steps: int, count: int, groups: int) -> Tensor:
        """What the kernels must equal: standard normal float32 [T, N, count], by torch operations."""
        shape = (steps, len(self.samples), groups, 4, _LANES)
        out = torch.empty(shape, dtype=torch.float32, device=self.samples.device)
        for part, words in _words(self.key, self.samples, steps, groups * _LANES, self.stream, self.draws):
            numbers = [value.unflatten(-1, (groups, _LANES)) for value in box_muller(words)]
            torch.stack(numbers, dim=-2, out=out[:, part])
        return out.flatten(-3)[:, :, :count].contiguous()


def _check_range(steps: int, blocks: int) -> None:
    if blocks >= 1 << _STEP_BITS or steps > 1 << (32 - _STEP_BITS):
        raise ValueError(
            f"{4 * blocks} random numbers a sample over {steps} steps exceed the counter's range of "
            f"{1 << (_STEP_BITS + 2)} over {1 << (32 - _STEP_BITS)}"
        )


def _words(
    key: int, samples: Tensor, steps: int, blocks: int, stream: int, draw: int | Tensor
) -> Iterator[tuple[slice, _Words]]:
    """Philox words of counters (step and block, stream, sample, draw), a few rows of the batch at a time."""
    _check_range(steps, blocks)
    device = samples.device
    position = torch.arange(blocks, device=device).view(1, 1, -1)
    position = (torch.arange(steps, device=device).view(-1, 1, 1) << _STEP_BITS) + position
    word = torch.zeros(1, 1, 1, dtype=torch.int64, device=device)
    # The many passes over the counter words of a few rows stay in the processor's cache.
    rows = max(1, _CACHED_WORDS // (steps * blocks)) if device.type == "cpu" else max(1, len(samples))
    for start in range(0, len(samples), rows):
        part = slice(start, start + rows)
        drawn = draw[part].view(1, -1, 1) if isinstance(draw, Tensor) else word + draw
        yield part, philox4x32((position, word + stream, samples[part].view(1, -1, 1), drawn), key)


class NoiseStream:
    """The noise of successive forward calls on one batch: call number k is draw `first_draw + k`.

    A call with k copies of the batch, one after another, is k draws at once: the same noise as k calls.
    """

    def __init__(self, rng: CounterRNG, first_draw: int) -> None:
        self.rng = rng
        self.draw = first_draw - 1
        self._copies = 1
        self._begun = False

    def begin_forward(self) -> None:
        """A forward call begins; its layers say how many copies of the batch it holds."""
        self.draw, self._copies, self._begun = self.next_draw, 1, True

    def seek(self, draw: int) -> None:
        """Make the next forward call draw number `draw`."""
        self.draw, self._copies, self._begun = draw - 1, 1, False

    @property
    def next_draw(self) -> int:
        """The number of the draw that the next forward call begins with."""
        return self.draw + self._copies

    @contextmanager
    def rows(self, index: Tensor) -> Iterator[None]:
        """Inside the block the batch is a part of the stream's: row i is the stream's row `index[i]`."""
        whole, self.rng = self.rng, self.rng.rows(index)
        try:
            yield
        finally:
            self.rng = whole

    def normal(self, like: Tensor, layer: int) -> Tensor:
        """Standard normal noise for layer number `layer`, shaped [T, N, *] as `like`."""
        return self.noise(like, layer).tensor(like.shape[0], like.shape[2:]).to(like.dtype)

    def noise(self, like: Tensor, layer: int, sigma: float = 1.0) -> Noise:
        """The same, not yet drawn, with standard deviation `sigma`."""
        if not self._begun:
            raise ValueError("noise was asked for outside of a call of the model that the noise stream was opened for")
        batch, rows = len(self.rng.samples), like.shape[1]
        copies = rows // batch if batch else 1
        if rows != copies * batch or not copies:
            raise ValueError(f"a batch of {rows} inside a noise stream that was opened for {batch} samples")
        self._copies = max(self._copies, copies)
        samples, copy = self.rng.samples, torch.arange(copies, device=self.rng.samples.device)
        return Noise(sigma, self.rng.key, layer, samples.repeat(copies), self.draw + copy.repeat_interleave(batch))


def uniform_like(like: Tensor, number: int) -> Tensor:
    """Uniform numbers in (0, 1], float32 [T, N, *] as `like`: the active stream's, or of torch's generator outside one.

    They are the distribution function of normal numbers, for which there are kernels.

    Args:
        like: what a call of the model shows a layer, [T, N, *].
        number: of the layer; see `ENCODER` for the encoder's.
    """
    stream = active_noise_stream()
    if stream is None:
        rows = torch.arange(like.shape[1], device=like.device)
        noise = Noise(1.0, int(torch.randint(1 << 62, ()).item()), number, rows, torch.zeros_like(rows))
    else:
        noise = stream.noise(like, number)
    uniform: Tensor = torch.special.ndtr(noise.tensor(like.shape[0], like.shape[2:]))
    return uniform


ENCODER = 1 << 16
"""The number of a network's encoder among its layers."""

_stream: ContextVar[NoiseStream | None] = ContextVar("noise_stream", default=None)


def active_noise_stream() -> NoiseStream | None:
    """The stream of the innermost `noise_stream` block, or None outside of one."""
    return _stream.get()


@contextmanager
def noise_stream(model: nn.Module, key: int, samples: Tensor, first_draw: int = 0) -> Iterator[NoiseStream]:
    """Inside the block, stochastic layers draw from a counter-based stream instead of torch's generator.

    Args:
        model: each call of it is one draw; any module will do.
        key: 64-bit key of the stream, see `derive_key`.
        samples: dataset indices of the batch that will be passed to the model, int64 [N].
        first_draw: number of the first forward call's draw; each further call takes the next.
    """
    stream = NoiseStream(CounterRNG(key, samples), first_draw)

    def begin(*_: object) -> None:
        if _stream.get() is stream:
            stream.begin_forward()

    token = _stream.set(stream)
    hook = model.register_forward_pre_hook(begin)
    try:
        yield stream
    finally:
        hook.remove()
        _stream.reset(token)
