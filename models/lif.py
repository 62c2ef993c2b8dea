"""The leaky integrate-and-fire recursion over T time steps, and its analytic backward.

    V[t] = decay * U[t-1] + I[t] (+ xi[t])        U[-1] = 0
    S[t] = 1 if V[t] >= v_threshold else 0
    U[t] = (1 - S[t]) * V[t] + v_reset * S[t]     hard reset

Source: TGO, Eq. 1-3 and Eq. 15 (the noise xi). The state U lives only inside one
call, so nothing can leak from one batch into the next.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from models.kernels import Affine, kernels_for
from models.random import Noise
from models.surrogates import Surrogate

_LEAST_UNIT = 1e-2


class LIFParams(NamedTuple):
    """What decides a layer's recursion.

    Attributes:
        decay, v_threshold: one number, or a tensor [T, *] or [T, N, *] for neurons that differ by step or from another.
        v_reset: potential after a spike.
        detach_reset: whether the gradient through the reset's (1 - S) is stopped.
        surrogate: the derivative in place of the spike's.
    """

    decay: float | Tensor
    v_threshold: float | Tensor
    v_reset: float
    detach_reset: bool
    surrogate: Surrogate

    @property
    def uniform(self) -> bool:
        """Whether every neuron is alike at every step, as the kernels take it."""
        return not isinstance(self.decay, Tensor) and not isinstance(self.v_threshold, Tensor)


def at_step(value: float | Tensor, t: int) -> float | Tensor:
    """A constant of time step `t`."""
    return value[t] if isinstance(value, Tensor) else value


def in_rates(params: LIFParams) -> tuple[float | Tensor, float | Tensor]:
    """Threshold and decay as they enter firing rates: their means over the steps where they differ.

    Currents are measured in units of the threshold and a rate's slope has 1 + decay under it, so that one that adapted
    below 0 counts as just above it, and a leak that was learnt below 0 as none.
    """
    threshold, decay = params.v_threshold, params.decay
    return (
        threshold.mean(0).clamp(min=_LEAST_UNIT) if isinstance(threshold, Tensor) else threshold,
        decay.mean(0).clamp(min=0) if isinstance(decay, Tensor) else decay,
    )


class Trace(NamedTuple):
    """What one layer did in one forward call.

    Attributes:
        current: input currents [T, N, *].
        v: membrane potential after noise, before reset, [T, N, *].
        spikes: in {0, 1}, [T, N, *].
        params: the layer's constants.
    """

    current: Tensor
    v: Tensor
    spikes: Tensor
    params: LIFParams


def _simulate(
    current: Tensor,
    noise: Noise | Tensor | None,
    params: LIFParams,
    with_membrane: bool,
    affine: Affine | None = None,
    keep: bool = True,
    steps: int = 0,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Spikes, membrane potential after noise where it is kept, and before it where it is asked for, each [T, N, *]."""
    kernels = kernels_for(current) if params.uniform else None
    if kernels is not None:
        return kernels.simulate(current, noise, params, affine, with_membrane, keep, steps)
    half = current.dtype == torch.bfloat16
    # As in the kernels, bfloat16 is how tensors are stored; all sums are float32, and a fused product rounds once.
    wide = current.float() if half else current
    if affine is not None:
        channels = (-1, *[1] * (current.dim() - 3))
        scale, shift = (factor.double().view(channels) for factor in (affine.scale, affine.shift))
        wide = (wide.double() * scale + shift).to(wide.dtype)
    wide = repeated(wide, steps)
    spikes, v, before = simulate(wide, drawn(noise, wide), params, with_membrane)
    if not half:
        return spikes, v, before
    # What kernels simulate again in the backward pass they do not round on the way.
    return spikes.to(current.dtype), v if noise is None else v.to(current.dtype), _to(before, current.dtype)


def _to(values: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if values is None else values.to(dtype)


def repeated(current: Tensor, steps: int) -> Tensor:
    """Currents over time [T, N, *], from those of one step [1, N, *] if they are the same in all `steps`."""
    return current.expand(steps, *current.shape[1:]) if steps > 1 and len(current) == 1 else current


def drawn(noise: Noise | Tensor | None, current: Tensor) -> Tensor | None:
    """The noise of one call as a tensor like `current` [T, N, *]."""
    if not isinstance(noise, Noise):
        return noise
    return noise.tensor(current.shape[0], current.shape[2:]).to(current.dtype)


def simulate(
    current: Tensor, noise: Tensor | None, params: LIFParams, with_membrane: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The recursion in torch operations: what every kernel equals, and what runs where there is none.

    Returns:
        spikes, membrane potential after noise, and before it where it is asked for, each [T, N, *].
    """
    steps = current.shape[0]
    # The current may be one image's, expanded over time with stride 0: buffers copy one step's layout.
    layout = torch.empty_like(current[0])
    buffer = layout.new_empty(steps * layout.numel())
    v = _stack_like(buffer, layout, steps)
    spikes = _stack_like(torch.empty_like(buffer), layout, steps)
    before_noise = _stack_like(torch.empty_like(buffer), layout, steps) if with_membrane else None
    u: Tensor | None = None
    for t in range(steps):
        if u is None:
            v[t].copy_(current[t])
        elif isinstance(params.decay, Tensor):
            torch.addcmul(current[t], params.decay[t].expand_as(u), u, out=v[t])
        else:
            torch.add(current[t], u, alpha=params.decay, out=v[t])
        if before_noise is not None:
            before_noise[t].copy_(v[t])
        if noise is not None:
            v[t].add_(noise[t])
        torch.ge(v[t], at_step(params.v_threshold, t), out=spikes[t])
        if t + 1 < steps:
            u = v[t].masked_fill(spikes[t] > 0, params.v_reset)
    return spikes, v, before_noise


def bptt(
    v: Tensor,
    params: LIFParams,
    slope: Callable[[int, Tensor], Tensor],
    grad_spikes: Tensor | None,
    grad_membrane: Tensor | None = None,
) -> Tensor:
    """Backpropagation through time of one layer.

    Args:
        v: membrane potential after noise, before reset, [T, N, *].
        params: the layer's constants; its surrogate is not used.
        slope: `slope(t, x)` stands for dS/dV of time step t at x = v[t] - v_threshold; a new tensor of x's shape.
        grad_spikes: gradient of the loss in the spikes [T, N, *], or None for zero.
        grad_membrane: gradient in the membrane potential before noise, or None for zero.

    Returns:
        gradient in the input currents [T, N, *].
    """
    grad_current = torch.empty_like(v)
    grad_u: Tensor | None = None
    for t in reversed(range(v.shape[0])):
        x = v[t] - at_step(params.v_threshold, t)
        through_spike = grad_spikes[t] if grad_spikes is not None else None
        through_decay = None
        if grad_u is not None:
            through_decay = torch.where(x < 0, grad_u, 0)
            if not params.detach_reset:
                reset = grad_u * (params.v_reset - v[t])
                through_spike = reset if through_spike is None else reset.add_(through_spike)
        if through_spike is None:
            torch.zeros(x.shape, out=grad_current[t])
        else:
            torch.mul(slope(t, x), through_spike, out=grad_current[t])
        if through_decay is not None:
            grad_current[t].add_(through_decay)
        if grad_membrane is not None:
            grad_current[t].add_(grad_membrane[t])
        grad_u = grad_current[t] * at_step(params.decay, t)
    return grad_current


class _MultiStepLIF(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        current: Tensor,
        noise: Noise | Tensor | None,
        params: LIFParams,
        with_membrane: bool,
        affine: Affine | None,
        steps: int,
    ) -> tuple[Tensor, Tensor | None]:
        # What the backward pass can simulate again need not be written down; noise would have to be drawn again.
        kernels = kernels_for(current) if noise is None and params.uniform else None
        again = kernels is not None and kernels.SIMULATES_AGAIN and kernels.differentiates(params.surrogate)
        keep = ctx.needs_input_grad[0] and not again
        spikes, v, before_noise = _simulate(current, noise, params, with_membrane, affine, keep, steps)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(current if again else v)
        ctx.params, ctx.affine, ctx.again, ctx.dtype = params, affine, again, current.dtype
        ctx.steps = len(spikes) if len(current) < len(spikes) else 0
        ctx.set_materialize_grads(False)
        return spikes, before_noise

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, None, None, None, None, None]:
        refuse_second_derivative()
        (saved,) = ctx.saved_tensors
        params: LIFParams = ctx.params
        for_spikes, for_membrane = grads
        if for_spikes is None and for_membrane is None:
            return None, None, None, None, None, None
        kernels = kernels_for(saved) if params.uniform else None
        if kernels is not None and kernels.differentiates(params.surrogate):
            how = {"simulated": not ctx.again, "steps": ctx.steps}
            grad = kernels.backward(saved, params, ctx.affine, for_spikes, for_membrane, **how)
            return _as_summed(grad, ctx).to(ctx.dtype), None, None, None, None, None
        v = _simulate(saved, None, params, False, ctx.affine, True, ctx.steps)[1] if ctx.again else saved
        assert v is not None
        wide = torch.float32 if ctx.dtype == torch.bfloat16 else v.dtype
        widened = (_to(value, wide) for value in (for_spikes, for_membrane))
        grad = bptt(v.to(wide), params, lambda _, x: params.surrogate.grad(x), *widened)
        if ctx.steps:
            # One step after the other, as the kernel adds.
            grad = functools.reduce(torch.add, grad).unsqueeze(0)
        if ctx.affine is not None:
            channels = (-1, *[1] * (v.dim() - 3))
            grad = grad * ctx.affine.back.view(channels) * ctx.affine.weight.view(channels)
        return _as_summed(grad, ctx).to(ctx.dtype), None, None, None, None, None


def _as_summed(grad: Tensor, ctx: Any) -> Tensor:
    """In training, a sum over time in the layout in which torch sums: the sums that follow go through it in order."""
    return grad.contiguous() if ctx.steps and ctx.affine is None else grad


def refuse_second_derivative() -> None:
    """To be called in an analytic backward pass: its result has no graph for a second derivative to follow.

    Raises:
        RuntimeError: the gradient is to be differentiated again.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("the gradient of a spiking layer cannot be differentiated again (create_graph=True)")


def _stack_like(flat: Tensor, one_step: Tensor, steps: int) -> Tensor:
    """View a flat buffer as [T, *one_step] where every time step has the memory layout of `one_step`."""
    return flat.as_strided((steps, *one_step.shape), (one_step.numel(), *one_step.stride()))


def lif(
    current: Tensor,
    params: LIFParams,
    noise: Noise | Tensor | None = None,
    with_membrane: bool = False,
    affine: Affine | None = None,
    steps: int = 0,
) -> tuple[Tensor, Tensor | None]:
    """Run one LIF layer over all its time steps as one autograd node.

    Args:
        current: input currents, [T, N, *]; may be expanded over T (stride 0).
        params: the layer's constants.
        noise: additive membrane noise xi, [T, N, *], drawn or not, or None. Treated as a constant.
        with_membrane: also return the membrane potential before noise and reset.
        affine: a fixed normalisation of the currents inside the layer, see `models.norm`.
        steps: T, where `current` is [1, N, *] and the same in every step; 0 if `current` says it.

    Returns:
        spikes in {0, 1}, [T, N, *], and the membrane potential [T, N, *] or None.
    """
    return _MultiStepLIF.apply(current, noise, params, with_membrane, affine, steps)  # type: ignore[no-any-return]


Backward = Callable[[Trace, Tensor], Tensor]
Rule = Callable[[Trace], Backward]
"""From what a layer did to its backward pass: (trace, gradient in the spikes) -> gradient in the currents."""


class _Replaced(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, current: Tensor, noise: Noise | Tensor | None, params: LIFParams, rule: Rule, with_membrane: bool
    ) -> tuple[Tensor, Tensor | None]:
        spikes, v, before_noise = _simulate(current, noise, params, with_membrane)
        assert v is not None
        ctx.save_for_backward(current, v, spikes)
        ctx.params = params
        ctx.backward_of = rule(Trace(current, v, spikes, params))
        if before_noise is not None:
            ctx.mark_non_differentiable(before_noise)
        return spikes, before_noise

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        current, v, spikes = ctx.saved_tensors
        return ctx.backward_of(Trace(current, v, spikes, ctx.params), grads[0]), None, None, None, None


def lif_differentiated(
    current: Tensor, params: LIFParams, noise: Noise | Tensor | None, rule: Rule, with_membrane: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The same spikes as `lif`, with another backward pass in place of its own.

    Args:
        current, params, noise: as `lif`.
        rule: called once per forward pass with what the layer did; gives the backward pass.
        with_membrane: also return the membrane potential before noise.

    Returns:
        spikes [T, N, *], and the membrane potential before noise [T, N, *] without a gradient, or None.
    """
    return _Replaced.apply(current, noise, params, rule, with_membrane)  # type: ignore[no-any-return]


def spike(x: Tensor, surrogate: Surrogate) -> Tensor:
    """1 where x = V - v_threshold is not negative, else 0, differentiated by the surrogate; any shape."""
    return _Spike.apply(x, surrogate)  # type: ignore[no-any-return]


class _Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(x)
        ctx.surrogate = surrogate
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return grads[0] * ctx.surrogate.grad(x), None


def lif_reference(
    current: Tensor, params: LIFParams, noise: Noise | Tensor | None = None, with_membrane: bool = False
) -> tuple[Tensor, Tensor | None]:
    """The same layer as `lif`, written as the equations and differentiated by autograd.

    Slow; it is what `lif` is tested against. Arguments and result as `lif`.
    """
    noise = drawn(noise, current)
    u = torch.zeros_like(current[0])
    spikes, membrane = [], []
    for t in range(current.shape[0]):
        v = at_step(params.decay, t) * u + current[t]
        membrane.append(v)
        if noise is not None:
            v = v + noise[t]
        s = spike(v - at_step(params.v_threshold, t), params.surrogate)
        spikes.append(s)
        gate = s.detach() if params.detach_reset else s
        u = (1 - gate) * v + params.v_reset * gate
    return torch.stack(spikes), torch.stack(membrane) if with_membrane else None
