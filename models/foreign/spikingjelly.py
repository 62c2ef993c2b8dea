"""SpikingJelly's neurons and states; imported only for a network that has some."""

from collections.abc import Callable
from typing import Any

from spikingjelly.activation_based import base, neuron
from torch import nn

from models.foreign.layer import ForeignLayer, WholeLayer


def layers(net: nn.Module) -> list[ForeignLayer]:
    """What stands for each spiking neuron of a network: whole where its step mode and its reset allow that."""
    found: list[ForeignLayer] = []
    for module in net.modules():
        if not callable(getattr(module, "surrogate_function", None)):
            continue
        constants = _constants_of(module)
        if constants is not None and module.step_mode == "m":
            found.append(WholeLayer(module, "surrogate_function", constants))
        else:
            threshold = getattr(module, "v_threshold", 0.0)
            plain = isinstance(threshold, int | float)
            found.append(ForeignLayer(module, "surrogate_function", float(threshold) if plain else 0.0))
    return found


def reset(net: nn.Module) -> None:
    """Forget the states of all modules that can, whoever wrote them, as the library's own `reset_net` does."""
    for module in net.modules():
        forget = getattr(module, "reset", None)
        if callable(forget):
            forget()


def multistep(net: nn.Module) -> bool | None:
    """Whether the network's modules expect [T, N, *]; None if it has none that care, or some of each."""
    modes = {module.step_mode for module in net.modules() if isinstance(module, base.StepModule)}
    return modes == {"m"} if len(modes) == 1 else None


def _constants_of(module: Any) -> Callable[[Any], tuple[float, float, float, bool]] | None:
    """How to read (decay, threshold above rest, factor on the input, detached reset), or None for other dynamics."""
    if getattr(module, "v_reset", None) is None or not isinstance(module.v_threshold, int | float):
        return None
    if not getattr(module.surrogate_function, "spiking", True):
        return None
    # A subclass may do anything.
    return {neuron.IFNode: _of_if, neuron.LIFNode: _of_lif, neuron.ParametricLIFNode: _of_plif}.get(type(module))


def _of_if(module: Any) -> tuple[float, float, float, bool]:
    return 1.0, module.v_threshold - module.v_reset, 1.0, module.detach_reset


def _of_lif(module: Any) -> tuple[float, float, float, bool]:
    leak = 1 / module.tau
    factor = leak if module.decay_input else 1.0
    return 1 - leak, module.v_threshold - module.v_reset, factor, module.detach_reset


def _of_plif(module: Any) -> tuple[float, float, float, bool]:
    leak = float(module.w.detach().sigmoid())
    factor = leak if module.decay_input else 1.0
    return 1 - leak, module.v_threshold - module.v_reset, factor, module.detach_reset
