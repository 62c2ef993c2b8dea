"""Models that must not be measured, and one that may."""

import pytest
import torch
from torch import Tensor, nn

from bench.errors import BenchError
from bench.hygiene import check_model
from models.cnn import cnn_small
from models.neurons import NeuronSpec

X = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def network(neuron: NeuronSpec) -> nn.Module:
    return cnn_small(3, (1, 8, 8), neuron.build, T=4, mean=(0.5,), std=(0.5,))


class Linear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


class Leaking(Linear):
    potential: Tensor | float = 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.potential = 0.5 * self.potential + super().forward(x).detach()
        return self.potential


class Neighbourly(Linear):
    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits - logits.mean(0)


class Placed(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.arange(len(x)).remainder(4)[:, None] * torch.tensor([0.0, 1.0, 2.0])


class Undeclared(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.randn(len(x), 3)


class Broken(Linear):
    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return torch.where(torch.arange(len(x))[:, None] == 2, torch.nan, logits)


class PerStep(Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[None].expand(4, -1, -1)


@pytest.mark.parametrize("kind", ["lif", "nlif"])
def test_a_sound_network_passes(kind: str) -> None:
    params = (("noise_var", 0.4),) if kind == "nlif" else ()
    check_model(network(NeuronSpec(kind, params=params)), X, 3)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Leaking, "leaks state"),
        (Undeclared, "leaks state.*does not declare"),
        (Neighbourly, "batch around it"),
        (Placed, "place in the batch"),
        (Broken, "NaN or infinite logits for 1 of 8"),
        (PerStep, r"returns \[4, 8, 3\], not logits"),
    ],
)
def test_an_unsound_network_is_refused(model: type[nn.Module], message: str) -> None:
    with pytest.raises(BenchError, match=message):
        check_model(model(), X, 3)


def test_the_check_leaves_modes_and_generator_alone() -> None:
    model = network(NeuronSpec()).train()
    state = torch.get_rng_state()
    check_model(model, X, 3)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
