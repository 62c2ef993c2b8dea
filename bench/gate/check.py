"""The verdict on a set of measurements against a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from attacks.threat import format_eps
from bench.audit.cell import judge_cell
from bench.errors import BenchError
from bench.exchange.bundle import Bundle, Parcel
from bench.gate.match import MATCHED, MISSING, Match, find_counterparts, is_own
from bench.outcome import Outcome
from bench.statistics import Alternative, Paired, compare_pairs, holm
from bench.store import CellRow, Store

OK, REGRESSION, NOT_COMPARABLE, NOT_MEASURED = 0, 1, 2, 3
"""Exit codes of a check."""

LEVEL, MIN_EFFECT = 0.01, 0.01

LEAST_MOVE = 1e-3
"""By how much a margin must differ to have moved: a hundred times what rounding does where no spike changes."""

CONTRADICTION = (
    "--both-ways and --max-moved are for fixed weights, whose numbers must not rise nor margins move; a retrained "
    "network is another: leave them out, or --new-weights"
)
"""Why a check of new weights cannot ask that nothing changed."""


@dataclass(frozen=True)
class Line:
    """One comparison: a cell's robust accuracy, or a network's clean accuracy.

    Attributes:
        network, attack: what was compared; `clean` for accuracy without attack.
        key: of the baseline's cell.
        status: `OK`, or which of the exit codes this line alone would give.
        says: `ok`, `better`, `regression`, `rise` (of a check both ways), `moved` (of a check with `max_moved`),
            `suspect` (under `strict`), or why there is no comparison.
        paired: now against the baseline; None where there was no comparison.
        p: Holm's adjusted p-value for "it fell" (both ways: "it changed"), over all comparisons of the check.
        warning: something to look at that does not fail the check.
        moved: share of the images whose margin moved by `LEAST_MOVE`; None where there was no comparison.
    """

    network: str
    attack: str
    key: str
    status: int
    says: str
    paired: Paired | None = None
    p: float | None = None
    warning: str = ""
    moved: float | None = None


@dataclass(frozen=True)
class Check:
    """All comparisons, and what follows.

    Attributes:
        status: exit code: a regression counts more than what could not be compared, and that more than what was
            not measured.
        headline: the verdict in a sentence.
        lines: in the order of the baseline.
        level, min_effect, iterate, both_ways, max_moved: of the test.
    """

    status: int
    headline: str
    lines: tuple[Line, ...]
    level: float
    min_effect: float
    iterate: str
    both_ways: bool = False
    max_moved: float | None = None


@dataclass(frozen=True)
class Pair:
    """Two sets of outcomes of the same images, and what they are called.

    Attributes:
        warning: something to look at.
        suspect: the cell can be believed less than the baseline's could.
        moved: share of the images whose margin moved by `LEAST_MOVE`.
    """

    network: str
    attack: str
    key: str
    before: NDArray[np.float64]
    now: NDArray[np.float64]
    draws: tuple[int, int]
    warning: str = ""
    suspect: bool = False
    moved: float = 0.0


def run_check(
    store: Store,
    baseline: Bundle,
    *,
    level: float = LEVEL,
    min_effect: float = MIN_EFFECT,
    iterate: str = "last",
    new_weights: bool = False,
    allow_cached: bool = False,
    strict: bool = False,
    both_ways: bool = False,
    max_moved: float | None = None,
) -> Check:
    """Compare what a store holds with a baseline. Nothing is computed anew.

    For clean and for robust accuracy of every cell, an exact paired test asks whether it fell on the very same
    images; Holm's method keeps the chance of any false alarm in the whole check below `level`. A fall is a
    regression if it is significant and at least `min_effect` large.

    Args:
        store: what was measured now.
        baseline: what was measured then.
        level: chance of a false alarm, for the check as a whole.
        min_effect: smallest loss that counts, as a share of the images.
        iterate: `last` or `any`.
        new_weights: compare another network with the baseline's.
        allow_cached: accept cells that are the baseline's own rows, not measured again.
        strict: a cell that became suspect fails the check.
        both_ways: a rise fails the check as a fall does, by two-sided tests. Of fixed weights a rise is a change of the
            attack or of the model's code, an attack that became weaker for instance, and no progress.
        max_moved: a comparison fails, too, where the margins of more than this share of the images moved. Of fixed
            weights and noise that is counted, not drawn, margins repeat up to rounding, so that this sees changes of
            code that happen to leave rates as they were. No test but a tolerance. None: margins are not looked at.

    Raises:
        BenchError: `both_ways` or `max_moved` together with `new_weights`, of which a rise may be progress.
    """
    if (both_ways or max_moved is not None) and new_weights:
        raise BenchError(CONTRADICTION)
    rows, hashes = store.cells(), {key: str(weights["sha256"]) for key, weights in store.trained().items()}
    done = [row for row in rows if row.summary is not None]
    lines: list[Line] = []
    pairs: list[Pair] = []
    seen: set[tuple[object, ...]] = set()
    matches = find_counterparts(baseline, done, hashes, new_weights=new_weights)
    for parcel, match in zip(baseline.cells, matches, strict=True):
        obstacle = _obstacle(parcel, match, rows, allow_cached)
        if obstacle is not None:
            lines.append(obstacle)
            continue
        assert match.row is not None
        outcome = store.outcome(match.row.key)
        assert outcome is not None
        network = (parcel.weights_key, match.row.weights_key, parcel.spec["test_hash"], outcome.clean.shape)
        if network not in seen:
            seen.add(network)
            pairs.append(_pair(parcel, match.row, outcome, None))
        if parcel.spec["attack"]["family"] != "clean":
            pairs.append(_pair(parcel, match.row, outcome, iterate))
    lines = [*judge(pairs, level, min_effect, strict, both_ways, max_moved), *lines]
    status, headline = _sum_up(lines, level, min_effect, both_ways)
    return Check(status, headline, tuple(lines), level, min_effect, iterate, both_ways, max_moved)


def judge(
    pairs: Sequence[Pair],
    level: float,
    min_effect: float,
    strict: bool = False,
    both_ways: bool = False,
    max_moved: float | None = None,
) -> list[Line]:
    """Test a family of comparisons; see `run_check`."""
    side: Alternative = "two-sided" if both_ways else "less"
    compared = [compare_pairs(pair.now, pair.before, pair.draws, side) for pair in pairs]
    adjusted = holm([paired.p for paired in compared])
    lines = []
    for pair, paired, p in zip(pairs, compared, adjusted, strict=True):
        fell = is_fall(p, paired.difference, level, min_effect)
        rose = both_ways and is_fall(p, -paired.difference, level, min_effect)
        moved = max_moved is not None and pair.moved > max_moved
        faults = {"regression": fell, "rise": rose, "moved": moved, "suspect": strict and pair.suspect}
        says = next((name for name, found in faults.items() if found), "better" if paired.difference > 0 else "ok")
        status = REGRESSION if says in faults else OK
        lines.append(Line(pair.network, pair.attack, pair.key, status, says, paired, p, pair.warning, pair.moved))
    return lines


def is_fall(p: float, difference: float, level: float, min_effect: float) -> bool:
    """Whether a comparison is a regression: beyond chance, and large enough to matter.

    Args:
        p: adjusted, of "it fell", or of "it changed".
        difference: now - before, a share.
        level, min_effect: see `run_check`.
    """
    return p < level and -difference >= min_effect


def _pair(parcel: Parcel, row: CellRow, outcome: Outcome, iterate: str | None) -> Pair:
    draws = (outcome.clean.shape[1], parcel.outcome.clean.shape[1])
    network = _name(parcel)
    if iterate is None:
        before, now = (o.clean.mean(1) for o in (parcel.outcome, outcome))
        moved = _moved(parcel.outcome.margin_clean, outcome.margin_clean)
        return Pair(network, "clean", parcel.key, before, now, draws, moved=moved)
    warning, suspect = "", row.verdict != "ok"
    if suspect:
        suspect = _verdict(parcel) == "ok"
        warning = f"{'now' if suspect else 'still'} {row.verdict}, see bench show {row.key[:12]}"
    before, now = (getattr(o, f"robust_{iterate}") for o in (parcel.outcome, outcome))
    moved = _moved(parcel.outcome.margin_last, outcome.margin_last)
    return Pair(network, _attack(parcel), parcel.key, before, now, draws, warning, suspect, moved)


def _moved(before: NDArray[np.float32], now: NDArray[np.float32]) -> float:
    # Written so that a margin which is no number has moved.
    return float(np.mean(~(np.abs(now - before) <= LEAST_MOVE)))


def _verdict(parcel: Parcel) -> str:
    return judge_cell(parcel.outcome, parcel.spec["model"]["num_classes"], gradients=parcel.backwards > 0).verdict


def _name(parcel: Parcel) -> str:
    labels: Mapping[str, object] = parcel.labels
    return f"{labels['defense']} / {labels['dataset']} / {labels['model']} / seed {labels['seed']}"


def _attack(parcel: Parcel) -> str:
    if parcel.spec["attack"]["family"] == "clean":
        return "clean"
    return f"{parcel.labels['attack']} {parcel.labels['norm']} {format_eps(Fraction(parcel.labels['eps']))}"


def _obstacle(parcel: Parcel, match: Match, rows: Sequence[CellRow], allow_cached: bool) -> Line | None:
    """The line that says why there is no comparison; None where there is one."""
    line = Line(_name(parcel), _attack(parcel), parcel.key, NOT_MEASURED, match.why)
    if match.kind == MISSING:
        failed = [row for row in rows if row.key == parcel.key and row.status != "done"]
        why = f"{failed[0].status}: {failed[0].error or 'not finished; run it again'}" if failed else match.why
        return replace(line, says=why)
    if match.kind != MATCHED:
        return replace(line, status=NOT_COMPARABLE)
    assert match.row is not None
    if _verdict(parcel) == "invalid":
        return replace(line, status=NOT_COMPARABLE, says="the baseline's own measurement is invalid; save another")
    if match.row.verdict == "invalid":
        return replace(line, says=f"the measurement is invalid, see bench show {match.row.key[:12]}")
    if is_own(match.row, parcel) and not allow_cached:
        says = "this is the baseline's own measurement, nothing was measured anew (--allow-cached accepts it)"
        return replace(line, says=says)
    return None


def _sum_up(lines: Sequence[Line], level: float, min_effect: float, both_ways: bool = False) -> tuple[int, str]:
    compared = [line for line in lines if line.paired is not None]
    fallen = [line for line in lines if line.says == "regression"]
    risen = [line for line in lines if line.says == "rise"]
    moved = [line for line in lines if line.says == "moved"]
    doubtful = [line for line in lines if line.says == "suspect"]
    other = [line for line in lines if line.status == NOT_COMPARABLE]
    lacking = [line for line in lines if line.status == NOT_MEASURED]
    behind = "".join(
        f"; {len(group)} {what}"
        for group, what in (
            (risen if fallen else [], "rose"),
            (moved if fallen or risen else [], "moved"),
            (doubtful, "became suspect"),
            (other, "not comparable"),
            (lacking, "not measured"),
        )
        if group
    )
    if fallen:
        return REGRESSION, (
            f"Robustness fell: {len(fallen)} of {len(compared)} comparisons regressed, the most "
            f"{_most(fallen)}{behind}."
        )
    if risen:
        return REGRESSION, (
            f"Robustness rose without new weights: {len(risen)} of {len(compared)} comparisons, the most "
            f"{_most(risen)}: the attack became weaker, or the code of the model changed{behind}."
        )
    if moved:
        most = max(moved, key=lambda line: line.moved or 0.0)
        return REGRESSION, (
            f"Rates stand, but something changed: margins moved in {len(moved)} of {len(compared)} comparisons, "
            f"the most {most.network} under {most.attack} on {100 * (most.moved or 0.0):.1f}% of the images{behind}."
        )
    if doubtful:
        first = doubtful[0]
        return REGRESSION, f"No fall, but {first.network} under {first.attack} can be believed less{behind}."
    if other:
        return NOT_COMPARABLE, f"Not comparable with the baseline: {other[0].says}; {len(other)} of {len(lines)} lines."
    if lacking:
        return NOT_MEASURED, f"No verdict: {lacking[0].says}; {len(lacking)} of {len(lines)} lines not measured."
    if not compared:
        return NOT_MEASURED, "Nothing was measured: the baseline holds no cell."
    return OK, (
        f"No {'change' if both_ways else 'regression'}: none of {len(compared)} comparisons lost "
        f"{'or gained ' * both_ways}{100 * min_effect:g} points or more beyond chance "
        f"(level {level:g} for all together)."
    )


def _most(lines: Sequence[Line]) -> str:
    """The largest of several changes in words."""
    changes = [(abs(line.paired.difference) if line.paired else 0.0, line) for line in lines]
    change, line = max(changes, key=lambda pair: pair[0])
    return f"{line.network} under {line.attack} by {100 * change:.1f} points"
