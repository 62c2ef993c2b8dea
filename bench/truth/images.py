"""The exact verdict on every image of a batch, and running the model on a supposed witness."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from attacks.losses import margin
from attacks.projections import ball
from attacks.threat import Threat
from bench.errors import BenchError
from bench.truth.exact import BROKEN, Limits, Verdict, decide
from bench.truth.network import Array, network_of, noise_off


def verdicts(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, limits: Limits) -> Iterator[Verdict]:
    """Which images an attacker who finds everything could not fool.

    The verdict is about the float64 model without noise: `noise_off(model)`.

    Args:
        model: a `models.tiny.SpikingMLP`.
        x: images [N, C, H, W] in [0, 1].
        y: labels [N].
        threat: l_inf only.
        limits: when to give an image up.

    Yields:
        one verdict an image, in order. A witness lies in the ball and in the box in float64, and the
        model gets it wrong.

    Raises:
        BenchError: another architecture or another norm.
    """
    if threat.norm != "linf":
        raise BenchError(f"exact robust accuracy is known for the linf norm only, not for {threat.norm}")
    network, double = network_of(model), noise_off(model)
    for image, label in zip(x.cpu().double(), y.cpu(), strict=True):
        region = ball(image[None], threat)
        low, high = (_flat(region.project(torch.full_like(image[None], end))) for end in (-torch.inf, torch.inf))
        judge = _Judge(double, image, label, threat)
        verdict = decide(network, judge.fooled, _flat(image), int(label), low, high, limits)
        assert verdict.status != BROKEN or verdict.witness is not None
        yield verdict


class _Judge:
    """The only one who may call an image misclassified."""

    def __init__(self, model: nn.Module, image: Tensor, label: Tensor, threat: Threat) -> None:
        self.model, self.image, self.label, self.threat = model, image, label, threat

    def fooled(self, candidate: Array) -> bool:
        x = torch.from_numpy(candidate).view(self.image.shape)
        far = float((x - self.image).abs().max()) > float(self.threat.eps)
        if far or float(x.min()) < self.threat.low or float(x.max()) > self.threat.high:
            return False
        with torch.no_grad():
            lost = float(margin(self.model(x[None]), self.label[None])[0])
        # A tie is not a correct prediction, as everywhere here.
        return lost >= 0


def _flat(image: Tensor) -> Array:
    return np.ascontiguousarray(image.reshape(-1).numpy())
