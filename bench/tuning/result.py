"""What a search found: its trials judged on the held-out images, the best of them, and whether that is luck."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bench.audit.finding import SUSPECT
from bench.errors import BenchError
from bench.statistics import Rate, compare_pairs, wilson
from bench.statistics.paired import Paired
from bench.store import Store
from bench.store.studies import StudyRow, TrialRow
from bench.worst import worst_of

LEVEL = 0.05
"""Above it the best is not told from the default."""


@dataclass(frozen=True)
class Past:
    """A trial as the sampler sees it.

    Attributes:
        values: by name, as written; of the default none.
        value: what it is judged by; None where it failed, which is worse than anything.
    """

    values: Mapping[str, str]
    value: float | None


@dataclass(frozen=True)
class Judged:
    """A trial with its rates on the held-out images; a failed one has none.

    Attributes:
        trial: as stored.
        robust: worst case per image over the attacks, any iterate.
        clean: accuracy without attack.
        stands: where images do under all attacks, [N, draws].
        suspect: whether the attacks may have been blinded.
    """

    trial: TrialRow
    robust: Rate | None = None
    clean: Rate | None = None
    stands: NDArray[np.bool_] | None = None
    suspect: bool = False

    @property
    def order(self) -> tuple[float, float, int]:
        """Larger is better: robust, then clean, then the one that was tried first."""
        assert self.robust is not None and self.clean is not None
        # Means of the same draws in another order differ in their last bits.
        return round(self.robust.hits, 9), round(self.clean.hits, 9), -self.trial.number

    @property
    def past(self) -> Past:
        """As the sampler sees it: robust accuracy, and between equals the clean one."""
        if self.robust is None or self.clean is None or self.stands is None:
            return Past(self.trial.values, None)
        return Past(self.trial.values, self.robust.value + self.clean.value / (2 * self.stands.size))


def judged(store: Store, trial: TrialRow) -> Judged:
    """The rates of a trial, from the outcomes of its cells.

    Raises:
        BenchError: outcomes are missing that the trial says are there.
    """
    if trial.error is not None:
        return Judged(trial)
    rows = store.done(trial.cells)
    outcomes = {key: store.outcome(key) for key in trial.cells if key in rows}
    held = [outcome for outcome in outcomes.values() if outcome is not None]
    if len(held) < len(trial.cells):
        raise BenchError(f"cells of trial {trial.number} are no longer in {store.target}; run bench tune again")
    attacked = [
        outcome
        for key, outcome in outcomes.items()
        if outcome is not None and rows[key].spec["attack"]["family"] != "clean"
    ]
    stands = worst_of(attacked, "any") if attacked else held[0].clean
    n = len(stands)
    clean = wilson(float(held[0].clean.mean(1).sum()), n)
    suspect = any(row.verdict == SUSPECT for row in rows.values())
    return Judged(trial, wilson(float(stands.mean(1).sum()), n), clean, stands, suspect)


@dataclass(frozen=True)
class Found:
    """What a search came to.

    Attributes:
        study: as stored.
        trials: of it that count, judged, by number.
    """

    study: StudyRow
    trials: tuple[Judged, ...]

    @cached_property
    def best(self) -> Judged | None:
        """The best trial; None where all failed."""
        able = [trial for trial in self.trials if trial.robust is not None]
        return max(able, key=lambda trial: trial.order) if able else None

    @cached_property
    def default(self) -> Judged | None:
        """Trial 0; None where it failed or was not made yet."""
        return next((t for t in self.trials if t.trial.number == 0 and t.robust is not None), None)

    @cached_property
    def against_default(self) -> Paired | None:
        """The best against the default on the same images; None where one of them is missing or they are one.

        The p-value is multiplied by the number of other settings (Bonferroni): the best of many is above the default
        by luck alone. None also where there are too many draws for an exact test.
        """
        best, default = self.best, self.default
        if best is None or default is None or best is default or best.stands is None or default.stands is None:
            return None
        draws = (best.stands.shape[1], default.stands.shape[1])
        try:
            paired = compare_pairs(best.stands.mean(1), default.stands.mean(1), draws)
        except BenchError:
            return None
        return paired._replace(p=min(1.0, paired.p * max(1, len(self.trials) - 1)))

    @property
    def says(self) -> str:
        """Whether the best is better than the default, in a sentence."""
        best, paired = self.best, self.against_default
        if not self.trials:
            # They are kept in batches, so an interrupted search may have none.
            return "no trial is finished yet"
        if best is None:
            return "every trial failed"
        if self.default is None:
            return "the default failed, so there is nothing to compare with"
        if best is self.default:
            return "no setting tried is better than the default"
        if paired is None:
            return "whether the best differs from the default cannot be tested: too many scoring draws"
        by = f"{100 * paired.difference:+.1f} points [{100 * paired.low:.1f}, {100 * paired.high:.1f}], "
        by += f"p = {paired.p:.2g} corrected for {len(self.trials) - 1} settings"
        if paired.p < LEVEL and paired.difference > 0:
            return f"better than the default: {by}"
        return f"not distinguishable from the default: {by}"


def found(store: Store, study: StudyRow, budget: int | None = None) -> Found:
    """A search with its trials judged.

    Args:
        store: where the outcomes are.
        study: as stored.
        budget: only the first so many trials count; all if not given.
    """
    counted: Sequence[TrialRow] = [t for t in study.trials if budget is None or t.number < budget]
    return Found(replace(study, trials=tuple(counted)), tuple(judged(store, trial) for trial in counted))
