"""Attacks beside the truth: how much robust accuracy each of them wrongly leaves standing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import torch
from torch import nn

from bench.checkpoint import load_into, load_tensors
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.names import parse_eps_text
from bench.outcome import Flag, Outcome
from bench.plan import Plan, TrainJob
from bench.spec import CellSpec, key_of
from bench.store import Store
from bench.training import build_without_rng, hash_of, load_trained
from bench.truth.attacked import attack_cells, cells_of, quiet
from bench.truth.cache import Truth, TruthSpec, find_truth
from bench.truth.exact import BROKEN, ROBUST, Limits, Verdict
from bench.truth.network import network_of, noise_off
from models.neurons import is_stochastic


@dataclass(frozen=True)
class Attacked:
    """One attack beside the truth; counts of images.

    Attributes:
        name: the attack.
        key: of its cell.
        last, any: right without and under attack, for the last iterate and for the strongest one visited as well.
        contradictions: images that the attack broke and the enumeration proved robust: one of the two is wrong.
        invalid: images whose proposal left the ball or the box, or gave NaN; such a cell proves nothing.
        error: why it could not be run.
    """

    name: str
    key: str
    last: int = 0
    any: int = 0
    contradictions: tuple[int, ...] = ()
    invalid: int = 0
    error: str = ""


@dataclass(frozen=True)
class Comparison:
    """One network at one eps.

    Attributes:
        n: images.
        clean: right without attack.
        robust: proven robust; the lower bound of the robust images.
        broken: with a verified witness; n - broken is the upper bound.
        noisy: whether the network was trained with noise, which is off here.
        seconds: what the truth took.
        attacks: in the order asked for.
        reasons: why images are unknown, and how many each.
    """

    defense: str
    seed: int
    model: str
    dataset: str
    eps: Fraction
    n: int
    clean: int
    robust: int
    broken: int
    noisy: bool
    seconds: float
    attacks: tuple[Attacked, ...]
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def upper(self) -> int:
        """The most images that can be robust."""
        return self.n - self.broken


class Listener:
    """What a display may want to hear; does nothing by itself."""

    def truth(self, defense: str, eps: Fraction, n: int) -> None: ...

    def decided(self, count: int, verdict: Verdict | None) -> None: ...

    def attacking(self, defense: str, eps: Fraction, names: str) -> None: ...


def compare(
    plan: Plan,
    attacks: Sequence[str],
    eps: Sequence[str],
    *,
    attack_seed: int,
    limits: Limits,
    store: Store,
    run: int,
    checkpoints: Path,
    folder: Path,
    listener: Listener,
) -> list[Comparison]:
    """Find the truth about every network of a plan at every eps, and run every attack against it.

    Args:
        plan: its networks are trained and recorded in the store.
        attacks, eps: as typed.
        attack_seed: selects the attacks' random numbers.
        limits: of the enumeration.
        store: where attacks' outcomes go.
        run: id of the invocation.
        checkpoints: folder of trained weights.
        folder: where verdicts are kept.
        listener: told what happens.

    Raises:
        BenchError: a network that is not a spiking perceptron.
    """
    found = []
    refuse_frames(plan.dataset)
    for job in plan.jobs:
        model = _load(job, checkpoints)
        network_of(model)
        for text in eps:
            found.append(
                _compare(job, plan.dataset, model, attacks, text, attack_seed, limits, store, run, folder, listener)
            )
    return found


def refuse_frames(dataset: Dataset) -> None:
    """Raises BenchError where the enumeration would take every step's current for the first's."""
    if dataset.frames is not None:
        raise BenchError(f"exact robust accuracy is known for images only, and '{dataset.name}' holds frames")


def _compare(
    job: TrainJob,
    dataset: Dataset,
    model: nn.Module,
    attacks: Sequence[str],
    eps: str,
    attack_seed: int,
    limits: Limits,
    store: Store,
    run: int,
    folder: Path,
    listener: Listener,
) -> Comparison:
    defense, exact = job.spec.defense_name, Fraction(parse_eps_text(eps))
    [base, *_] = job.cells
    box = base.attack
    spec = TruthSpec(
        hash_of(model), quiet(job.spec.model), dataset.test_hash, exact, box.low, box.high,
        limits.nodes, limits.programs, limits.seconds,
    )  # fmt: skip
    listener.truth(defense, exact, base.n)
    x, y = dataset.pixels(dataset.x_test[: base.n]), dataset.y_test[: base.n]
    truth = find_truth(folder, spec, model, x, y, listener.decided)
    cells = cells_of(job, dataset, ["clean", *attacks], eps, attack_seed)
    failures = attack_cells(
        noise_off(model), dataset, cells, store, run, lambda names: listener.attacking(defense, exact, names)
    )
    if cells[0] in failures:
        raise BenchError(f"{defense}: {failures[cells[0]]}")
    clean, *attacked = [_attacked(cell, store, truth, failures) for cell in cells]
    if clean.contradictions:
        raise BenchError(
            f"{defense}: images {clean.contradictions[:5]} are proven robust and misclassified without attack: "
            "the enumeration has a bug; please report it"
        )
    reasons: dict[str, int] = {}
    for verdict in truth.verdicts:
        if verdict.reason:
            reasons[verdict.reason] = reasons.get(verdict.reason, 0) + 1
    return Comparison(
        defense, job.spec.seed, job.spec.model.name, dataset.name, exact, base.n,
        clean.last, truth.count(ROBUST), truth.count(BROKEN), is_stochastic(model), truth.seconds,
        tuple(attacked), reasons,
    )  # fmt: skip


def _attacked(cell: CellSpec, store: Store, truth: Truth, failures: dict[CellSpec, str]) -> Attacked:
    key = key_of(cell)
    if cell in failures:
        return Attacked(cell.attack.name, key, error=failures[cell])
    outcome = store.outcome(key)
    assert outcome is not None
    return judge(cell.attack.name, key, outcome, truth.verdicts)


def judge(name: str, key: str, outcome: Outcome, verdicts: Sequence[Verdict]) -> Attacked:
    """One attack's outcome beside the verdicts on the same images."""
    last, survived = outcome.robust_last > 0, outcome.robust_any > 0
    invalid = (outcome.flags & (Flag.NAN | Flag.OUTSIDE)) != 0
    proven = [verdict.status == ROBUST for verdict in verdicts]
    wrong = tuple(i for i, sure in enumerate(proven) if sure and not survived[i] and not invalid[i])
    return Attacked(name, key, int(last.sum()), int(survived.sum()), wrong, int(invalid.sum()))


def _load(job: TrainJob, checkpoints: Path) -> nn.Module:
    if job.weights_file is not None:
        tensors, _ = load_tensors(job.weights_file)
        model = build_without_rng(job.spec)
        load_into(model, tensors, job.weights_file)
        return model.eval()
    trained = load_trained(job.spec, checkpoints, torch.device("cpu"))
    if trained is None:
        raise BenchError(f"the weights of {job.spec.defense_name} are gone from '{checkpoints}'; run it again")
    return trained.model
