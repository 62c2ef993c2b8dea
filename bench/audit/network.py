"""The audit of one network: every check, and the verdict they give together."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from bench.audit.checks import CHECKS
from bench.audit.finding import SUSPECT, Finding, verdict_of
from bench.audit.lab import Lab
from bench.audit.spec import AuditSpec
from bench.data.dataset import Dataset
from bench.errors import describe

IMAGES = 128
"""Images of an audit if not said otherwise: a network for digits then takes about a minute of one processor core."""

FEWEST = 8
"""Fewer images say nothing."""


@dataclass(frozen=True)
class Audit:
    """What the checks of one network found, in their order, and how long it took."""

    verdict: str
    findings: tuple[Finding, ...]
    seconds: float


def audit_network(
    model: nn.Module,
    dataset: Dataset,
    spec: AuditSpec,
    device: torch.device,
    heard: Callable[[str], None] = lambda check: None,
    tick: Callable[[], None] = lambda: None,
) -> Audit:
    """Run every check on one network.

    Cost: some 400 forward and backward passes an image, 600 for a stochastic network.

    Args:
        model: the network, on `device`; left as it was.
        dataset: where its test images are.
        spec: what is audited: how many of them, norm, eps.
        device: where to compute.
        heard: told the name of each check before it runs.
        tick: called after each attack.
    """
    began = time.perf_counter()
    lab = Lab(model, dataset, spec, device, tick)
    findings = []
    for name, check in CHECKS.items():
        heard(name)
        findings.append(_run(name, check, lab))
    return Audit(verdict_of(findings), tuple(findings), time.perf_counter() - began)


def _run(name: str, check: Callable[[Lab], Finding], lab: Lab) -> Finding:
    try:
        return check(lab)
    except Exception as error:
        # A model may be anyone's code. What cannot be checked cannot be believed.
        return Finding(name, SUSPECT, None, None, f"could not be checked: {describe(error)}")
