"""The loss over time is the definition, and needs a network that tells its steps."""

import pytest
import torch
from support import images, labels, spiking_net
from torch import nn
from torch.nn import functional

from bench.errors import BenchError
from bench.training import _per_step
from defenses import ConflictError, Step
from defenses.tet import LossOverTime, tet
from defenses.trades import trades
from models.random import CounterRNG


def test_it_equals_the_definition_and_reaches_the_weights() -> None:
    model, x, y = spiking_net(T=3, dtype=torch.float64), images(5, dtype=torch.float64), labels(5)
    logits, over_time = _per_step(model, x)
    assert torch.equal(logits, model(x))
    step = Step(model, x, y, logits, {}, 1.0, x, CounterRNG(0, torch.arange(5)), over_time=over_time)
    got = LossOverTime(lam=0.2).task_loss(step)
    each = torch.stack([functional.cross_entropy(o, y) for o in over_time]).mean()
    torch.testing.assert_close(got, 0.8 * each + 0.2 * (over_time - 1).square().mean())
    got.backward()
    assert float(model.readout.weight.grad.abs().sum()) > 0  # type: ignore[union-attr]


def test_what_it_cannot_do_is_refused() -> None:
    with pytest.raises(BenchError, match="logits of every time step, which Linear does not give"):
        _per_step(nn.Linear(2, 2), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"lam must lie in \[0, 1\]"):
        tet(lam=1.5)
    with pytest.raises(ConflictError, match="both decide the loss"):
        tet() + trades()
