"""Pattern attacks: legal, pure, a function of the sample; each pattern where it should be."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attacks.events.corner import corner
from attacks.events.dash import dash
from attacks.events.dashes import walk
from attacks.events.frame import border, frame
from attacks.events.growth import flickering, grow
from attacks.events.ledger import Event, Ledger
from attacks.events.lens import Lens
from attacks.events.mfdash import mf_dash
from attacks.events.run import margins
from attacks.events.sparse import sparse, surprise, whole_edits
from attacks.events.threat import EventThreat
from attacks.gradients import estimating
from bench.recount import recount
from events import Framing, Recording, Sensor
from events.filters import mask_filter
from models.neurons import NeuronSpec
from models.random import CounterRNG, noise_stream
from models.tiny import SpikingMLP

SENSOR = Sensor(8, 8)
CPU = torch.device("cpu")
LENS = Lens(Framing(3, "number", 4, 4), 2, CPU)
WITH_TIME = Lens(Framing(4, "time", 8, 8), 1, CPU)
NOISY = NeuronSpec("nlif", params=(("noise_var", 0.4),))
ATTACKS: dict[str, Any] = {
    "frame": frame,
    "frame-both": partial(frame, polarity="both"),
    "corner": partial(corner, polarity="off"),
    "dash": dash,
    "mf-dash": partial(mf_dash, mask=6),
    "sparse": partial(sparse, steps=3, lr=0.6, lam=0.01),
}
POLARITIES = {"frame": "on", "corner": "off", "dash": "on", "mf-dash": "on"}
NAMES = pytest.mark.parametrize("name", ATTACKS)


def recording(n: int, seed: int, sensor: Sensor = SENSOR, span: int = 5000) -> Recording:
    draw = np.random.default_rng(seed)
    t = np.sort(draw.integers(0, span, n))
    x, y = draw.integers(0, sensor.width, n), draw.integers(0, sensor.height, n)
    return Recording(x, y, t, draw.integers(0, 2, n), sensor)


def linear(lens: Lens = LENS) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(lens.framing.T * 2 * lens.framing.height * lens.framing.width, 4))


def spiking(neuron: NeuronSpec | None = None) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = SpikingMLP(4, (2, 4, 4), [12], (neuron or NeuronSpec()).build, T=3, mean=(0.5,) * 2, std=(0.5,) * 2)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.constant_(module.weight, 4.0)
    return made.eval()


def own_labels(model: nn.Module, recordings: list[Recording], lens: Lens = LENS) -> Tensor:
    """What the network says: every attack then has something to do."""
    with torch.no_grad(), noise_stream(model, 1, torch.arange(len(recordings))):
        return model(lens.frames(recordings)).argmax(1)  # type: ignore[no-any-return]


def rng(*samples: int) -> CounterRNG:
    return CounterRNG(7, torch.tensor(samples))


shares = st.none() | st.sampled_from([Fraction(0), Fraction(1, 20), Fraction(1, 5)])


@NAMES
@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 60), eps=st.sampled_from([Fraction(0), Fraction(1, 10), Fraction(1), Fraction(3)]),
    bounds=st.tuples(shares, shares, shares, shares), shift=st.sampled_from([0, 300]),
    gap=st.sampled_from([0, 1, 200]), small=st.booleans(), lens=st.sampled_from([LENS, WITH_TIME]),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_candidates_are_legal_whatever_the_rules(
    name: str, n: int, eps: Fraction, bounds: tuple[Fraction | None, ...], shift: int, gap: int, small: bool,
    lens: Lens, seed: int,
) -> None:  # fmt: skip
    added, removed, on, off = bounds
    threat = EventThreat(eps, added, removed, None, on, off, shift, gap)
    assume(getattr(threat, POLARITIES.get(name, ""), None) != 0)
    original, model = recording(n, seed, SENSOR, 30 if small else 5000), linear(lens)
    (edited,) = ATTACKS[name](model, [original], own_labels(model, [original], lens), threat, lens, rng=rng(seed))[0]
    assert recount(original, edited, threat).problem == ""


@NAMES
def test_without_a_budget_the_originals_come_back(name: str) -> None:
    originals, model = [recording(50, seed) for seed in range(3)], spiking()
    y = own_labels(model, originals)
    found = ATTACKS[name](model, originals, y, EventThreat(Fraction(0)), LENS, rng=rng(0, 1, 2))
    assert list(found.recordings) == originals
    assert found.frames is None or torch.equal(found.frames, LENS.frames(originals))


@NAMES
def test_candidates_are_never_weaker_than_the_originals_and_some_break(name: str) -> None:
    model, originals = linear(), [recording(80, seed) for seed in range(20)]
    y, threat = own_labels(model, originals), EventThreat(Fraction(3, 2), min_gap=0)
    found = ATTACKS[name](model, originals, y, threat, LENS, rng=rng(*range(20)))
    before, after = (margins(model, LENS, list(some), y) for some in (originals, found.recordings))
    assert bool((after >= before).all())
    assert bool((before < 0).all()) and bool((after >= 0).any())


@NAMES
@pytest.mark.parametrize("neuron", [None, NOISY], ids=["lif", "nlif"])
def test_neither_the_batch_nor_its_order_matters_and_nothing_is_left_behind(
    name: str, neuron: NeuronSpec | None
) -> None:
    model, originals = spiking(neuron), [recording(80, seed) for seed in range(20)]
    y, threat = own_labels(model, originals), EventThreat(Fraction(1, 2))
    model.train().readout.bias.requires_grad_(False)  # type: ignore[union-attr, operator]
    state = {key: value.clone() for key, value in model.state_dict().items()}
    flags, random = [p.requires_grad for p in model.parameters()], torch.get_rng_state()

    def run(numbers: list[int]) -> tuple[Recording, ...]:
        samples = torch.tensor(numbers)
        with noise_stream(model, 3, samples), estimating(model, None, 2):
            some = [originals[i] for i in numbers]
            return ATTACKS[name](model, some, y[samples], threat, LENS, rng=rng(*numbers)).recordings  # type: ignore[no-any-return]

    whole = run([*range(20)])
    assert whole == run([*reversed(range(20))])[::-1]
    assert whole[3:20] == run([*range(3, 20)])
    assert whole != tuple(originals)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert flags == [p.requires_grad for p in model.parameters()]
    assert all(module.training for module in model.modules()) and all(p.grad is None for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


class Stubborn(nn.Module):
    """Never errs, and is the nearer to it the more events there are."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.full((len(x),), 1e6), x.flatten(1).sum(1)], 1)


def added_by(run: Callable[..., Any], original: Recording, lens: Lens, eps: str = "1") -> list[tuple[int, int, int]]:
    """Time, column and row of what an attack adds that may use its whole budget, in the order of time."""
    found = run(Stubborn(), [original], torch.tensor([0]), EventThreat(Fraction(eps)), lens, rng=rng(5)).recordings[0]
    old = set(zip(original.t.tolist(), original.x.tolist(), original.y.tolist(), original.p.tolist(), strict=True))
    new = zip(found.t.tolist(), found.x.tolist(), found.y.tolist(), found.p.tolist(), strict=True)
    return [event[:3] for event in new if event not in old]


@pytest.mark.parametrize("eps", ["1/10", "1", "3"])
@pytest.mark.parametrize("lens", [LENS, WITH_TIME], ids=["number", "time"])
def test_frame_is_at_the_border_in_every_frame_alike(eps: str, lens: Lens) -> None:
    original = recording(120, 1, span=50_000)
    found = added_by(frame, original, lens, eps)
    assert len(found) == int(Fraction(eps) * 120)
    assert all(x in (0, 7) or y in (0, 7) for _, x, y in found)
    spans = np.searchsorted(lens.framing.borders(original), [t for t, _, _ in found], side="right") - 1
    counts = np.bincount(spans, minlength=lens.framing.T)
    assert counts.max() - counts.min() <= 1
    sides = [sum(inside) for inside in zip(*((x == 0, x == 7, y == 0, y == 7) for _, x, y in found), strict=True)]
    assert min(sides) > len(found) / 8


def test_a_border_has_each_pixel_once() -> None:
    for height, width, count in ((8, 8, 28), (1, 1, 1), (1, 4, 4), (5, 1, 5), (2, 2, 4)):
        pixels = border(Sensor(height, width))
        assert len(set(pixels)) == len(pixels) == count


@pytest.mark.parametrize(("eps", "side"), [("1/10", 1), ("1/2", 3), ("3/2", 4)])
def test_corner_grows_from_the_corners(eps: str, side: int) -> None:
    found = added_by(corner, recording(120, 2, span=50_000), LENS, eps)
    assert len(found) == int(Fraction(eps) * 120)
    depths = {max(min(x, 7 - x), min(y, 7 - y)) for _, x, y in found}
    # 12 events are one at each corner in each frame, 60 fill squares of two and begin squares of three.
    assert depths == set(range(side))
    assert {(x > 3, y > 3) for _, x, y in found} == {(a, b) for a in (False, True) for b in (False, True)}


@pytest.mark.parametrize("eps", ["1/20", "1/2", "1"])
def test_dash_is_two_pixels_at_a_time_and_moves_along_its_row(eps: str) -> None:
    found = added_by(dash, recording(120, 3, span=500_000), LENS, eps)
    assert len(found) == int(Fraction(eps) * 120) // 2 * 2
    pairs = [sorted(found[at : at + 2], key=lambda event: event[1]) for at in range(0, len(found), 2)]
    assert all(b[1] == a[1] + 1 and b[2] == a[2] for a, b in pairs)
    left = [a[1] for a, _ in pairs]
    assert left == sorted(left) and len({a[2] for a, _ in pairs}) == 1
    assert left[-1] == (6 if len(pairs) > 6 else len(pairs) - 1)


def test_dashes_of_samples_are_in_rows_of_their_own() -> None:
    assert len({added_by(partial(_with_rng, seed), recording(60, 3), LENS)[0][2] for seed in range(12)}) > 3


def _with_rng(seed: int, *args: Any, rng: CounterRNG) -> Any:
    return dash(*args, rng=CounterRNG(rng.key, torch.tensor([seed])))


def test_a_mask_filter_takes_the_dash_out_but_not_the_one_that_knows_it() -> None:
    """64 pixels with two events each; the filter lets 6 pass, and the dash has 60 pairs in a row of 7 places."""
    x, y = (values.repeat(2) for values in np.mgrid[:8, :8].reshape(2, -1))
    original = Recording(x, y, np.arange(128) * 1000, np.arange(128) % 2, SENSOR)
    threat = EventThreat(Fraction(120, 128))

    def survivors(run: Callable[..., Any]) -> tuple[int, int]:
        (edited,) = run(Stubborn(), [original], torch.tensor([0]), threat, LENS, rng=rng(0)).recordings
        return len(edited) - 128, len(mask_filter(edited, 6)) - 128

    added, left = survivors(dash)
    # The whole row is masked, its own sixteen events with it.
    assert (added, left) == (120, -16)
    assert survivors(partial(mf_dash, mask=6)) == (120, 120)


def test_without_a_mask_in_reach_both_dashes_are_one() -> None:
    original = recording(100, 4)
    assert added_by(dash, original, LENS) == added_by(mf_dash, original, LENS)


def test_the_walk_stops_where_every_pixel_is_full() -> None:
    full = Recording([0, 1, 2], [0, 0, 0], [0, 1, 2], [1, 1, 1], Sensor(2, 3))
    assert walk(full, 0, 10, 1).tolist() == [[0, 1]]
    assert walk(full, 0, 10, 2).tolist() == [[0, 0], [0, 1], [0, 1]]
    assert walk(full, 1, 4, None).tolist() == [[0, 1], [0, 1], [1, 1], [1, 1]]


def test_patterns_grow_by_doubling_until_the_network_errs() -> None:
    seen: list[int] = []

    class Counting(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            total = x.flatten(1).sum(1) * LENS.scale
            seen.append(int(total[0]))
            return torch.stack([torch.full((len(x),), 125.0), total], 1)

    original = recording(100, 5, span=50_000)

    def pattern(_: int, one: Recording) -> Any:
        return flickering(one, border(SENSOR), threat, LENS, "on")

    threat = EventThreat(Fraction(3, 5))
    found = grow(Counting(), [original], torch.tensor([0]), threat, LENS, pattern, 4)
    # At 130 it errs; a tie at 125 would do as well.
    assert seen == [100, 107, 115, 130]
    assert len(found.recordings[0]) == 130


def test_sparse_perturbs_every_frame_and_says_what_it_believed() -> None:
    originals, model = [recording(150, seed) for seed in range(8)], linear()
    y, threat = own_labels(model, originals), EventThreat(Fraction(1, 2))

    class Sure(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model(x) + 9 * nn.functional.one_hot(y.repeat(len(x) // len(y)), 4)  # type: ignore[no-any-return]

    found = sparse(Sure(), originals, y, threat, LENS, steps=4, rng=rng(*range(8)), lr=0.6, lam=0.0)
    assert found.frames is not None
    change = (found.frames - LENS.frames(originals)) * LENS.scale
    assert bool((change.flatten(2).abs().sum(2) > 0).all())
    assert torch.equal(change, change.round())
    assert bool((change < 0).any()) and bool((change > 0).any())
    assert [int(one.abs().sum()) for one in change] == [75] * 8
    # Later borders move with the number of events.
    assert not torch.equal(found.frames, LENS.frames(list(found.recordings)))


def test_by_time_what_sparse_believes_is_what_the_network_sees() -> None:
    """Frames of equal spans keep their borders while the first and the last event stay."""
    original = recording(150, 3)
    delta = np.zeros((4, 2, 8, 8))
    delta[2, 1, 3, 4], delta[0, 0, 7, 7], delta[1] = 2.6, 0.4, -0.7
    edits, change = whole_edits(original, delta, np.ones_like(delta), EventThreat(Fraction(1)), WITH_TIME)
    counts = WITH_TIME.framing.frames(original)
    assert np.array_equal(WITH_TIME.framing.frames(edits.apply(original)), counts + change)
    assert change[2, 1, 3, 4] == 3 and change[0].sum() == 0
    assert np.array_equal(change[1], -np.minimum(counts[1], 1))


def test_what_sparse_minimises_is_minus_log_of_one_minus_p() -> None:
    logits = torch.tensor([[1.0, 2.0, 0.5], [300.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    found = surprise(logits, torch.tensor([1, 0]))
    assert torch.allclose(found[0], -torch.log(1 - logits.softmax(1)[0, 1]))
    assert torch.isclose(found[1], 300 - torch.log(torch.tensor(2.0, dtype=torch.float64)))


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (partial(frame, polarity="up"), "polarity must be on, off, both, got 'up'"),
        (partial(corner, sizes=0), "sizes must be at least 1"),
        (partial(dash, sizes=0), "sizes must be at least 1"),
        (partial(mf_dash, mask=0), "mask must be at least 1"),
        (partial(sparse, steps=0), "steps must be at least 1"),
        (partial(sparse, steps=1, lr=0.0), "lr must be more than 0"),
    ],
)
def test_parameters_out_of_range_are_refused(run: Callable[..., Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        run(linear(), [recording(9, 0)], torch.tensor([0]), EventThreat(Fraction(1)), LENS, rng=rng(0))


def test_a_dash_needs_two_columns() -> None:
    narrow = recording(9, 0, Sensor(4, 1))
    lens = Lens(Framing(3, "number", 4, 1), 1, CPU)
    model = linear(lens)
    with pytest.raises(ValueError, match="a sensor of 4x1 has one column"):
        dash(model, [narrow], own_labels(model, [narrow], lens), EventThreat(Fraction(1)), lens, rng=rng(0))


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.integers(0, 40), max_size=12), wish=st.integers(0, 40), low=st.integers(0, 40),
    length=st.integers(-1, 20), gap=st.sampled_from([0, 1, 3, 8]), gone=st.booleans(),
)  # fmt: skip
def test_the_ledger_adds_at_the_nearest_microsecond_that_is_free(
    times: list[int], wish: int, low: int, length: int, gap: int, gone: bool
) -> None:
    t = np.array(sorted([*times, 40]))
    original = Recording(np.zeros_like(t), np.zeros_like(t), t, np.ones_like(t), Sensor(1, 1))
    ledger = Ledger(original, EventThreat(Fraction(9), min_gap=gap))
    left = t.tolist()
    if gone:
        assert ledger.remove(0)
        left = left[1:]
    high = min(low + length, 40)
    taken = {int(t[0])} if gone else set()
    free = [
        at
        for at in range(low, high + 1)
        if at not in taken and all(not gap or abs(at - other) >= gap for other in left)
    ]
    assert ledger.add_near(Event(0, 0, wish, 1), low, high) == bool(free)
    if free:
        assert abs(int(ledger.edits().at[0]) - wish) == min(abs(at - wish) for at in free)
