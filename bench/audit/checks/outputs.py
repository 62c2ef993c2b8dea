"""What the logits look like."""

import torch
from torch import Tensor

from bench.audit.finding import INVALID, OK, SUSPECT, Finding, limited
from bench.audit.lab import Lab
from bench.outcome import Flag
from bench.statistics import wilson
from models.neurons import LIF, spiking_layers

TIES, SILENT, PROBABILITIES = 0.05, 0.0, 0.5


def chance(lab: Lab) -> Finding:
    """A network that does not classify has no robustness to speak of."""
    clean = lab.outcome("clean").clean
    rate = wilson(float(clean.mean(1).sum()), lab.spec.n)
    above = rate.low > 1 / lab.classes
    word = "above" if above else "not clearly above"
    says = f"clean accuracy {rate.value:.1%} is {word} chance, {1 / lab.classes:.1%}"
    return Finding("chance", OK if above else SUSPECT, 1 - rate.low, 1 - 1 / lab.classes, says)


def nan(lab: Lab) -> Finding:
    """NaN or infinite logits, clean or under any of the audit's attacks."""
    share = float(lab.flagged(Flag.NAN).mean())
    wrong = f"NaN or infinite logits for {share:.1%} of the images, clean or attacked"
    return limited("nan", share, 0.0, "all logits finite, clean and attacked", wrong, INVALID)


def ties(lab: Lab) -> Finding:
    """Ties for the first place on clean images: spike counts have few values, and a tie counts as wrong."""
    share = float((lab.outcome("clean").flags & Flag.TIE != 0).mean())
    wrong = f"on {share:.1%} of the clean images classes tie for the first place, which counts as wrong"
    return limited("ties", share, TIES, "hardly any ties", wrong)


def silent(lab: Lab) -> Finding:
    """A spiking layer that never fires, or logits that are the same whatever the image."""
    spikes: dict[str, float] = {}
    hooks = []
    for name, layer in spiking_layers(lab.model).items():

        def count(_: LIF, __: object, out: Tensor, name: str = name) -> None:
            spikes[name] = float(out.detach().count_nonzero())

        hooks.append(layer.register_forward_hook(count))
    try:
        logits = lab.logits()
    finally:
        for hook in hooks:
            hook.remove()
    constant = len(logits) > 1 and bool((logits == logits[:1]).all())
    dead = [name for name, total in spikes.items() if total == 0]
    if constant:
        return Finding("silent", INVALID, 1.0, SILENT, "the logits are the same for every image")
    share = len(dead) / max(len(spikes), 1)
    return limited("silent", share, SILENT, "every layer spikes", f"no neuron of {', '.join(dead)} ever fires")


def probabilities(lab: Lab) -> Finding:
    """Rows in [0, 1] that sum to 1 are a softmax inside the model: cross-entropy on top of it saturates."""
    logits = lab.logits()
    rows = (logits >= 0).all(1) & (logits <= 1).all(1) & ((logits.sum(1) - 1).abs() < 1e-3)
    # One value everywhere is silence, not a softmax.
    rows &= ~torch.isclose(logits, logits[:, :1]).all(1)
    share = float(rows.double().mean())
    wrong = "the outputs are probabilities: a softmax inside the model saturates the cross-entropy; return logits"
    return limited("probabilities", share, PROBABILITIES, "the outputs are not probabilities", wrong)
