"""Every contest on every network, row by row."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bench.data.dataset import Dataset
from bench.peers.contest import PEERS, Contest
from bench.peers.measure import Measured, Subject, measure_ours, measure_theirs
from bench.plan import Plan, TrainJob
from bench.resolve import parse_attack, threat_of
from bench.spec import CellSpec
from bench.statistics import Rate, mcnemar, wilson
from models.neurons import is_stochastic
from models.random import derive_key


@dataclass(frozen=True)
class Row:
    """One attack in one contest.

    Attributes:
        by: `ours`, or the library.
        attack: our attack's name; the contest's for others.
        measured: what came of it.
        fewer, more: images that stand less often, and more often, than under our first attack.
        p: two-sided exact p-value of that difference, McNemar's test; nan for our first attack.
    """

    by: str
    attack: str
    measured: Measured
    fewer: int = 0
    more: int = 0
    p: float = float("nan")

    @property
    def robust(self) -> Rate:
        """Robust accuracy."""
        return wilson(float(self.measured.robust.sum()), len(self.measured.robust))


@dataclass(frozen=True)
class Match:
    """One contest on one network.

    Attributes:
        defense: the network's.
        contest: what was compared.
        cell: our first attack's specification.
        n: images.
        rows: ours first.
        skipped: why there are no rows.
    """

    defense: str
    contest: Contest
    cell: CellSpec
    n: int
    rows: tuple[Row, ...]
    skipped: str = ""


def matches(
    plan: Plan,
    contests: Sequence[Contest],
    network: Callable[[TrainJob], nn.Module],
    device: torch.device,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[Match]:
    """Hold every contest on every network of a plan.

    Args:
        plan: made for our attacks of all contests.
        contests: what to compare.
        network: gives a job's trained network, on `device`.
        device: where to compute.
        tell: called with the name of what begins.
    """
    for job in plan.jobs:
        model = network(job)
        subject = _subject(model, plan.dataset, job, device)
        for contest in contests:
            cells = [_cell_of(job, name) for name in contest.ours]
            if contest.deterministic_only and is_stochastic(model):
                why = "its decisions rest on single forward passes, so noise makes them luck"
                yield Match(job.spec.defense_name, contest, cells[0], 0, (), why)
                continue
            yield _match(job, contest, cells, subject, tell)


def _match(
    job: TrainJob, contest: Contest, cells: list[CellSpec], subject: Subject, tell: Callable[[str], None]
) -> Match:
    where = f"{job.spec.defense_name}, {contest.name}"
    rows: list[Row] = []
    for cell in cells:
        tell(f"{where}: ours ({cell.attack.name})")
        rows.append(_row("ours", cell.attack.name, measure_ours(subject, cell), rows))
    for peer in PEERS:
        if contest.kind in peer.attacks and peer.installed:
            tell(f"{where}: {peer.name}")
            refused = peer.refusal(subject.x, threat_of(cells[0].attack))
            found = (
                Measured(error=refused, refused=True)
                if refused
                else measure_theirs(subject, cells[0], peer.attacks[contest.kind], contest.steps)
            )
            rows.append(_row(peer.name, contest.name, found, rows))
    return Match(job.spec.defense_name, contest, cells[0], len(subject.x), tuple(rows))


def _row(by: str, attack: str, measured: Measured, before: Sequence[Row]) -> Row:
    if not before or measured.error or before[0].measured.error:
        return Row(by, attack, measured)
    fewer, more, p = paired(before[0].measured.robust, measured.robust)
    return Row(by, attack, measured, fewer, more, p)


def paired(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> tuple[int, int, float]:
    """Images that stand less often under theirs, more often under theirs, and the exact two-sided p-value.

    On a deterministic network an image stands or falls, and this is McNemar's test. On a noisy one it stands in a
    share of the scoring draws, the same draws for both, and this is the sign test on the images that differ.
    """
    fewer, more = int((theirs < ours).sum()), int((theirs > ours).sum())
    return fewer, more, min(1.0, 2 * mcnemar(max(fewer, more), min(fewer, more)))


def _subject(model: nn.Module, dataset: Dataset, job: TrainJob, device: torch.device) -> Subject:
    cell = job.cells[0]
    x = dataset.pixels(dataset.x_test[: cell.n], device)
    y = dataset.y_test[: cell.n].to(device)
    score_key = derive_key(cell.weights, cell.test_hash, "scoring noise")
    return Subject(model, x, y, dataset.num_classes, score_key, cell.draws)


def _cell_of(job: TrainJob, name: str) -> CellSpec:
    """The job's cell of one of our attacks; options such as --alpha may have been written into its name."""
    asked = parse_attack(name, "0")

    def same(cell: CellSpec) -> bool:
        attack = cell.attack
        return (attack.family, attack.steps, attack.surrogate) == (asked.family, asked.steps, asked.surrogate)

    return next(cell for cell in job.cells if same(cell))


def missing_peers() -> list[str]:
    """A line for each library that is not installed."""
    return [f"{peer.name}: not installed; pip install {peer.package}" for peer in PEERS if not peer.installed]


def releases() -> dict[str, str]:
    """Name and version of each installed library."""
    return {peer.name: peer.release for peer in PEERS if peer.installed}
