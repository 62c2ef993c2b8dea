"""Does a forward call, or an attack, leave anything behind? Checked before any number is believed."""

import torch
from torch import Tensor, nn

from attacks.gradients import frozen
from bench.errors import BenchError
from models.neurons import is_stochastic
from models.random import noise_stream

# Splitting a batch changes the order of float additions, and that can flip single spikes.
_TOLERANCE, _SHARE = 1e-3, 0.9


def check_model(model: nn.Module, x: Tensor, num_classes: int) -> None:
    """Refuse a model whose logits cannot be trusted.

    Args:
        model: the network.
        x: a few images [N, C, H, W], N >= 4.
        num_classes: K.

    Raises:
        BenchError: wrong output shape, NaN logits, or logits that depend on what was
            computed before or on the neighbours in the batch.
    """
    rows = torch.arange(len(x), device=x.device)

    def logits(index: Tensor) -> Tensor:
        with frozen(model), torch.no_grad(), noise_stream(model, 0, index):
            return model(x[index])  # type: ignore[no-any-return]

    first = logits(rows)
    if first.shape != (len(x), num_classes):
        raise BenchError(f"the model returns {list(first.shape)}, not logits [N, {num_classes}]")
    broken = int((~torch.isfinite(first)).any(1).sum())
    if broken:
        raise BenchError(f"the model returns NaN or infinite logits for {broken} of {len(x)} clean images")
    kind = "" if is_stochastic(model) else " (randomness that the model does not declare looks the same)"
    if not _same(first, logits(rows)):
        raise BenchError(f"the model leaks state: the same batch twice gives different logits{kind}")
    half = len(x) // 2
    if not _same(first, torch.cat([logits(rows[:half]), logits(rows[half:])])):
        raise BenchError(f"the model's logits for an image depend on the batch around it (split batch){kind}")
    if not _same(first.flip(0), logits(rows.flip(0))):
        raise BenchError(f"the model's logits for an image depend on its place in the batch{kind}")


def _same(a: Tensor, b: Tensor) -> bool:
    agree = (a - b).abs().amax(1) <= _TOLERANCE * (1 + a.abs().amax(1))
    return bool(agree.double().mean() >= _SHARE)


class Snapshot:
    """What a model was: its weights, buffers and modes. Attacks get the model that is scored, and must not touch it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.modes = [(module, module.training) for module in model.modules()]

    def restore(self) -> list[str]:
        """Put everything back as it was; returns what had been changed."""
        now = self.model.state_dict()
        changed = [name for name, value in self.state.items() if not _identical(now.get(name), value)]
        if changed:
            self.model.load_state_dict(self.state)
        switched = [module for module, mode in self.modes if module.training != mode]
        for module, mode in self.modes:
            module.training = mode
        return [*changed, *(["train mode"] if switched else [])]


def _identical(a: Tensor | None, b: Tensor) -> bool:
    return a is not None and a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
