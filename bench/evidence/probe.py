"""How a network is looked at: by which gradient, under which noise, and without leaving a mark."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.gradients import SpikeGradient, estimating, frozen
from bench.runtime import isolated_generator
from models.neurons import LIF, observing, record_membrane
from models.random import derive_key, noise_stream
from models.surrogates import Surrogate


@dataclass(frozen=True)
class Probe:
    """What all evidence on one set of images shares.

    A stochastic network is measured in `draws` realisations of its noise, and every figure is
    the mean over them. Realisation d of an image is a function of (key, image, d), so results
    repeat, and a clean and a perturbed image can meet the same noise.

    Attributes:
        samples: dataset indices of the images, int64 [N].
        gradient: what spikes are differentiated by; None is the network's own surrogate.
        key: 64-bit key of the noise.
        draws: realisations; 1 says all there is to say of a deterministic network.
        batch: images at a time.
    """

    samples: Tensor
    gradient: Surrogate | SpikeGradient | None = None
    key: int = 0
    draws: int = 1
    batch: int = 32

    def parts(self) -> Iterator[tuple[slice, int]]:
        """Every (batch of images, draw)."""
        for start in range(0, len(self.samples), self.batch):
            for draw in range(self.draws):
                yield slice(start, min(start + self.batch, len(self.samples))), draw

    @contextmanager
    def realisation(self, model: nn.Module, part: slice, draw: int) -> Iterator[None]:
        """Eval mode, the probe's gradient and realisation `draw` for the first forward call in the block.

        Afterwards the model and torch's generators are as they were.
        """
        samples = self.samples[part]
        with (
            frozen(model),
            isolated_generator(samples.device, derive_key(self.key, "own noise", part.start, draw)),
            noise_stream(model, self.key, samples, draw),
            estimating(model, self.gradient),
        ):
            yield


@dataclass(frozen=True)
class Trace:
    """What one spiking layer did in one forward call, [T, N, *] each.

    Attributes:
        membrane: potential before noise and reset.
        potential: potential that met the threshold, noise included.
        spikes: in {0, 1}.
    """

    membrane: Tensor
    potential: Tensor
    spikes: Tensor


def traces(model: nn.Module, x: Tensor) -> dict[str, Trace]:
    """What every spiking layer does at the inputs `x` [N, *], by name in order of call; inside a `realisation`.

    A layer that is called several times keeps its last call. Cost: 1 forward.
    """
    found: dict[str, Trace] = {}
    with record_membrane(model) as membrane:

        def observe(name: str, layer: LIF, current: Tensor, spikes: Tensor) -> None:
            # Counter-based noise: asked for again within one call of the model, it is the same.
            noise, v = layer.noise(current), membrane[name]
            found[name] = Trace(v, v if noise is None else v + noise, spikes)

        with observing(model, observe), torch.no_grad():
            model(x)
    return found


@contextmanager
def recording_currents(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect each spiking layer's input current [T, N, *], with its gradient graph, during the block."""
    currents: dict[str, Tensor] = {}

    def record(name: str, layer: LIF, current: Tensor, spikes: Tensor) -> None:
        currents[name] = current

    with observing(model, record):
        yield currents


def shares(where: Tensor) -> Tensor:
    """Share of true entries at each time step: bool [T, N, *] -> float64 [T]."""
    return where.flatten(1).double().mean(1)


def grads_of(value: Tensor, inputs: list[Tensor], *, keep: bool = False) -> list[Tensor]:
    """Gradient of a scalar in each of `inputs`, zeros where it does not depend on one.

    Raises:
        ValueError: the value has no gradient at all.
    """
    if not value.requires_grad:
        raise ValueError("the model's output has no gradient in its input: it detaches the graph or runs under no_grad")
    live = [tensor for tensor in inputs if tensor.requires_grad]
    found = iter(torch.autograd.grad(value, live, retain_graph=keep, allow_unused=True))
    grads = [next(found) if tensor.requires_grad else None for tensor in inputs]
    return [torch.zeros_like(t) if g is None else g for t, g in zip(inputs, grads, strict=True)]
