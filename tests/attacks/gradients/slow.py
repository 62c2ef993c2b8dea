"""The gradients once more, slowly: plain loops over time, and autograd through expressions that say what is meant."""

from collections.abc import Callable

import torch
from support import images, labels, spiking_net
from torch import Tensor

from attacks.gradients import SpikeGradient, estimating, input_gradient
from attacks.losses import cross_entropy
from models.cnn import SpikingCNN
from models.neurons import LIF, NeuronSpec, spiking_layers
from models.random import active_noise_stream, noise_stream
from models.surrogates import Surrogate

Neuron = Callable[[LIF, Tensor, Tensor | None], Tensor]
"""(layer, currents [T, N, *], noise or None) -> spikes [T, N, *], differentiable by autograd."""

NEURONS: dict[str, NeuronSpec] = {
    "lif": NeuronSpec(),
    "if": NeuronSpec(decay=1.0, v_threshold=0.7),
    "leaky-detached": NeuronSpec(decay=0.25, v_threshold=1.4, detach_reset=True),
    "noisy": NeuronSpec("nlif", decay=0.8, v_threshold=0.9, params=(("noise_var", 0.3),)),
}
KEY = 21


def network(kind: str = "lif", T: int = 3) -> SpikingCNN:
    """A float64 network of these neurons, its reset below zero."""
    model = spiking_net(NEURONS[kind], T=T, dtype=torch.float64)
    for layer in spiking_layers(model).values():
        layer.v_reset = -0.2
    return model


def batch(n: int = 5) -> tuple[Tensor, Tensor]:
    return images(n, dtype=torch.float64), labels(n)


def with_gradient(value: Tensor, *through: tuple[Tensor, Tensor]) -> Tensor:
    """`value` itself; its derivative in each tensor is the factor given with it."""
    out = value.detach()
    for factor, tensor in through:
        out = out + factor.detach() * (tensor - tensor.detach())
    return out


def membrane(layer: LIF, current: Tensor, noise: Tensor | None, slope: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Backpropagation through time by autograd: `slope(t, v)` stands for the spike's derivative."""
    u = torch.zeros_like(current[0])
    spikes = []
    for t in range(len(current)):
        v = layer.decay * u + current[t]
        if noise is not None:
            v = v + noise[t]
        s = with_gradient((v >= layer.v_threshold).to(v.dtype), (slope(t, v.detach()), v))
        spikes.append(s)
        gate = s.detach() if layer.detach_reset else s
        u = (1 - gate) * v + layer.v_reset * gate
    return torch.stack(spikes)


def potentials(layer: LIF, current: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """Spikes and membrane potentials after noise, each [T, N, *]."""
    seen: list[Tensor] = []

    def watch(_: int, v: Tensor) -> Tensor:
        seen.append(v)
        return torch.zeros_like(v)

    spikes = membrane(layer, current.detach(), noise, watch)
    return spikes, torch.stack(seen)


def run(model: SpikingCNN, x: Tensor, neuron: Neuron) -> Tensor:
    """The network's logits with this neuron in place of its own, one time step after another."""
    stream = active_noise_stream()
    if stream is not None:
        stream.begin_forward()
    layers = list(spiking_layers(model).values())
    image = model.stem((x - model.mean) / model.std)
    current = torch.stack([image] * model.T)
    spikes = neuron(layers[0], current, layers[0].noise(current))
    for conv, layer in zip(model.convs, layers[1:], strict=True):
        current = torch.stack([conv(s) for s in spikes])
        spikes = neuron(layer, current, layer.noise(current))
    return torch.stack([model.readout(s.mean((-2, -1))) for s in spikes]).mean(0)


def slow_gradient(model: SpikingCNN, x: Tensor, y: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor]:
    """Gradient [N, *] of the summed cross-entropy in the image, and the logits."""
    x = x.detach().requires_grad_()
    logits = run(model, x, neuron)
    return torch.autograd.grad(cross_entropy(logits, y).sum(), x)[0], logits.detach()


def agree(kind: str, gradient: SpikeGradient | Surrogate, neuron: Neuron, T: int = 3) -> None:
    """The network's input gradient is that of the slow neuron, and not zero."""
    model = network(kind, T)
    x, y = batch()
    with noise_stream(model, KEY, torch.arange(len(x))), estimating(model, gradient):
        fast = input_gradient(model, x, y, cross_entropy)
    with noise_stream(model, KEY, torch.arange(len(x))):
        grad, logits = slow_gradient(model, x, y, neuron)
    assert float(grad.abs().amax((1, 2, 3)).min()) > 0
    assert torch.allclose(fast.grad, grad, rtol=1e-9, atol=1e-12)
    if getattr(gradient, "faithful", True):
        assert torch.allclose(fast.logits, logits, rtol=1e-12, atol=1e-12)


def layer_gradient(layer: LIF, gradient: SpikeGradient, current: Tensor, grad: Tensor) -> Tensor:
    """What one layer hands back: gradient in the currents [T, N, *] for the gradient `grad` in the spikes."""
    current = current.detach().requires_grad_()
    with estimating(layer, gradient):
        spikes = layer(current)
    return torch.autograd.grad(spikes, current, grad)[0]
