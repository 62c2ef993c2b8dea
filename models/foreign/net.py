"""A network of another library as one of ours: how it is shown an image, what of its output counts, no state left."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from models.foreign.detect import libraries_of
from models.foreign.layer import ForeignLayer
from models.neurons import number_layers

IMAGE, STEP, SEQUENCE = "image", "step", "sequence"
INPUT = "bench_input"
"""The attribute by which a network says how it wants to be called, where a trial would not tell."""


class Adapted(nn.Module):
    """Maps images [N, C, H, W], or frames [N, T, C, H, W], to logits [N, K], whatever was computed before.

    The network's states are reset before and after every call; the library's own code runs in between.

    Args:
        net: the network.
        way: `image` (it gets the image and loops over time itself), `step` (one step a call, which is called T times),
            `sequence` (it gets [T, N, C, H, W]).
        T: steps for a static image.
        libraries: that its modules come from.
    """

    def __init__(self, net: nn.Module, way: str, T: int, libraries: tuple[str, ...]) -> None:
        super().__init__()
        self.net = net
        self.way = way
        self.T = T
        self.libraries = libraries
        self._adapters = [_adapter(library) for library in libraries]
        self._layers: tuple[ForeignLayer, ...] = ()

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, K]: the mean over time of what the network returns.

        Raises:
            ValueError: the network returns something that is not logits, see `logits_of`.
        """
        self._reset()
        for layer in self._layers:
            layer.begin()
        try:
            logits = self._run(x)
            for layer in self._layers:
                layer.show()
        finally:
            self._reset()
            for layer in self._layers:
                layer.forget()
        return logits

    def _run(self, x: Tensor) -> Tensor:
        if self.way == IMAGE:
            return logits_of(self.net(x), len(x))
        over_time = x.transpose(0, 1) if x.dim() == 5 else x.unsqueeze(0).expand(self.T, *x.shape)
        if self.way == SEQUENCE:
            return logits_of(self.net(over_time), len(x))
        return torch.stack([logits_of(self.net(step), len(x)) for step in over_time]).mean(0)

    def _reset(self) -> None:
        for adapter in self._adapters:
            adapter.reset(self.net)

    def attach(self) -> None:
        """See the calls of the network's neurons from now on."""
        self._layers = tuple(layer for adapter in self._adapters for layer in adapter.layers(self.net))
        for layer in self._layers:
            layer.attach()
        number_layers(self)

    def detach(self) -> None:
        """Give the network back as it was."""
        for layer in self._layers:
            layer.detach()
        self._layers = ()

    def steps_of(self, x: Tensor) -> set[int]:
        """How many steps each spiking layer takes for an input."""
        self(x)
        return {layer.steps for layer in self._layers}


def adapted(net: nn.Module, in_shape: tuple[int, int, int], T: int, frames: bool = False) -> nn.Module:
    """A network with modules of another library, as one of ours; any other network as it is.

    How it wants to be called is found by a trial on a few random images, unless its attribute `bench_input` says
    `image`, `step` or `sequence`. A network whose neurons take one step for an image is called T times; one whose
    neurons take more loops over time itself; one that takes no image, or takes the batch for time, gets
    [T, N, C, H, W].

    Args:
        net: the network; its modes and weights stay as they are.
        in_shape: (C, H, W).
        T: steps for a static image, or the frames of a recording.
        frames: whether it is to be given frames.

    Raises:
        ValueError: it can be called in none of these ways, or returns something else than logits.
    """
    libraries = libraries_of(net)
    if not libraries:
        return net
    model = Adapted(net, IMAGE, T, libraries)
    model.attach()
    try:
        declared = getattr(net, INPUT, None)
        if declared is not None and declared not in (IMAGE, STEP, SEQUENCE):
            raise ValueError(f"{INPUT} must be {IMAGE}, {STEP} or {SEQUENCE}, got {declared!r}")
        model.way, model.T = _found(model, in_shape, T, frames, [declared] if declared else [])
    except BaseException:
        model.detach()
        raise
    return model


def logits_of(out: Any, n: int) -> Tensor:
    """The logits [N, K] in what a network returns.

    Of a tuple the first part counts: snnTorch's (spikes, potentials) gives its spikes. A list has one item for each
    step. Over time [T, N, K] the mean counts.

    Args:
        out: what it returned.
        n: N.

    Raises:
        ValueError: neither [N, K] nor [T, N, K].
    """
    while isinstance(out, tuple) and out:
        out = out[0]
    if isinstance(out, list) and out and all(isinstance(step, Tensor) and step.dim() == 2 for step in out):
        out = torch.stack(out)
    if not isinstance(out, Tensor):
        raise ValueError(f"the network returns a {type(out).__name__}, not logits [N, K] or [T, N, K]")
    if out.dim() == 3 and out.shape[1] == n:
        return out.mean(0)
    if out.dim() == 2 and out.shape[0] == n:
        return out
    hint = "; time comes first" if out.dim() == 3 and out.shape[0] == n else ""
    raise ValueError(f"the network returns {list(out.shape)} for {n} inputs, not logits [N, K] or [T, N, K]{hint}")


def _adapter(library: str) -> ModuleType:
    if library == "spikingjelly":
        from models.foreign import spikingjelly

        return spikingjelly
    from models.foreign import snntorch

    return snntorch


def _found(
    model: Adapted, in_shape: tuple[int, int, int], T: int, frames: bool, declared: list[str]
) -> tuple[str, int]:
    """How the network wants to be called, and its number of steps for an image."""
    usual = [SEQUENCE, STEP, IMAGE] if frames else [IMAGE, SEQUENCE]
    problems = []
    for way in declared or usual:
        model.way = way
        try:
            with _quietly(model.net):
                # A network that takes the batch for time takes more steps for more images.
                few, more = (model.steps_of(_images(n, in_shape, T, frames, model.net)) for n in (3, 4))
        except Exception as error:
            # A network may be anyone's code.
            problems.append(f"as {way}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
            continue
        if few != more and not declared:
            problems.append(f"as {way}: the batch is taken for time")
            continue
        most = max(few, default=T)
        if way == IMAGE and most == 1 and not declared:
            return STEP, T
        if frames and most != T and not declared:
            problems.append(f"as {way}: {most} steps for {T} frames")
            continue
        return way, T if way != IMAGE else most
    shown = "frames [N, T, C, H, W]" if frames else "images [N, C, H, W]"
    raise ValueError(f"the network cannot be shown {shown}: {'; '.join(problems)}")


def _images(n: int, in_shape: tuple[int, int, int], T: int, frames: bool, net: nn.Module) -> Tensor:
    first = next(net.parameters(), torch.zeros(0))
    shape = (n, T, *in_shape) if frames else (n, *in_shape)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(first.device)


@contextmanager
def _quietly(net: nn.Module) -> Iterator[None]:
    """Inside the block a network runs in eval mode without gradients, and no trace is left of it."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            yield
    finally:
        for module, mode in modes:
            module.training = mode
