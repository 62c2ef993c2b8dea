"""How gradients are taken inside a block: through which backward pass, and as a mean over how many noise draws."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import nn

from attacks.gradients.base import SpikeGradient
from models.neurons import replacing_gradients, spiking_layers, using_surrogate
from models.surrogates import Surrogate


@dataclass
class Estimation:
    """The estimate that is in force.

    Attributes:
        draws: gradients are means over so many draws of the model's noise.
        faithful: whether a pass that records a gradient gives the model's own logits.
        point: the same object for every pass at one point; None where each pass is a point of its own.
        new_point: whether the pass about to run is the first at its point; further draws there are not. A first
            pass that ran out of memory is followed by another at the same point.
        batch: images of the batch, where a pass may hold several copies of it; None if unknown.
        fitting: rows of a pass that memory is known to hold; None until it did not hold one.
        gradient: how spikes are differentiated; None is the network's own way. An attack of several runs names it
            again for each, so that a gradient with memory begins each anew.
    """

    draws: int = 1
    faithful: bool = True
    point: object | None = None
    new_point: bool = True
    batch: int | None = None
    fitting: int | None = None
    gradient: Surrogate | SpikeGradient | None = None


_active: ContextVar[Estimation | None] = ContextVar("estimation", default=None)


def active_estimation() -> Estimation:
    """The estimate of the innermost `estimating` block; plain gradients outside of one."""
    return _active.get() or Estimation()


def takes_whole_trains(model: nn.Module) -> bool:
    """Whether every gradient works on a network: none of its spiking layers is another library's that is called step by
    step, where only the spike itself can be differentiated otherwise."""
    return all(layer.whole for layer in spiking_layers(model).values())


@contextmanager
def estimating(
    model: nn.Module, gradient: Surrogate | SpikeGradient | None = None, draws: int | None = None
) -> Iterator[None]:
    """Take every input gradient inside the block in this way: the attacker's choice.

    Expectation over transformation (Athalye et al., arXiv 1707.07397) for models with their own noise:
    the mean over draws of the gradient of the loss, not the gradient of the loss of mean logits.

    Args:
        model: the network under attack.
        gradient: how its spiking layers are differentiated, whatever an outer block says; None is what an outer
            block says, the network's own way outside of any. A gradient with memory (ASSG) begins anew with each
            block that names it.
        draws: mean over so many draws; None is what an outer block says, 1 outside of any.

    Raises:
        ValueError: draws below 1, or a gradient for a network without spiking layers.
    """
    outer = active_estimation()
    if draws is not None and draws < 1:
        raise ValueError(f"eot must be at least 1, got {draws}")
    if gradient is not None and not spiking_layers(model):
        raise ValueError(f"the network has no spiking layer that '{gradient.name}' could differentiate")
    if isinstance(gradient, SpikeGradient) and not takes_whole_trains(model):
        raise ValueError(
            f"gradient '{gradient.name}' needs whole spike trains, and this network's neurons do not show theirs: they "
            "are called step by step, or reset in another way; name a surrogate, such as arctan:alpha=2"
        )
    faithful = outer.faithful
    with ExitStack() as way:
        if isinstance(gradient, SpikeGradient):
            way.enter_context(replacing_gradients(model, gradient.for_layer))
            faithful = gradient.faithful
        elif gradient is not None:
            way.enter_context(replacing_gradients(model, lambda _: None))
            way.enter_context(using_surrogate(model, gradient))
            faithful = True
        token = _active.set(Estimation(draws or outer.draws, faithful, gradient=gradient or outer.gradient))
        try:
            yield
        finally:
            _active.reset(token)
