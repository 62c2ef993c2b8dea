"""Runs a search: trial by trial through the scheduler and the store that `bench run` has."""

from collections.abc import Callable
from dataclasses import dataclass

from bench.errors import BenchError, tells_of_memory
from bench.plan import Plan, together
from bench.scheduler import Report
from bench.scheduler.dispatch import KILLED
from bench.spec import key_of
from bench.store import Store
from bench.store.studies import Studies, StudyRow, TrialRow
from bench.tuning.result import Found, found, judged
from bench.tuning.sampler import batch_of, suggested
from bench.tuning.study import Search

RunBatch = Callable[[Search, range, Plan], Report]
"""Computes what the store lacks of some trials: the search, their numbers, and their plan."""


@dataclass(frozen=True)
class _Drawn:
    number: int
    values: dict[str, str]
    plan: Plan | None
    defense: str
    error: str | None = None


def tune(search: Search, budget: int, store: Store, run: int, compute: RunBatch) -> tuple[Found, str]:
    """Make the trials of a search that are not stored yet.

    Every trial is kept when its batch ends, and its cells as they are measured: whoever comes back after an
    interruption draws the same trials and computes what is missing.

    Args:
        search: from `searches`.
        budget: how many trials, the default among them; failed ones count.
        store: where trials and cells go.
        run: of this invocation, see `Store.begin_run`.
        compute: does the work.

    Returns:
        what was found, and why it ended before the budget was spent: empty if it did not.

    Raises:
        BenchError: the default cannot be planned, workers were killed or ran out of memory at a trial, or the store
            can no longer be written.
    """
    studies = Studies(store)
    studies.begin(search.key, search.settings, search.space.as_json(), run)
    start, stopped = 0, ""
    while start < budget and not stopped:
        batch = batch_of(start)
        batch = range(batch.start, min(batch.stop, budget))
        start = batch.stop
        known = studies.trials(search.key)
        missing = sorted(set(batch) - {trial.number for trial in known})
        if not missing:
            continue
        past = [judged(store, trial).past for trial in known if trial.number < batch.start]
        drawn = [_draw(search, number, suggested(search.space, search.key, number, past)) for number in missing]
        plans = [one.plan for one in drawn if one.plan is not None]
        if plans:
            stopped = compute(search, range(missing[0], missing[-1] + 1), together(plans).known_to(store)).stopped
        for one in drawn:
            row = _row(studies, one, stopped=bool(stopped))
            if row is not None:
                studies.add(search.key, row)
    return found(store, study_of(store, search.key), budget), stopped


def study_of(store: Store, key: str) -> StudyRow:
    """The stored search of that key.

    Raises:
        BenchError: there is none.
    """
    for study in Studies(store).all():
        if study.key == key:
            return study
    raise BenchError(f"no study {key[:12]} in {store.target}; see: bench tune --show")


def _draw(search: Search, number: int, values: dict[str, str]) -> _Drawn:
    defense = search.space.defense_at(values)
    try:
        return _Drawn(number, values, search.plan(values), defense)
    except BenchError as error:
        if number == 0:
            raise
        # Some values of one parameter may contradict those of another: a spent trial, like one that diverges.
        return _Drawn(number, values, None, defense, str(error))


def _row(studies: Studies, drawn: _Drawn, *, stopped: bool) -> TrialRow | None:
    """A trial as it is kept; None where it was not made to its end."""
    if drawn.plan is None:
        return TrialRow(drawn.number, drawn.values, drawn.defense, (), drawn.error)
    keys = [key_of(cell) for cell in drawn.plan.cells]
    rows = studies.store.done(keys)
    invalid = [key for key, row in rows.items() if row.verdict == "invalid"]
    error = f"a cell is invalid; see bench show {invalid[0][:12]}" if invalid else None
    if len(rows) < len(keys):
        error = studies.why([*keys, *(job.weights_key for job in drawn.plan.jobs)])
        if error is None and stopped:
            return None
        if error is not None and tells_of_memory(error):
            error += "; use fewer --workers, a smaller --batch-size, or a larger machine, and give the command again"
        elif error is not None and KILLED not in error:
            return TrialRow(drawn.number, drawn.values, drawn.defense, tuple(keys), error)
        # Not the setting's fault, so it is not spent.
        raise BenchError(f"trial {drawn.number} was not finished: {error or 'no reason is stored'}")
    return TrialRow(drawn.number, drawn.values, drawn.defense, tuple(keys), error)
