"""All self-tests in order."""

from collections.abc import Iterator
from pathlib import Path

import torch

from bench.doctor.attacks import attack_findings
from bench.doctor.finding import Finding
from bench.doctor.gradients import gradient_findings
from bench.doctor.machine import machine_findings
from bench.doctor.storage import storage_findings


def findings(device: torch.device, results: Path) -> Iterator[list[Finding]]:
    """Self-test everything that is registered, on one device.

    Args:
        device: where to compute; prepared by `bench.runtime.pick_device`.
        results: folder where results would go.

    Yields:
        the findings of one thing, as soon as they are known.
    """
    for tests in (machine_findings(), gradient_findings(), attack_findings(), storage_findings(results)):
        for test in tests:
            yield list(test(device))
