"""The input gradient, and what cannot give one."""

import pytest
import torch
from torch import Tensor, nn

from attacks import frozen, input_gradient
from attacks.losses import cross_entropy


class Wrap(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x.flatten(1) @ self.weight)  # type: ignore[no-any-return,operator]


X, Y = torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 2])


def test_it_equals_the_textbook_gradient() -> None:
    grad, logits, _ = input_gradient(Wrap(lambda z: 3 * z), X, Y, cross_entropy)
    expected = 3 * ((3 * X.flatten(1)).softmax(1) - nn.functional.one_hot(Y, 4))
    assert torch.allclose(grad.flatten(1), expected)
    assert torch.equal(logits, 3 * X.flatten(1))
    assert not logits.requires_grad


def test_it_works_where_gradients_are_switched_off() -> None:
    with torch.no_grad():
        grad = input_gradient(Wrap(torch.tanh), X, Y, cross_entropy).grad
    assert float(grad.abs().min()) > 0


def test_a_model_that_detaches_is_refused() -> None:
    with frozen(model := Wrap(lambda z: z.detach())), pytest.raises(ValueError, match="no gradient in its input"):
        input_gradient(model, X, Y, cross_entropy)


def test_a_model_that_ignores_its_input_is_refused() -> None:
    model = Wrap(lambda z: z)
    model.forward = lambda x: model.weight[:3]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="does not depend on its input"):
        input_gradient(model, X, Y, cross_entropy)


def test_frozen_restores_modes_and_flags_one_by_one() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Dropout())
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    with frozen(model):
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True]
