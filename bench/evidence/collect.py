"""All the evidence on one network under one threat model."""

from dataclasses import dataclass

from torch import Tensor, nn

from attacks.threat import Threat
from bench.evidence.flips import FlipEvidence, flip_evidence
from bench.evidence.gradients import InputGradient, LayerGradient, input_gradients, layer_gradients
from bench.evidence.jacobian import JacobianEvidence, jacobian_evidence, random_point
from bench.evidence.landscape import Landscape, landscape
from bench.evidence.membrane import LayerMembrane, layer_membranes
from bench.evidence.numbers import Numbers
from bench.evidence.probe import Probe
from bench.hygiene import Snapshot
from models.random import CounterRNG, derive_key


@dataclass(frozen=True)
class Evidence(Numbers):
    """What `collect` measured.

    Attributes:
        n, draws: images, and realisations of the network's noise that every figure is a mean over.
        delta: half-width of the threshold's neighbourhood.
        inputs: input gradients by loss.
        gradients, membranes: by spiking layer.
        jacobian: Eq. 10.
        flips: Theorem 1, under random noise and under the attack.
        landscape: the loss around the images.
    """

    n: int
    draws: int
    delta: float
    inputs: tuple[InputGradient, ...]
    gradients: tuple[LayerGradient, ...]
    membranes: tuple[LayerMembrane, ...]
    jacobian: JacobianEvidence
    flips: tuple[FlipEvidence, ...]
    landscape: Landscape


def collect(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor | None,
    probe: Probe,
    threat: Threat,
    *,
    delta: float = 0.5,
    loss: str = "ce",
    grid: int = 5,
    attack: str = "the attack",
) -> Evidence:
    """Measure everything; the model and torch's generators are left as they were.

    Args:
        model: a network with spiking layers, mapping x to logits [N, K].
        x: clean images [N, *] in the box.
        y: labels [N].
        x_adv: the attack's images [N, *], or None without one.
        probe: gradient and noise.
        threat: norm, eps and box.
        delta: see `layer_membranes`.
        loss: what the attacker maximises.
        grid: see `landscape`.
        attack: its name.
    """
    before = Snapshot(model)
    noise = random_point(x, threat, CounterRNG(derive_key(probe.key, "flips"), probe.samples))
    perturbed = {"random noise": noise} | ({attack: x_adv} if x_adv is not None else {})
    try:
        return Evidence(
            len(x),
            probe.draws,
            delta,
            input_gradients(model, x, y, probe),
            layer_gradients(model, x, y, probe, loss),
            layer_membranes(model, x, probe, delta),
            jacobian_evidence(model, x, probe, threat, x_adv),
            tuple(flip_evidence(model, x, images, probe, name) for name, images in perturbed.items()),
            landscape(model, x, y, probe, threat, loss=loss, grid=grid),
        )
    finally:
        before.restore()
