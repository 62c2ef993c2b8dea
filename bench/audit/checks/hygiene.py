"""Does a forward call leave something behind, and is all randomness declared?"""

import torch
from torch import Tensor

from bench.audit.finding import INVALID, OK, Finding, limited
from bench.audit.lab import Lab
from bench.errors import BenchError
from bench.hygiene import Snapshot, check_model
from bench.runtime import isolated_generator

IMAGES = 32
_TOLERANCE = 1e-3
_SHARE = 0.1


def state(lab: Lab) -> Finding:
    """The same batch twice, split and permuted gives the same logits (`bench.hygiene.check_model`)."""
    try:
        with isolated_generator(lab.device, 0):
            check_model(lab.model, lab.x[:IMAGES], lab.classes)
    except BenchError as error:
        return Finding("state", INVALID, 1.0, _SHARE, str(error))
    return Finding("state", OK, 0.0, _SHARE, "the same batch twice, split and permuted gives the same logits")


def after_exception(lab: Lab) -> Finding:
    """A forward call that breaks off in the middle, as when memory runs out, leaves the next one as it was."""
    before = lab.logits()
    snapshot = Snapshot(lab.model)
    inner = [module for module in lab.model.modules() if not list(module.children())]

    def stop(*_: object) -> None:
        raise _StopError

    hook = inner[len(inner) // 2].register_forward_hook(stop)
    try:
        lab.logits(lab.x.flip(0))
    except _StopError:
        pass
    finally:
        hook.remove()
    changed = snapshot.restore()
    share = _differing(before, lab.logits())
    wrong = "a forward call that was interrupted changes the logits of the next one"
    if changed:
        return Finding("after exception", INVALID, 1.0, _SHARE, f"{wrong}: it changed {', '.join(changed[:2])}")
    return limited("after exception", share, _SHARE, "an interrupted forward call leaves no trace", wrong, INVALID)


def undeclared_noise(lab: Lab) -> Finding:
    """Randomness from torch's own generator, which neither `stochastic` nor the noise stream knows of."""
    with isolated_generator(lab.device, 0):
        first, second = lab.logits(), lab.logits()
    with isolated_generator(lab.device, 0):
        again = lab.logits()
    # A leaking state differs with the generator put back, too.
    random = _differing(first, again) <= _SHARE
    share = _differing(first, second) if random else 0.0
    wrong = "two calls with the same declared noise differ: give the random module `stochastic = True` and draw its "
    wrong += "noise from models.random.active_noise_stream"
    fine = "no randomness beyond the declared noise" if lab.stochastic else "deterministic"
    return limited("undeclared noise", share, _SHARE, fine, wrong, INVALID)


class _StopError(Exception):
    pass


def _differing(a: Tensor, b: Tensor) -> float:
    """Share of images whose logits differ beyond rounding."""
    same = (a - b).abs().amax(1) <= _TOLERANCE * (1 + a.abs().amax(1))
    same |= torch.isnan(a).any(1) & torch.isnan(b).any(1)
    return float((~same).double().mean())
