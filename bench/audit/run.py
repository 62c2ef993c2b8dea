"""The audits of a plan's networks: from the store, or run now."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from attacks.threat import continuous
from bench.audit.checks import CHECKS
from bench.audit.join import AuditRow
from bench.audit.network import audit_network
from bench.audit.spec import AuditSpec
from bench.errors import describe
from bench.plan import Plan, TrainJob
from bench.provenance import provenance
from bench.scheduler import Listener, network
from bench.store import Store


class AuditListener(Listener):
    """What a display may want to hear while audits run; does nothing by itself."""

    def auditing(self, job: TrainJob, spec: AuditSpec, checks: int) -> None: ...

    def checking(self, check: str) -> None: ...

    def audited(self) -> None: ...


@dataclass(frozen=True)
class Audited:
    """One network's audit, and whether it was answered from the store."""

    job: TrainJob
    spec: AuditSpec
    row: AuditRow
    stored: bool


@dataclass
class AuditReport:
    """What came of the audits of a plan, in its order, and what failed."""

    audits: list[Audited] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def audit_plan(
    plan: Plan, store: Store, checkpoints: Path, device: torch.device, listener: AuditListener, n: int
) -> AuditReport:
    """Audit every network of a plan under each of its budgets.

    A finished audit of the same key is answered from the store. A network that cannot be trained is recorded and
    does not stop the others.

    Args:
        plan: its networks, norm and budgets count; its attacks do not.
        store: where audits go.
        checkpoints: folder of trained weights.
        device: where to compute.
        listener: told what happens.
        n: the first so many test images.
    """
    report = AuditReport()
    run = 0
    for job in plan.jobs:
        specs = audit_specs(job, n)
        missing = [spec for spec in specs if store.audit(spec) is None]
        if missing:
            run = run or store.begin_run(provenance(device))
            try:
                model = network(job, plan.dataset, store, checkpoints, device, run, listener, checked=False)
            except Exception as error:
                # Defenses and models may be anyone's code.
                what = f"{job.spec.defense_name} (seed {job.spec.seed})"
                listener.failed(what, describe(error))
                report.failures.append(f"{what}: {describe(error)}")
                continue
            # Audits that were imported may turn out to be another network's, now that it was trained here.
            missing = [spec for spec in specs if store.audit(spec) is None]
            for spec in missing:
                listener.auditing(job, spec, len(CHECKS))
                found = audit_network(model, plan.dataset, spec, device, listener.checking)
                store.record_audit(spec, found.verdict, found.findings, found.seconds, run)
                listener.audited()
        for spec in specs:
            row = store.audit(spec)
            assert row is not None
            report.audits.append(Audited(job, spec, row, spec not in missing))
    return report


def audit_specs(job: TrainJob, n: int) -> Sequence[AuditSpec]:
    """The audits of one network: one for each budget of its cells.

    An audit moves between whole counts even where the cells do not: half a budget may be less than one, and signs of
    a masked gradient are the network's.
    """
    cells = {cell.attack.eps: cell for cell in job.cells}
    return [
        AuditSpec(
            job.weights_key, cell.model, cell.test_hash, n, continuous(cell.attack.norm), eps, high=cell.attack.high
        )
        for eps, cell in sorted(cells.items())
    ]
