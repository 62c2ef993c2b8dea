"""A spiking layer of another library, as the attacks and the evidence see spiking layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from models.lif import LIFParams, Rule, Trace, bptt, refuse_second_derivative
from models.neurons import LIF
from models.surrogates import Surrogate

SpikeFunction = Callable[[Tensor], Tensor]


class OwnSurrogate:
    """The derivative that a library's spike function has, as a `Surrogate`."""

    name: ClassVar[str] = "own"

    def __init__(self, function: SpikeFunction) -> None:
        self._function = function

    def grad(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            point = x.detach().clone().requires_grad_()
            (found,) = torch.autograd.grad(self._function(point).sum(), [point])
        return found.detach()


class ForeignLayer(LIF):
    """What stands beside a neuron module of another library, as its child, while its network is adapted.

    Nobody looking, the neuron runs as its library wrote it: the module is called and nothing else. Where a surrogate is
    chosen, a gradient replaced or the layer watched, this sees the neuron's calls. It has no weights.

    Args:
        neuron: the library's module.
        attribute: the neuron's attribute that holds its spike function, a function of x = V - threshold.
        threshold: the firing threshold; 0 where it differs from neuron to neuron, so that potentials are shown as x.
    """

    whole = False

    def __init__(self, neuron: nn.Module, attribute: str, threshold: float) -> None:
        super().__init__()
        # Not as a child: the neuron has this one as its child.
        self._held = (neuron,)
        self._attribute = attribute
        self.v_threshold = threshold
        self.own = OwnSurrogate(getattr(neuron, attribute))
        self.surrogate: Surrogate = self.own
        self._currents: list[Tensor] = []
        self._spikes: list[Tensor] = []
        self._potentials: list[Tensor] = []
        self.steps = 0
        self._expected = 0
        self._probe: Tensor | None = None

    @property
    def neuron(self) -> Any:
        """The library's module."""
        return self._held[0]

    @property
    def is_plain(self) -> bool:
        """Never a layer of ours that a fast path may take over."""
        return False

    @property
    def params(self) -> LIFParams:
        raise ValueError(_refusal(self.neuron))

    def differentiated(self, current: Tensor, rule: Rule) -> Tensor:
        raise ValueError(_refusal(self.neuron))

    def attach(self) -> None:
        """See the neuron's calls from now on."""
        self.neuron.add_module(CHILD, self)
        self.neuron.forward = self.called

    def detach(self) -> None:
        """Leave the neuron as it was."""
        self.neuron.__dict__.pop("forward", None)
        self.neuron._modules.pop(CHILD, None)

    def called(self, *args: Any, **kwargs: Any) -> Any:
        """The neuron's own forward pass, which only a chosen surrogate or an onlooker changes; never its values."""
        self.steps += len(_first(args)) if self._multiple else 1
        if self.replacement is not None and torch.is_grad_enabled() and _first(args).requires_grad:
            raise ValueError(_refusal(self.neuron))
        if self.surrogate is self.own and not self.watched:
            return type(self.neuron).forward(self.neuron, *args, **kwargs)
        seen: list[Tensor] = []
        shown = (self._probed(_first(args)), *args[1:]) if self._observers else args
        with self._spiking_by(seen):
            out = type(self.neuron).forward(self.neuron, *shown, **kwargs)
        if self.watched:
            self._keep(_first(args), _first(out), seen)
        return out

    @property
    def _multiple(self) -> bool:
        """Whether one call of the neuron is all steps [T, N, *]."""
        return getattr(self.neuron, "step_mode", "s") == "m"

    @property
    def watched(self) -> bool:
        """Whether anybody is to be shown what the layer does."""
        return bool(self._recorders or self._observers or self._forward_hooks)

    def begin(self) -> None:
        """A forward pass of the network begins; it takes as many steps as the one before."""
        self._expected, self.steps = self.steps, 0

    def _probed(self, current: Tensor) -> Tensor:
        """A step's current, to the bit, as part of one tensor over time that gradients can be taken in."""
        if self._multiple or not torch.is_grad_enabled() or not current.requires_grad:
            return current
        if self.steps == 1:
            self._probe = current.new_zeros((self._expected, *current.shape)).requires_grad_()
        if self._probe is None or self.steps > len(self._probe):
            return current
        part = self._probe[self.steps - 1]
        part.data.copy_(current.detach())
        return current + (part - part.detach())

    def _keep(self, current: Tensor, spikes: Tensor, seen: list[Tensor]) -> None:
        # The last call of the spike function in a step makes the spikes; one before it may have made the reset.
        potentials = seen if self._multiple else seen[-1:]
        self._currents.append(current)
        self._spikes += list(spikes) if self._multiple else [spikes]
        self._potentials += [x.detach() + self.v_threshold for x in potentials]

    def show(self) -> None:
        """Show those who watch what all calls of one forward pass of the network came to; called at its end."""
        currents, spikes, potentials = self._currents, self._spikes, self._potentials
        if not spikes:
            return
        stacked, membrane = torch.stack(spikes).detach(), torch.stack(potentials) if potentials else None
        # A neuron that asks its spike function otherwise than once for each spike has no potential to show.
        if membrane is not None and membrane.shape == stacked.shape:
            self._record(membrane)
            for see in self._observers:
                see(self, self._over_time(currents), stacked)
        for hook in list(self._forward_hooks.values()):
            hook(self, (), stacked)

    def _over_time(self, currents: list[Tensor]) -> Tensor:
        """What the neuron was given, [T, N, *], with a gradient graph where there is one."""
        if self._multiple:
            return currents[0] if len(currents) == 1 else torch.cat(currents).detach()
        if self._probe is not None and len(self._probe) == len(currents):
            return self._probe
        return torch.stack(currents).detach()

    def forget(self) -> None:
        """Keep nothing of a forward pass, even of one that broke off."""
        self._currents, self._spikes, self._potentials = [], [], []
        self._probe = None

    @contextmanager
    def _spiking_by(self, seen: list[Tensor]) -> Iterator[None]:
        own = getattr(self.neuron, self._attribute)
        chosen = None if self.surrogate is self.own else self.surrogate
        place = self.neuron._modules if isinstance(own, nn.Module) else self.neuron.__dict__
        place[self._attribute] = _Spiking(own, chosen, seen)
        try:
            yield
        finally:
            place[self._attribute] = own


CHILD = "spikes"
"""The name of a `ForeignLayer` below its neuron."""


class WholeLayer(ForeignLayer):
    """A neuron of another library that runs over all steps in one call and is exactly a LIF of ours.

    Its whole train is known, so every gradient works on it. The spikes are the library's own, to the bit; the
    potentials are recomputed from them, as the distance from the resting potential, to which a spike resets.

    Args:
        neuron: the library's module.
        attribute: see `ForeignLayer`.
        constants: reads the neuron's decay, threshold above rest, factor on its input, and whether its reset is
            detached; asked at every call, since a network's decay may be learned.
    """

    whole = True

    def __init__(
        self, neuron: nn.Module, attribute: str, constants: Callable[[Any], tuple[float, float, float, bool]]
    ) -> None:
        super().__init__(neuron, attribute, constants(neuron)[1])
        self._constants = constants
        self.v_reset = 0.0

    @property
    def params(self) -> LIFParams:
        """The layer's constants, as they are now."""
        decay, threshold, _, detached = self._constants(self.neuron)
        return LIFParams(decay, threshold, 0.0, detached, self.surrogate)

    def called(self, *args: Any, **kwargs: Any) -> Any:
        (x,) = args
        self.steps += len(x)
        grad = torch.is_grad_enabled() and x.requires_grad
        replacement = self.replacement if grad else None
        if replacement is None and not self.watched and (self.surrogate is self.own or not grad):
            return type(self.neuron).forward(self.neuron, x)
        return self(x * self._constants(self.neuron)[2], x)

    def forward(self, current: Tensor, x: Tensor) -> Tensor:  # type: ignore[override]
        """Spikes [T, N, *].

        Args:
            current: what enters the potential, [T, N, *].
            x: what the library's neuron is given, [T, N, *].
        """
        self._given = x
        try:
            differentiable = torch.is_grad_enabled() and current.requires_grad
            if self.replacement is not None and differentiable:
                spikes = self.replacement(self, current)
            else:
                spikes = self.differentiated(current, self._by_surrogate)
        finally:
            del self._given
        for see in self._observers:
            see(self, current, spikes)
        return spikes

    def differentiated(self, current: Tensor, rule: Rule) -> Tensor:
        """The library's own spikes [T, N, *], with the backward pass that `rule` gives."""
        if isinstance(self.neuron.v, Tensor):
            # Its potential would not begin at rest.
            raise ValueError(f"a {type(self.neuron).__name__} is called twice in one pass of its network")
        with torch.no_grad():
            spikes = type(self.neuron).forward(self.neuron, self._given)
            v = _potentials(current.detach(), spikes, self.decay)
        found: Tensor = _Given.apply(current, v, spikes, self.params, rule)
        self._record(v)
        return found

    def _by_surrogate(self, trace: Trace) -> Callable[[Trace, Tensor], Tensor]:
        surrogate = self.surrogate
        return lambda trace, grad: bptt(trace.v, trace.params, lambda _, x: surrogate.grad(x), grad)

    def show(self) -> None:
        """Whoever watches was shown everything at the call."""


def _first(values: Any) -> Tensor:
    found = values[0] if isinstance(values, tuple) else values
    assert isinstance(found, Tensor)
    return found


def _refusal(neuron: nn.Module) -> str:
    return (
        f"this gradient needs a layer's whole spike train in one call, which a {type(neuron).__name__} that is "
        "called step by step or resets otherwise than to a fixed potential does not have; "
        "name a surrogate, such as @arctan:alpha=2"
    )


def _potentials(current: Tensor, spikes: Tensor, decay: float) -> Tensor:
    """The potential before each reset, [T, N, *], of neurons at rest at 0 that spiked so."""
    v = torch.empty_like(current)
    v[0] = current[0]
    for t in range(1, len(current)):
        torch.add(current[t], v[t - 1].masked_fill(spikes[t - 1] > 0, 0), alpha=decay, out=v[t])
    return v


class _Given(torch.autograd.Function):
    """Spikes that are known already, differentiated by a rule."""

    @staticmethod
    def forward(ctx: Any, current: Tensor, v: Tensor, spikes: Tensor, params: LIFParams, rule: Rule) -> Tensor:
        ctx.save_for_backward(current, v, spikes)
        ctx.params = params
        ctx.backward_of = rule(Trace(current, v, spikes, params))
        return spikes.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        refuse_second_derivative()
        current, v, spikes = ctx.saved_tensors
        return ctx.backward_of(Trace(current, v, spikes, ctx.params), grads[0]), None, None, None, None


class _Spiking(nn.Module):
    """A library's spike function: its own values, another derivative if one is chosen, and its arguments kept."""

    def __init__(self, own: Any, chosen: Surrogate | None, seen: list[Tensor]) -> None:
        super().__init__()
        self._own, self._chosen, self._seen = (own,), chosen, seen

    def forward(self, x: Tensor) -> Tensor:
        self._seen.append(x.detach())
        if self._chosen is None:
            return self._own[0](x)  # type: ignore[no-any-return]
        return _Swapped.apply(x, self._own[0], self._chosen)  # type: ignore[no-any-return]


class _Swapped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, own: SpikeFunction, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return own(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.grad(x), None, None
