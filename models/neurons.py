"""Spiking layers as modules: multi-step in and out, state only inside the call."""

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.kernels.compiler import switched_off
from models.lif import LIFParams, Rule, drawn, lif, lif_differentiated, lif_reference, repeated
from models.norm import fused
from models.random import Noise, active_noise_stream
from models.surrogates import Surrogate, Triangular, parse_surrogate
from models.time import merged

_ONCE = 4
"""A static image's currents are kept as one step's up to so many: a longer sum over time torch adds up in another
order, and the gradients of networks would have other bits than those that stored results were measured with."""


class LIF(nn.Module):
    """Leaky integrate-and-fire layer with hard reset (TGO, Eq. 1-3).

    Args:
        decay: factor on the membrane potential from one step to the next, in [0, 1]; 1 is the non-leaky IF neuron.
        v_threshold: firing threshold; a neuron fires at V >= v_threshold.
        v_reset: potential after a spike.
        surrogate: derivative used in place of the spike's. Only the backward pass sees it.
        detach_reset: stop the gradient through the reset.

    Raises:
        ValueError: decay outside [0, 1] or a threshold that is not above v_reset.
    """

    stochastic = False
    whole = True
    """Whether one call is all time steps, so that its whole train can be differentiated at once."""

    def __init__(
        self,
        decay: float = 0.5,
        v_threshold: float = 1.0,
        v_reset: float = 0.0,
        surrogate: Surrogate | None = None,
        detach_reset: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must lie in [0, 1], got {decay}")
        if not v_threshold > v_reset:
            raise ValueError(f"v_threshold {v_threshold} must be above v_reset {v_reset}")
        self.decay = decay
        self.v_threshold = v_threshold
        self.v_reset = v_reset
        self.surrogate: Surrogate = surrogate or Triangular()
        self.detach_reset = detach_reset
        self.reference = False
        self.replacement: Replacement | None = None
        self.layer = 0
        self._recorders: list[Callable[[LIF, Tensor], None]] = []
        self._observers: list[Observer] = []
        self._listeners: list[Callable[[Tensor], None]] = []

    def forward(self, current: Tensor, norm: nn.Module | None = None, steps: int = 0) -> Tensor:
        """Map input currents [T, N, *] to spikes [T, N, *].

        Args:
            current: over time, or [1, N, *] if it is the same in all `steps`.
            norm: normalises the currents, inside the layer's own pass over memory where that gives the same bits.
            steps: T; 0 if `current` says it.
        """
        replacement = self.replacement if torch.is_grad_enabled() and current.requires_grad else None
        watched = bool(self._observers or self._listeners)
        plain = self.reference or watched or replacement is not None or self._adapts or not self._draws_usual_noise
        plain = plain or steps > _ONCE
        affine = None if norm is None or plain else fused(norm, current)
        if norm is not None and affine is None:
            current = merged(norm, current)
        if plain:
            current, steps = repeated(current, steps), 0
        for hear in self._listeners:
            hear(current)
        current = self.drive(current)
        with_membrane, membrane = bool(self._recorders), None
        if replacement is not None:
            spikes = replacement(self, current)
        elif self.reference or self.needs_equations:
            noise = self.noise_source(current)
            spikes, membrane = self.equations(current, noise, with_membrane)
            spikes = spikes.to(current.dtype)
        else:
            noise = self.noise_source(repeated(current, steps))
            spikes, membrane = lif(current, self.constants(current), noise, with_membrane, affine, steps)
        if membrane is not None:
            self._record(membrane)
        for see in self._observers:
            see(self, current, spikes)
        return self.emitted_on_average(spikes) if getattr(replacement, "averages", False) else self.emit(spikes)

    def drive(self, current: Tensor) -> Tensor:
        """What the membrane takes in of the input currents [T, N, *]; all of it."""
        return current

    def emit(self, spikes: Tensor) -> Tensor:
        """What leaves the layer of its spikes [T, N, *]; all of them."""
        return spikes

    def emitted_on_average(self, spikes: Tensor) -> Tensor:
        """The expectation of `emit` over what it draws."""
        return self.emit(spikes)

    def equations(
        self, current: Tensor, noise: Noise | Tensor | None, with_membrane: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The layer written out for autograd, see `lif_reference`."""
        return lif_reference(current, self.constants(current), noise, with_membrane)

    def constants(self, current: Tensor) -> LIFParams:
        """What decides the recursion in this call, for neurons that differ or adapt; the layer's own constants.

        Args:
            current: what the membrane takes in, [T, N, *].
        """
        return self.params

    def differentiated(self, current: Tensor, rule: Rule) -> Tensor:
        """The layer's own spikes [T, N, *], noise included, with the backward pass that `rule` gives."""
        noise, with_membrane, params = self.noise_source(current), bool(self._recorders), self.constants(current)
        spikes, membrane = lif_differentiated(current, params, noise, rule, with_membrane)
        if membrane is not None:
            self._record(self.recorded(membrane, params.v_threshold))
        return spikes

    def recorded(self, membrane: Tensor, threshold: float | Tensor) -> Tensor:
        """Potentials [T, N, *] as recorders see them: as far from `v_threshold` as they are from the threshold met.

        Whoever asks how close a neuron is to firing knows the layer's one threshold, not those that move.
        """
        return membrane - (threshold - self.v_threshold) if isinstance(threshold, Tensor) else membrane

    @property
    def is_plain(self) -> bool:
        """Whether a call is nothing but the noise-free layer: nobody watches it or puts something in its place."""
        untouched = type(self) is LIF or (type(self) is NoisyLIF and not self.stochastic)
        watched = bool(self._recorders or self._observers or self._listeners)
        watched = watched or bool(self._forward_hooks or self._forward_pre_hooks)
        return untouched and not watched and not self.reference and self.replacement is None

    @property
    def params(self) -> LIFParams:
        """The layer's constants."""
        return LIFParams(self.decay, self.v_threshold, self.v_reset, self.detach_reset, self.surrogate)

    def _record(self, membrane: Tensor) -> None:
        for record in self._recorders:
            record(self, membrane)

    def noise(self, current: Tensor) -> Tensor | None:
        """Additive membrane noise for this call, [T, N, *], or None."""
        return None

    def noise_source(self, current: Tensor) -> Noise | Tensor | None:
        """The same, perhaps not yet drawn."""
        return self.noise(current)

    @property
    def _adapts(self) -> bool:
        """Whether the layer has to see its currents over time, which the fused paths keep from it."""
        kind = type(self)
        return kind.drive is not LIF.drive or kind.constants is not LIF.constants

    @property
    def needs_equations(self) -> bool:
        """Whether only autograd differentiates the layer as it should: now, because it learns its own constants."""
        own = torch.is_grad_enabled() and type(self).constants is not LIF.constants
        return own and any(parameter.requires_grad for parameter in self.parameters(recurse=False))

    @property
    def _draws_usual_noise(self) -> bool:
        """Whether the noise is a layer's of this file, which does not look at the currents; a subclass's own may."""
        usual = (type(self).noise, type(self).noise_source)
        return usual in ((LIF.noise, LIF.noise_source), (NoisyLIF.noise, NoisyLIF.noise_source))

    def extra_repr(self) -> str:
        return f"decay={self.decay}, v_threshold={self.v_threshold}, surrogate={self.surrogate}"


Observer = Callable[[LIF, Tensor, Tensor], None]
"""(layer, input currents [T, N, *] as the neuron meets them, spikes [T, N, *]) of one call."""

Replacement = Callable[[LIF, Tensor], Tensor]
"""(layer, input currents [T, N, *]) -> the layer's spikes [T, N, *], differentiated in a way of its own. With a true
attribute `averages`, what the layer draws after them is replaced by its expectation."""


class NoisyLIF(LIF):
    """LIF with Gaussian noise on the membrane potential before the threshold (TGO, Eq. 15).

    The noise does not follow `train()`/`eval()`: adversarial examples are crafted in
    eval mode and must meet the noisy network. `noise_on` switches it.

    Args:
        noise_var: variance of the noise, in units of squared membrane potential (the paper: 0.4).
        **lif: arguments of `LIF`.
    """

    def __init__(self, noise_var: float = 0.4, **lif: object) -> None:
        super().__init__(**lif)  # type: ignore[arg-type]
        if not noise_var >= 0:
            raise ValueError(f"noise_var must not be negative, got {noise_var}")
        self.noise_var = noise_var
        self.noise_on = True

    @property
    def stochastic(self) -> bool:  # type: ignore[override]
        return self.noise_on and self.noise_var > 0

    def noise(self, current: Tensor) -> Tensor | None:
        return drawn(NoisyLIF.noise_source(self, current), current)

    def noise_source(self, current: Tensor) -> Noise | Tensor | None:
        if type(self).noise is not NoisyLIF.noise:
            # A subclass has noise of its own.
            return self.noise(current)
        if not self.stochastic:
            return None
        stream, sigma = active_noise_stream(), self.noise_var**0.5
        if stream is not None:
            return stream.noise(current, self.layer, sigma)
        # One number of torch's generator is the key of all of this call's.
        rows = torch.arange(current.shape[1], device=current.device)
        return Noise(sigma, int(torch.randint(1 << 62, ()).item()), self.layer, rows, torch.zeros_like(rows))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, noise_var={self.noise_var}"


NEURONS: dict[str, str] = {
    "lif": "models.neurons:LIF",
    "nlif": "models.neurons:NoisyLIF",
    "stog": "models.gates:GatedLIF",
    "dlif": "models.dynamic:DynamicLIF",
    "el": "models.leak:LeakyByStep",
    "hosnn": "models.homeostatic:HomeostaticLIF",
}
"""Where each kind of neuron lives; imported when it is built."""


@dataclass(frozen=True)
class NeuronSpec:
    """A neuron as a value: what every spiking layer of a network is built from.

    Attributes:
        kind: a name in `NEURONS`.
        decay, v_threshold, detach_reset: see `LIF`.
        surrogate: written form, see `parse_surrogate`.
        params: further arguments of that kind, as sorted pairs, for example (("noise_var", 0.4),).
    """

    kind: str = "lif"
    decay: float = 0.5
    v_threshold: float = 1.0
    detach_reset: bool = False
    surrogate: str = "triangular:gamma=1.0"
    params: tuple[tuple[str, float], ...] = ()

    def build(self) -> LIF:
        """A fresh layer of this kind."""
        module, _, name = NEURONS[self.kind].partition(":")
        layer: LIF = getattr(importlib.import_module(module), name)(
            decay=self.decay,
            v_threshold=self.v_threshold,
            detach_reset=self.detach_reset,
            surrogate=parse_surrogate(self.surrogate),
            **dict(self.params),
        )
        return layer


def spiking_layers(model: nn.Module) -> dict[str, LIF]:
    """The spiking layers of a model by module name, in order of construction."""
    return {name: module for name, module in model.named_modules() if isinstance(module, LIF)}


def number_layers(model: nn.Module) -> None:
    """Give each spiking layer its number in order of construction, which selects its noise within a draw."""
    for number, layer in enumerate(spiking_layers(model).values()):
        layer.layer = number


def is_stochastic(model: nn.Module) -> bool:
    """Whether two forward calls on one input may differ by the model's own design."""
    return any(getattr(module, "stochastic", False) for module in model.modules())


@contextmanager
def record_membrane(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect each spiking layer's membrane potential during the block.

    Yields:
        a dict, filled by forward calls: layer name -> potential before noise and
        reset, [T, N, *], with its gradient graph; less what a threshold that moves has risen by, so that it is
        compared with `v_threshold` in every layer. A later call overwrites an earlier one.
        Outside such a block the potential is not kept.
    """
    membrane: dict[str, Tensor] = {}
    layers = spiking_layers(model)
    recorders = []
    for name, layer in layers.items():

        def record(_: LIF, v: Tensor, name: str = name) -> None:
            membrane[name] = v

        layer._recorders.append(record)
        recorders.append((layer, record))
    try:
        yield membrane
    finally:
        for layer, record in recorders:
            layer._recorders.remove(record)


@contextmanager
def observing(model: nn.Module, see: Callable[[str, LIF, Tensor, Tensor], None]) -> Iterator[None]:
    """Inside the block every call of a spiking layer is shown: its name, itself, its input currents, its spikes.

    The currents are over time and after normalisation, and carry their gradient graph.
    """
    added: list[tuple[LIF, Observer]] = []
    for name, layer in spiking_layers(model).items():
        observer: Observer = functools.partial(see, name)
        layer._observers.append(observer)
        added.append((layer, observer))
    try:
        yield
    finally:
        for layer, observer in added:
            layer._observers.remove(observer)


@contextmanager
def last_currents(model: nn.Module) -> Iterator[list[Tensor]]:
    """Keep the input currents of the spiking layer that is called last during the block.

    Yields:
        a list, filled by forward calls: the currents [T, N, *] of the last call of a layer so far, after normalisation
        and before `LIF.drive`, with their gradient graph.
    """
    kept: list[Tensor] = []
    layers = list(spiking_layers(model).values())

    def hear(current: Tensor) -> None:
        kept[:] = [current]

    for layer in layers:
        layer._listeners.append(hear)
    try:
        yield kept
    finally:
        for layer in layers:
            layer._listeners.remove(hear)


@contextmanager
def using_surrogate(model: nn.Module, surrogate: Surrogate | None) -> Iterator[None]:
    """Differentiate every spike by `surrogate` inside the block; None keeps the model's own."""
    layers = list(spiking_layers(model).values()) if surrogate is not None else []
    own = [layer.surrogate for layer in layers]
    for layer in layers:
        assert surrogate is not None
        layer.surrogate = surrogate
    try:
        yield
    finally:
        for layer, previous in zip(layers, own, strict=True):
            layer.surrogate = previous


@contextmanager
def replacing_gradients(model: nn.Module, make: Callable[[LIF], Replacement | None]) -> Iterator[None]:
    """Inside the block, forward passes that record a gradient run each spiking layer by its replacement.

    Passes without a gradient (scoring) are untouched.

    Args:
        model: any network.
        make: gives a layer its replacement, which may hold state for the time of the block; None lifts the
            replacement of an outer block.
    """
    layers = list(spiking_layers(model).values())
    own = [layer.replacement for layer in layers]
    for layer in layers:
        layer.replacement = make(layer)
    try:
        yield
    finally:
        for layer, previous in zip(layers, own, strict=True):
            layer.replacement = previous


@contextmanager
def written_out(model: nn.Module) -> Iterator[None]:
    """Inside the block the spiking layers run as their equations, differentiated by autograd, and nothing is fused.

    Slow: it is what the fast paths are compared with.
    """
    layers = list(spiking_layers(model).values())
    own = [layer.reference for layer in layers]
    try:
        for layer in layers:
            layer.reference = True
        with switched_off():
            yield
    finally:
        for layer, previous in zip(layers, own, strict=True):
            layer.reference = previous
