"""The conversion's gradient is that of an ordinary network with the same weights."""

import pytest
import torch
from slow import KEY, NEURONS, batch, network

from attacks.gradients import estimating, input_gradient
from attacks.gradients.conversion import Conversion
from attacks.losses import cross_entropy
from models.random import noise_stream


@pytest.mark.parametrize("kind", NEURONS)
def test_it_is_the_twin_s(kind: str) -> None:
    model, (x, y) = network(kind), batch()
    theta = NEURONS[kind].v_threshold
    with noise_stream(model, KEY, torch.arange(len(x))), estimating(model, Conversion()):
        got = input_gradient(model, x, y, cross_entropy)
    pixels = x.clone().requires_grad_()
    h = ((pixels - model.mean) / model.std).clone()
    for conv in (model.stem, *model.convs):
        h = torch.minimum(torch.relu(conv(h) / theta), torch.ones(()).double())
    logits = model.readout(h.mean((-2, -1)))
    (grad,) = torch.autograd.grad(cross_entropy(logits, y).sum(), pixels)
    assert float(grad.abs().max()) > 0
    assert torch.allclose(got.grad, grad, rtol=1e-9, atol=1e-12)
    with noise_stream(model, KEY, torch.arange(len(x))), torch.no_grad():
        own = model(x)
    assert torch.equal(got.logits, own)
    assert torch.equal(got.loss, cross_entropy(own, y))
    assert not torch.allclose(own, logits)
