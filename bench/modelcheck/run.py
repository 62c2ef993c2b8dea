"""One network through all checks, those of the audit included that need no attack."""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import nn

from bench.audit.checks.gradients import blind_gradient, direction, zero_gradient
from bench.audit.checks.hygiene import after_exception, state, undeclared_noise
from bench.audit.checks.outputs import probabilities, silent
from bench.audit.finding import INVALID, NOTE, OK, SUSPECT, Finding
from bench.audit.lab import Lab
from bench.audit.spec import AuditSpec
from bench.data.dataset import Dataset
from bench.errors import describe
from bench.modelcheck import checks
from bench.spec import ModelSpec

FEWEST, IMAGES = 8, 128


def check_network(
    model: nn.Module, dataset: Dataset, spec: ModelSpec, n: int, eps: Fraction, device: torch.device, trained: bool
) -> list[Finding]:
    """Everything that can be said of a network by a few forward and backward passes.

    Args:
        model: as it would be attacked, on `device`.
        dataset: its first `n` test images are used.
        spec: what it was built from.
        n: images, at least `FEWEST`.
        eps: how far random points may lie that tell whether a gradient is blind.
        device: where to compute.
        trained: whether its weights mean something; what follows from random ones is a note and no fault.

    Returns:
        one finding for each check; after an output that is not logits, nothing more.
    """
    model.eval()
    lab = Lab(model, dataset, AuditSpec("file:", spec, dataset.test_hash, n, "linf", eps, high=dataset.high), device)
    found = [_run("called", lambda: checks.called(model)), _run("shape", lambda: _shape(lab))]
    if found[-1].verdict == INVALID:
        return found
    few = lab.x[:32]
    rest: dict[str, Callable[[], Finding]] = {
        "probabilities": lambda: _invalid(probabilities(lab)),
        "log-probabilities": lambda: checks.log_probabilities(lab.logits()),
        "eval mode": lambda: checks.modes(model, few),
        "weights": lambda: checks.untouched(model, few),
        "undeclared noise": lambda: undeclared_noise(lab),
        "state": lambda: state(lab),
        "after exception": lambda: after_exception(lab),
        "zero gradient": lambda: _forgiven(zero_gradient(lab), trained, below=0.9),
        "blind gradient": lambda: blind_gradient(lab),
        "direction": lambda: _forgiven(direction(lab), trained),
        "silent": lambda: _forgiven(silent(lab), trained),
        "normalisation": lambda: checks.normalisation(lab, dataset, trained),
        "accuracy": lambda: checks.accuracy(lab, trained),
    }
    return found + [_run(name, check) for name, check in rest.items()]


def is_fault(finding: Finding) -> bool:
    """Whether a number about such a network could not be believed."""
    return finding.verdict not in (OK, NOTE)


def _run(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except Exception as error:
        # A model may be anyone's code.
        return Finding(name, INVALID, None, None, f"the network fails here: {describe(error)}")


def _shape(lab: Lab) -> Finding:
    return checks.shape(lab.logits(), len(lab.x), lab.classes)


def _invalid(finding: Finding) -> Finding:
    verdict = INVALID if finding.verdict == SUSPECT else finding.verdict
    return Finding(finding.check, verdict, finding.value, finding.limit, finding.says)


def _forgiven(finding: Finding, trained: bool, below: float = 2.0) -> Finding:
    """Weights that were never trained may well be silent, and lead nowhere; up to a value that says more."""
    if trained or finding.verdict == OK or finding.value is None or finding.value >= below:
        return finding
    return Finding(finding.check, NOTE, finding.value, finding.limit, f"{finding.says} (untrained)")
