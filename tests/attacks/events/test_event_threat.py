"""The threat model on events: what it allows, how it is written, what edits and the lens do."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attacks.events.edits import Edits
from attacks.events.lens import Lens
from attacks.events.threat import EventThreat, read_rules
from bench.data.dataset import pixels
from events import Framing, Recording, Sensor

SENSOR = Sensor(4, 6)


def recording(n: int, seed: int = 0, span: int = 20) -> Recording:
    draw = np.random.default_rng(seed)
    t = np.sort(draw.integers(0, span, n))
    return Recording(draw.integers(0, 6, n), draw.integers(0, 4, n), t, draw.integers(0, 2, n), SENSOR)


def test_a_budget_is_a_share_of_the_events_rounded_down() -> None:
    threat = EventThreat(Fraction("0.05"), added=Fraction("0.02"), on=Fraction(0))
    assert [threat.edits(n) for n in (0, 19, 20, 39, 1000)] == [0, 0, 1, 1, 50]
    assert threat.bounds(1000) == (50, 20, 50, 0, 0, 50)
    assert EventThreat(Fraction(1), max_shift=1).bounds(7).shifted == 7


def test_a_bound_by_kind_is_never_more_than_the_whole() -> None:
    assert EventThreat(Fraction("0.05"), added=Fraction(3)).bounds(100).added == 5


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"eps": Fraction(-1)}, "eps is a share"),
        ({"eps": Fraction(11)}, r"\[0, 10\]"),
        ({"eps": Fraction(1), "off": Fraction(-1)}, "off is a share"),
        ({"eps": Fraction(1), "min_gap": -1}, "min_gap must be"),
        ({"eps": Fraction(1), "max_shift": 2**41}, "max_shift must be"),
        ({"eps": Fraction(1), "shifted": Fraction(1)}, "give max_shift"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, Fraction], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        EventThreat(**wrong)  # type: ignore[arg-type]


shares = st.none() | st.fractions(0, 10, max_denominator=1000)


@given(added=shares, removed=shares, on=shares, off=shares, shift=st.integers(0, 10**6), gap=st.integers(0, 10**6))
def test_rules_are_read_as_they_are_written(
    added: Fraction | None, removed: Fraction | None, on: Fraction | None, off: Fraction | None, shift: int, gap: int
) -> None:
    threat = EventThreat(Fraction(1, 7), added, removed, None, on, off, shift, gap)
    assert EventThreat(Fraction(1, 7), **read_rules(threat.rules)) == threat
    assert EventThreat(Fraction(1, 7)).rules == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("eps=1", "must be one of added"),
        ("added", "must be one of added"),
        ("added=1,added=2", "twice"),
        ("added=much", "share of the events"),
        ("added=1/0", "share of the events"),
        ("min_gap=0.5", "whole microseconds"),
    ],
)
def test_rules_that_cannot_be_read_are_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_rules(text)


@given(n=st.integers(0, 30), seed=st.integers(0, 100))
def test_no_edits_leave_a_recording_as_it_is(n: int, seed: int) -> None:
    original = recording(n, seed)
    assert Edits.none(original).apply(original) == original


def test_new_events_come_last_in_their_microsecond_and_kept_ones_stay_in_order() -> None:
    original = Recording([0, 1, 2, 3], [0, 0, 0, 0], [5, 5, 5, 9], [1, 0, 1, 0], SENSOR)
    edits = Edits(
        np.array([False, True, False, False]),
        np.array([5, 5, 5, 7]),
        np.array([4, 5]),
        np.array([1, 2]),
        np.array([0, 1]),
        np.array([5, 0]),
    )
    edited = edits.apply(original)
    assert edited == Recording([5, 0, 2, 4, 3], [2, 0, 0, 1, 0], [0, 5, 5, 5, 7], [1, 1, 1, 0, 0], SENSOR)


def test_edits_of_another_recording_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit a recording of 4"):
        Edits.none(recording(3)).apply(recording(4))


@settings(max_examples=30)
@given(n=st.integers(0, 60), by=st.sampled_from(["number", "time"]), T=st.integers(1, 5), scale=st.integers(1, 9))
def test_the_lens_shows_what_a_dataset_loads(n: int, by: str, T: int, scale: int) -> None:
    framing = Framing(T, by, 2, 3)
    recordings = [recording(n, seed) for seed in range(3)]
    loaded = torch.from_numpy(np.stack([framing.frames(one) for one in recordings]))
    seen = Lens(framing, scale, torch.device("cpu")).frames(recordings)
    assert torch.equal(seen, pixels(loaded, scale=scale))
    assert seen.dtype == torch.float32
