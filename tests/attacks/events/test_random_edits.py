"""The random baseline: legal, exactly its budget, a function of the sample alone."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attacks.events.ledger import Event, Ledger
from attacks.events.lens import Lens
from attacks.events.random_edits import RANDOM_EDITS, random_edits
from attacks.events.run import margins, run_on_events
from attacks.events.threat import EventThreat
from bench.recount import recount
from events import Framing, Recording, Sensor
from models.random import CounterRNG

SENSOR = Sensor(8, 8)
LENS = Lens(Framing(3, "number", 4, 4), 2, torch.device("cpu"))


def recording(n: int, seed: int, sensor: Sensor = SENSOR, span: int = 5000) -> Recording:
    draw = np.random.default_rng(seed)
    t = np.sort(draw.integers(0, span, n))
    return Recording(
        draw.integers(0, sensor.width, n), draw.integers(0, sensor.height, n), t, draw.integers(0, 2, n), sensor
    )


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 16, 4))


def rng(*samples: int) -> CounterRNG:
    return CounterRNG(7, torch.tensor(samples))


shares = st.none() | st.sampled_from([Fraction(0), Fraction(1, 20), Fraction(1, 5)])


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 60), eps=st.sampled_from([Fraction(0), Fraction(1, 10), Fraction(1), Fraction(3)]),
    bounds=st.tuples(shares, shares, shares, shares), shift=st.sampled_from([0, 1, 300]),
    gap=st.sampled_from([0, 1, 200]), small=st.booleans(), seed=st.integers(0, 1000),
)  # fmt: skip
def test_edits_are_legal_whatever_the_rules(
    n: int, eps: Fraction, bounds: tuple[Fraction | None, ...], shift: int, gap: int, small: bool, seed: int
) -> None:
    added, removed, on, off = bounds
    threat = EventThreat(eps, added, removed, None, on, off, shift, gap)
    original = recording(n, seed, Sensor(1, 2), 40) if small else recording(n, seed)
    (edited,) = random_edits(network(), [original], torch.tensor([0]), threat, LENS, rng=rng(seed)).recordings
    assert recount(original, edited, threat).problem == ""


@pytest.mark.parametrize("shift", [0, 500])
def test_the_whole_budget_is_spent(shift: int) -> None:
    threat = EventThreat(Fraction(1, 4), max_shift=shift)
    for seed in range(20):
        original = recording(200, seed)
        (edited,) = random_edits(network(), [original], torch.tensor([0]), threat, LENS, rng=rng(seed)).recordings
        found = recount(original, edited, threat)
        assert found.problem == ""
        # Where moves are free, a removal and an addition of one pixel may happen to be one.
        assert 50 - bool(shift) * 5 <= found.added + found.removed + found.moved <= 50
        assert found.added and found.removed
        assert bool(found.moved) == bool(shift)


def test_without_a_budget_the_originals_come_back() -> None:
    originals = [recording(50, seed) for seed in range(3)]
    found = random_edits(network(), originals, torch.zeros(3).long(), EventThreat(Fraction(0)), LENS, rng=rng(0, 1, 2))
    assert list(found.recordings) == originals


def test_neither_the_batch_nor_its_order_matters() -> None:
    originals, y = [recording(80, seed) for seed in range(4)], torch.arange(4)
    threat = EventThreat(Fraction(1, 5), max_shift=100)
    model, state = network(), torch.get_rng_state()
    whole = random_edits(model, originals, y, threat, LENS, rng=rng(0, 1, 2, 3), tries=3).recordings
    back = random_edits(model, originals[::-1], y.flip(0), threat, LENS, rng=rng(3, 2, 1, 0), tries=3).recordings
    alone = [
        random_edits(model, [originals[i]], y[i : i + 1], threat, LENS, rng=rng(i), tries=3).recordings[0]
        for i in range(4)
    ]
    assert whole == back[::-1] == tuple(alone)
    assert len({one.sha256 for one in whole}) == 4
    assert torch.equal(state, torch.get_rng_state())


def test_more_tries_and_restarts_are_never_weaker() -> None:
    originals, y = [recording(80, seed) for seed in range(6)], torch.arange(6) % 4
    threat, model = EventThreat(Fraction(1, 2)), network()
    found = []
    for tries, restarts in ((1, 1), (2, 1), (8, 1), (8, 3)):
        made = run_on_events(
            RANDOM_EDITS, model, originals, y, threat, LENS, rng=rng(*range(6)), restarts=restarts, tries=tries
        )
        found.append(margins(model, LENS, made.recordings, y))
    assert all(bool((later >= earlier).all()) for earlier, later in itertools.pairwise(found))
    assert bool((found[-1] > found[0]).any())


def test_a_sensor_without_room_ends_the_search() -> None:
    """One pixel, one polarity free, every microsecond taken: nothing can be added."""
    full = Recording([0] * 20, [0] * 20, range(20), [1] * 20, Sensor(1, 1))
    threat = EventThreat(Fraction(2), removed=Fraction(0))
    (edited,) = random_edits(network(), [full], torch.tensor([0]), threat, LENS, rng=rng(0)).recordings
    assert edited == full


def test_the_ledger_refuses_what_would_be_no_edit() -> None:
    original = Recording([0, 1], [0, 0], [5, 9], [1, 0], SENSOR)
    ledger = Ledger(original, EventThreat(Fraction(5), max_shift=3))
    assert ledger.remove(0)
    assert not ledger.remove(0)
    assert not ledger.move(0, 6)
    assert not ledger.add(Event(0, 0, 5, 1))
    assert ledger.add(Event(0, 0, 5, 0))
    assert not ledger.add(Event(8, 0, 5, 0))
    assert not ledger.add(Event(3, 0, 10, 0))
    assert not ledger.move(1, 5)
    assert not ledger.move(1, 10)
    assert ledger.move(1, 6)
    assert ledger.edits().apply(original) == Recording([0, 1], [0, 0], [5, 6], [0, 0], SENSOR)


def test_tries_must_be_some() -> None:
    with pytest.raises(ValueError, match="tries must be at least 1"):
        random_edits(network(), [], torch.zeros(0).long(), EventThreat(Fraction(0)), LENS, rng=rng(), tries=0)
