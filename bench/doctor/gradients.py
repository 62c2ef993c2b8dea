"""What every registered gradient must do: leave the network's output and its layers as they are."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attacks.gradients import SpikeGradient, estimating, frozen, input_gradient
from attacks.losses import cross_entropy
from bench.doctor.finding import Finding, NotApplicableError, UnsoundError, examine
from bench.doctor.networks import NOISY, QUIET, images, spiking_network
from bench.registry import GRADIENTS
from bench.resolve import parse_gradient
from models.cnn import SpikingCNN
from models.neurons import NeuronSpec, spiking_layers
from models.random import noise_stream
from models.surrogates import Surrogate

GROUP = "gradients"
_NETWORKS = {"deterministic": QUIET, "noisy": NOISY}
_N, _KEY = 8, 0xD0C


def gradient_findings() -> Iterator[Callable[[torch.device], Iterator[Finding]]]:
    """One function for each registered gradient, giving its findings on a device."""
    for name in GRADIENTS.names():
        yield partial(findings_of, name)


def findings_of(name: str, device: torch.device) -> Iterator[Finding]:
    """The findings on the gradient of a registered name."""
    found: list[Surrogate | SpikeGradient] = []

    def load() -> str:
        found.append(parse_gradient(name))
        return ""

    yield examine(GROUP, name, "loads", load)
    if found:
        for check, test in (("forward", _forward), ("finite", _finite), ("layers", _layers)):
            yield examine(GROUP, name, check, partial(_on_both, test, found[0], device))


def _on_both(
    test: Callable[[Surrogate | SpikeGradient, NeuronSpec, torch.device], None],
    gradient: Surrogate | SpikeGradient,
    device: torch.device,
) -> str:
    for name, neuron in _NETWORKS.items():
        try:
            test(gradient, neuron, device)
        except UnsoundError as error:
            raise UnsoundError(f"{error} ({name} network)") from error
    return ""


def _forward(gradient: Surrogate | SpikeGradient, neuron: NeuronSpec, device: torch.device) -> None:
    """A pass that records a gradient gives the very logits of one that does not, at the same draw of the noise."""
    if isinstance(gradient, SpikeGradient) and not gradient.faithful:
        raise NotApplicableError("another forward pass by design")
    model, x = spiking_network(neuron, device), images(_N, device)
    plain = _logits(model, x)
    with estimating(model, gradient):
        recorded = _logits(model, x.requires_grad_())
    if not torch.equal(plain, recorded):
        worst = float((plain - recorded).abs().max())
        raise UnsoundError(f"its forward pass is not the network's: logits differ by up to {worst:.1e}")


def _logits(model: SpikingCNN, x: Tensor) -> Tensor:
    rows = torch.arange(len(x), device=x.device)
    with frozen(model), noise_stream(model, _KEY, rows), torch.set_grad_enabled(x.requires_grad):
        logits: Tensor = model(x)
    return logits.detach()


def _finite(gradient: Surrogate | SpikeGradient, neuron: NeuronSpec, device: torch.device) -> None:
    model, x = spiking_network(neuron, device), images(_N, device)
    grad = _gradient(model, x, gradient)
    if not bool(torch.isfinite(grad).all()):
        raise UnsoundError(f"{int((~torch.isfinite(grad)).flatten(1).any(1).sum())} of {_N} gradients are not finite")
    if not bool(grad.any()):
        raise UnsoundError("the gradient is zero everywhere")


def _gradient(model: SpikingCNN, x: Tensor, gradient: Surrogate | SpikeGradient) -> Tensor:
    rows = torch.arange(len(x), device=x.device)
    with frozen(model), noise_stream(model, _KEY, rows), estimating(model, gradient):
        return input_gradient(model, x, rows % 4, cross_entropy).grad


def _layers(gradient: Surrogate | SpikeGradient, neuron: NeuronSpec, device: torch.device) -> None:
    """Also where the network raises in the middle of a pass."""
    model, x = spiking_network(neuron, device), images(_N, device)
    before, logits = _settings(model), _logits(model, x)
    _gradient(model, x, gradient)
    hook = model.readout.register_forward_hook(_raise)
    try:
        _gradient(model, x, gradient)
    except _PlannedError:
        pass
    finally:
        hook.remove()
    after = _settings(model)
    changed = sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))
    if changed:
        raise UnsoundError(f"leaves the layers changed: {', '.join(changed[:2])}")
    if not torch.equal(logits, _logits(model, x)):
        raise UnsoundError("the network's logits are others afterwards")


class _PlannedError(RuntimeError): ...


def _raise(*_: object) -> None:
    raise _PlannedError


def _settings(model: SpikingCNN) -> dict[str, Any]:
    """Every plain attribute of every spiking layer."""
    return {
        f"{key} of {name}": value
        if isinstance(value, int | float | bool | str)
        else (type(value).__name__, repr(value))
        for name, layer in spiking_layers(model).items()
        for key, value in vars(layer).items()
    }
