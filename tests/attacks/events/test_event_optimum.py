"""Against exhaustive search and closed forms: what one edit can do is done, and nothing is claimed beyond it."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from making import ATTACKS, Frames, edited, every_addition, lens, recording, rng

from attacks.events.lens import Lens
from attacks.events.run import margins
from attacks.events.threat import EventThreat
from events import Framing, Recording, Sensor

SENSOR = Sensor(2, 2)
WAYS = pytest.mark.parametrize("by", ["number", "time"])


def singles(original: Recording, by: str) -> list[Recording]:
    """Every legal edit; by time additions between the first and the last event."""
    removals = [edited(original, [event]) for event in range(len(original))]
    first = int(original.t[0]) if by == "time" else 0
    return removals + [edited(original, new=[event]) for event in every_addition(original, 1, first)]


def highest(model: Frames, view: Lens, recordings: list[Recording], label: int) -> float:
    return float(margins(model, view, recordings, torch.full((len(recordings),), label)).max())


def problem(seed: int, by: str, **network: int) -> tuple[Frames, Lens, Recording, torch.Tensor]:
    view, model = lens(by, sensor=SENSOR), Frames(seed, **network)
    original = recording(20, seed, SENSOR, 30)
    return model, view, original, model(view.frames([original])).argmax(1)


def budget(original: Recording, edits: int) -> EventThreat:
    return EventThreat(Fraction(edits, len(original)))


@WAYS
@pytest.mark.parametrize("name", ["greedy", "sda"])
def test_on_a_linear_model_the_best_single_edit_is_found(name: str, by: str) -> None:
    succeeded = 0
    for seed in range(12):
        model, view, original, y = problem(seed, by)
        clean, best = highest(model, view, [original], int(y)), highest(model, view, singles(original, by), int(y))
        with torch.no_grad():
            # One edit suffices, just.
            model.bias[y] += best - 0.01 * (best - clean)
        best = highest(model, view, singles(original, by), int(y))
        found = ATTACKS[name](model, [original], y, budget(original, 1), view, steps=2, rng=rng([seed]))
        reached = highest(model, view, list(found.recordings), int(y))
        assert reached <= best + 1e-9
        succeeded += reached > 0
    assert succeeded == 12


SHARES = {"greedy": 1.0, "sda": 1.0, "spikefool": 0.5, "yao": 0.3}


@WAYS
@pytest.mark.parametrize("name", SHARES)
def test_single_edits_on_a_curved_model(name: str, by: str) -> None:
    """Where one edit suffices it is found in at least a share of cases; where none does, no success is claimed."""
    possible, succeeded = 0, 0
    for seed in range(40):
        model, view, original, y = problem(seed, by, hidden=6)
        best = highest(model, view, singles(original, by), int(y))
        found = ATTACKS[name](model, [original], y, budget(original, 1), view, steps=10, rng=rng([seed]))
        reached = highest(model, view, list(found.recordings), int(y))
        if found.recordings[0] is not original:
            assert reached <= best + 1e-9
        possible += best > 0
        succeeded += reached > 0
    assert possible >= 5
    assert succeeded >= SHARES[name] * possible


@pytest.mark.parametrize(("by", "share"), [("number", 0.6), ("time", 0.7)])
@pytest.mark.parametrize("name", ["greedy", "sda"])
def test_double_edits_on_a_curved_model(name: str, share: float, by: str) -> None:
    """Pairs of edits of which none suffices alone, on the grid of edits that give different frames."""
    possible, succeeded = 0, 0
    for seed in range(24):
        model, view, original, y = problem(seed, by, hidden=6)
        alone = list({view.framing.frames(one).tobytes(): one for one in singles(original, by)}.values())
        if highest(model, view, alone, int(y)) > 0:
            continue
        firsts = sorted(alone, key=lambda one: -highest(model, view, [one], int(y)))[:8]
        both = [two for one in firsts for two in singles(one, by) if legal_pair(original, two)]
        best = highest(model, view, both, int(y))
        found = ATTACKS[name](model, [original], y, budget(original, 2), view, steps=10, rng=rng([seed]))
        reached = highest(model, view, list(found.recordings), int(y))
        possible += best > 0
        succeeded += best > 0 and reached > 0
    assert possible >= 3
    assert succeeded >= share * possible


def legal_pair(original: Recording, one: Recording) -> bool:
    return not len(one) or one.t[-1] <= original.t[-1]


@pytest.mark.parametrize("additions", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_by_time_greedy_reaches_the_closed_form(seed: int, additions: bool) -> None:
    """Each event and each place has a gain of its own: the best are the largest, and a place may be used again."""
    framing = Framing(3, "time", 2, 2)
    view, model = Lens(framing, 2, torch.device("cpu")), Frames(seed, classes=2)
    inner = recording(40, seed, SENSOR, 900)
    # The first and the last event hold the cuts: they are OFF, which may not be edited, and all others ON.
    x, y = (np.concatenate([[0], values, [0]]) for values in (inner.x, inner.y))
    t, p = np.concatenate([[0], inner.t + 50, [1000]]), np.array([0, *[1] * 40, 0])
    original, edits = Recording(x, y, t, p, SENSOR), 11
    slope = ((model.weight[:, 1] - model.weight[:, 0]) / view.scale).detach().numpy().reshape(3, 8)
    with torch.no_grad():
        model.bias[0] = 1000
    gains = -slope[framing.frame_of(original), framing.pixel_of(original)][1:-1]
    if additions:
        gains = np.append(gains, [slope[:, 4:].max()] * edits)
    optimum = np.sort(gains)[-edits:].clip(min=0).sum()
    added = None if additions else Fraction(0)
    threat = EventThreat(Fraction(edits, len(original)), added=added, off=Fraction(0), min_gap=0)
    before = highest(model, view, [original], 0)
    found = ATTACKS["greedy"](model, [original], torch.tensor([0]), threat, view, steps=3, rng=rng(1))
    assert highest(model, view, list(found.recordings), 0) - before == pytest.approx(optimum)
