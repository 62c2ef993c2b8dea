"""Which trial wins, and whether that is luck."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.statistics import compare_pairs, wilson
from bench.store.studies import StudyRow, TrialRow
from bench.tuning.result import Found, Judged


def trial(number: int, stands: list[bool] | None, clean: float = 1.0) -> Judged:
    row = TrialRow(number, {"lr": "0.1"} if number else {}, "at", (), None if stands is not None else "diverged")
    if stands is None:
        return Judged(row)
    array = np.asarray(stands)[:, None]
    return Judged(row, wilson(float(array.sum()), len(array)), wilson(clean * len(array), len(array)), array)


def search(*trials: Judged) -> Found:
    return Found(StudyRow("key", {}, {}, (), datetime.now(UTC)), trials)


def first(right: int, n: int = 100) -> list[bool]:
    return [image < right for image in range(n)]


def test_robust_then_clean_then_age_decides() -> None:
    default, cleaner, younger = trial(0, first(50), 0.8), trial(1, first(50), 0.9), trial(2, first(50), 0.9)
    assert search(default, cleaner, younger).best is cleaner
    better = trial(3, first(51), 0.1)
    assert search(default, cleaner, better).best is better
    assert search(trial(0, None), younger).best is younger
    assert cleaner.past.value is not None and default.past.value is not None
    # Robust accuracy comes first for the sampler too: one image more outweighs any clean accuracy.
    more = trial(3, first(51), 0.0).past.value
    assert more is not None and default.past.value < cleaner.past.value < more
    assert trial(4, None).past.value is None


@settings(deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=20, max_size=20), min_size=1, max_size=8))
def test_the_best_is_never_below_the_default_and_p_pays_for_every_setting(rows: list[list[bool]]) -> None:
    found = search(*(trial(number, row) for number, row in enumerate(rows)))
    assert found.best is not None and found.best.order >= found.trials[0].order
    paired = found.against_default
    if found.best is found.trials[0]:
        assert paired is None and found.says == "no setting tried is better than the default"
        return
    assert paired is not None and paired.difference >= 0
    plain = compare_pairs(np.asarray(rows[found.best.trial.number], float), np.asarray(rows[0], float)).p
    assert paired.p == pytest.approx(min(1.0, plain * (len(rows) - 1)))


def test_a_difference_that_one_test_would_call_real_is_luck_among_many() -> None:
    default, best = trial(0, first(50)), trial(1, first(57))
    assert search(default, best).says.startswith("better than the default: +7.0 points [")
    others = [trial(number, first(10)) for number in range(2, 20)]
    assert search(default, best, *others).says.startswith("not distinguishable from the default: +7.0 points [")


def test_without_a_default_there_is_nothing_to_compare_with() -> None:
    assert search(trial(0, None), trial(1, first(9))).says == "the default failed, so there is nothing to compare with"
    assert search(trial(0, None)).says == "every trial failed"


def test_a_search_that_was_cut_off_at_once_has_not_failed() -> None:
    assert search().says == "no trial is finished yet"
