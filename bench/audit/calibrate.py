"""How often the audit catches known faults, and how often it doubts sound networks."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from bench.audit.checks import CHECKS
from bench.audit.finding import NOTE, OK
from bench.audit.fixtures import FIXTURES, Fixture, audit_spec, trained_base
from bench.audit.network import Audit, audit_network
from bench.data.dataset import Dataset
from bench.statistics import Rate, wilson

IMAGES = 96


@dataclass(frozen=True)
class Tried:
    """What came of one fixture over all seeds.

    Attributes:
        fixture: the network.
        meant: seeds in which a check that is meant for its fault caught it; for a sound one, seeds that pass.
        alarms: in how many seeds each check alarmed.
        runs: finished audits times checks; alarms of a sound network are false ones out of so many.
    """

    fixture: Fixture
    meant: Rate
    alarms: dict[str, int]
    runs: int


def calibrate(
    dataset: Dataset,
    seeds: Sequence[int],
    n: int = IMAGES,
    heard: Callable[[str], None] = lambda what: None,
    fixtures: Sequence[Fixture] = FIXTURES,
) -> list[Tried]:
    """Audit every fixture, built around networks trained with each seed.

    Args:
        dataset: digits.
        seeds: of the training.
        n: images of each audit.
        heard: told what is audited before it is.
    """
    audits: dict[str, list[Audit]] = {fixture.name: [] for fixture in fixtures}
    device = torch.device("cpu")
    for seed in seeds:
        bases: dict[str, torch.nn.Module] = {}
        for fixture in fixtures:
            heard(f"seed {seed}, {fixture.name}")
            if fixture.base not in bases:
                bases[fixture.base] = trained_base(dataset, fixture.base, seed)
            model = fixture.build(copy.deepcopy(bases[fixture.base]))
            spec = audit_spec(dataset, fixture.base, seed, n)
            audits[fixture.name].append(audit_network(model, dataset, spec, device))
    return [tried(fixture, audits[fixture.name]) for fixture in fixtures]


def tried(fixture: Fixture, audits: Sequence[Audit]) -> Tried:
    """Count what the audits of one fixture found."""
    alarms: Counter[str] = Counter()
    met = 0
    for audit in audits:
        caught = {finding.check for finding in audit.findings if finding.verdict not in (OK, NOTE)}
        alarms.update(caught)
        met += bool(caught & set(fixture.caught_by)) if fixture.caught_by else not caught
    return Tried(fixture, wilson(met, len(audits)), dict(alarms.most_common()), len(audits) * len(CHECKS))


def false_alarms(results: Sequence[Tried]) -> Rate:
    """Share of a sound network's checks that alarm."""
    sound = [result for result in results if not result.fixture.caught_by]
    return wilson(sum(sum(result.alarms.values()) for result in sound), sum(result.runs for result in sound))
