"""What must hold of a network before a number about it means anything, each with one finding."""

import torch
from torch import Tensor, nn

from attacks.gradients import frozen
from bench.audit.finding import INVALID, NOTE, OK, Finding
from bench.audit.lab import Lab
from bench.data.dataset import Dataset
from bench.hygiene import Snapshot
from models.foreign.net import IMAGE, SEQUENCE, STEP, Adapted
from models.neurons import spiking_layers
from models.random import noise_stream

_GAP = 0.1
_FAR = 0.6
"""Accuracy on pixels that is less than so much of the best is no matter of contrast."""
_HOW = {
    IMAGE: "it is given the image and loops over {T} time steps itself",
    STEP: "it is given one step at a time, {T} times, and its outputs are averaged",
    SEQUENCE: "it is given [T, N, C, H, W] with T = {T}, and its outputs are averaged",
}


def called(model: nn.Module) -> Finding:
    """How the network is shown an image, and which spiking layers it has."""
    layers = spiking_layers(model)
    if isinstance(model, Adapted):
        how = (
            f"{' and '.join(model.libraries)}: {_HOW[model.way].format(T=model.T)}; states are reset around every call"
        )
    else:
        how = "it is given the image as it is"
    whole = sum(layer.whole for layer in layers.values())
    number = f"{len(layers)} spiking layer{'s' * (len(layers) != 1)}"
    some = "" if whole == len(layers) else f", of which {whole} take gradients of whole spike trains (rga, assg)"
    return Finding("called", OK, None, None, f"{how}; {number}{some}")


def shape(logits: Tensor, n: int, classes: int) -> Finding:
    """Logits [N, K] of floats."""
    if logits.shape != (n, classes):
        says = f"the network returns {list(logits.shape)} for {n} images, not logits [{n}, {classes}]"
        return Finding("shape", INVALID, None, None, says)
    if not bool(torch.isfinite(logits).all()):
        return Finding("shape", INVALID, None, None, "the network returns NaN or infinite logits for clean images")
    return Finding("shape", OK, None, None, f"finite logits [N, {classes}]")


def log_probabilities(logits: Tensor) -> Finding:
    """Rows whose exponentials sum to 1 are a log-softmax inside the network."""
    share = float(((logits.exp().sum(1) - 1).abs() < 1e-3).double().mean())
    if share > 0.5:
        says = (
            "the outputs are log-probabilities: a log-softmax inside the network flattens the margin that attacks and "
            "scores use; return logits"
        )
        return Finding("log-probabilities", INVALID, share, 0.5, says)
    return Finding("log-probabilities", OK, share, 0.5, "the outputs are not log-probabilities")


def modes(model: nn.Module, x: Tensor) -> Finding:
    """After `eval()` everything is in eval mode, and a forward call leaves it there. What it switches is put back."""
    snapshot = Snapshot(model)
    try:
        model.eval()
        with torch.no_grad(), noise_stream(model, 0, torch.arange(len(x), device=x.device)):
            before = [name for name, module in model.named_modules() if module.training]
            model(x)
            after = [name for name, module in model.named_modules() if module.training]
    finally:
        snapshot.restore()
    if after:
        when = "in spite of eval()" if before else "after a forward call"
        says = f"{after[0] or type(model).__name__} is in train mode {when}: dropout and batch statistics stay on"
        return Finding("eval mode", INVALID, None, None, says)
    return Finding("eval mode", OK, None, None, "everything is and stays in eval mode")


def untouched(model: nn.Module, x: Tensor) -> Finding:
    """A forward call changes neither weights nor buffers."""
    model.eval()
    snapshot = Snapshot(model)
    with frozen(model), torch.no_grad(), noise_stream(model, 0, torch.arange(len(x), device=x.device)):
        model(x)
    changed = snapshot.restore()
    if changed:
        says = f"a forward call in eval mode changes {', '.join(changed[:3])}: the network is another one afterwards"
        return Finding("weights", INVALID, None, None, says)
    return Finding("weights", OK, None, None, "a forward call changes no weight and no buffer")


def normalisation(lab: Lab, dataset: Dataset, trained: bool) -> Finding:
    """Whether the network wants pixels: guessed by its accuracy on them, normalised, and times 255."""
    check = "normalisation"
    if not trained:
        return Finding(
            check, OK, None, _GAP, "not measured: it is guessed from a trained network's accuracy (--weights)"
        )
    if dataset.frames is not None:
        return Finding(check, OK, None, _GAP, "not measured: these are frames of event counts")
    mean, std = (torch.tensor(v, device=lab.device).view(-1, 1, 1) for v in (dataset.mean, dataset.std))
    inputs = {"(x - mean) / std of the training images": (lab.x - mean) / std, "pixels times 255": lab.x * 255}
    pixels = _accuracy(lab, lab.x)
    found = {name: _accuracy(lab, x) for name, x in inputs.items()}
    best = max(found, key=lambda name: found[name])
    gap = found[best] - pixels
    if gap > _GAP:
        far = pixels < _FAR * found[best]
        says = (
            f"accuracy is {found[best]:.1%} on {best} and {pixels:.1%} on pixels in [0, 1]: the network "
            f"{'was' if far else 'may have been'} trained on those; if so, normalise inside its builder, which is "
            "given mean and std if it has such arguments"
        )
        return Finding(check, INVALID if far else NOTE, gap, _GAP, says)
    says = f"accuracy {pixels:.1%} on pixels in [0, 1]; {found[best]:.1%} on {best}"
    return Finding(check, OK, gap, _GAP, says)


def accuracy(lab: Lab, trained: bool) -> Finding:
    """Clean accuracy, which chance would also reach."""
    value = _accuracy(lab, lab.x)
    if trained and value <= 1.5 / lab.classes:
        says = f"clean accuracy {value:.1%} is chance: are these the weights, labels and number of time steps?"
        return Finding("accuracy", NOTE, value, None, says)
    return Finding("accuracy", OK, value, None, f"clean accuracy {value:.1%}" + ("" if trained else ", untrained"))


def _accuracy(lab: Lab, x: Tensor) -> float:
    return float((lab.logits(x).argmax(1) == lab.y).double().mean())
