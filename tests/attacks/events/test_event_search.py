"""Every attack on events: legal, pure, its own sample's business only, and never worse than doing nothing."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from making import ATTACKS, FREE, Frames, lens, recording, rng
from torch import Tensor, nn

from attacks.events.run import margins, run_on_events
from attacks.events.threat import EventThreat
from bench.recount import recount
from bench.registry import ATTACKS as REGISTERED
from events import Recording, Sensor
from models.cnn import SpikingCNN
from models.neurons import NeuronSpec
from models.random import noise_stream

NAMES = pytest.mark.parametrize("name", ATTACKS)
SENSOR = Sensor(4, 4)
LABELS = torch.tensor([0, 1, 2, 0, 1])
shares = st.none() | st.sampled_from([Fraction(0), Fraction(1, 20), Fraction(1, 4)])


def chunk(n: int = 5, events: int = 30) -> list[Recording]:
    return [recording(events + number, number, SENSOR, 90) for number in range(n)]


class Spikes(nn.Module):
    """A noisy spiking network on frames, in float64."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            neuron = NeuronSpec("nlif", params=(("noise_var", 0.1),))
            self.inner = SpikingCNN(3, 2, (4, 4), (1, 1), neuron.build, T=3, mean=(0.5, 0.5), std=(0.5, 0.5)).double()
        for module in self.inner.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.constant_(module.weight, 4.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.double())  # type: ignore[no-any-return]


@NAMES
@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(0, 40), eps=st.sampled_from([Fraction(0), Fraction(1, 10), Fraction(1), Fraction(2)]),
    bounds=st.tuples(shares, shares, shares, shares), shift=st.sampled_from([0, 1, 40]),
    gap=st.sampled_from([0, 1, 9]), by=st.sampled_from(["number", "time"]), seed=st.integers(0, 999),
)  # fmt: skip
def test_edits_are_legal_and_no_worse_than_none(
    name: str, n: int, eps: Fraction, bounds: tuple[Fraction | None, ...], shift: int, gap: int, by: str, seed: int
) -> None:
    added, removed, on, off = bounds
    assume(name != "retime" or not on == off == 0)
    shift = max(shift, 1) if name == "retime" else shift
    threat = EventThreat(eps, added, removed, None, on, off, shift, gap)
    originals, view, model = [recording(n, seed, SENSOR, 90)], lens(by), Frames(seed, hidden=6)
    y = model(view.frames(originals)).argmax(1) if n else torch.zeros(1, dtype=torch.long)
    found = ATTACKS[name](model, originals, y, threat, view, steps=4, rng=rng([seed]))
    seen = recount(originals[0], found.recordings[0], threat)
    assert seen.problem == ""
    assert margins(model, view, found.recordings, y) >= margins(model, view, originals, y)
    if not threat.edits(n):
        assert found.recordings[0] is originals[0]


@NAMES
def test_nothing_is_left_behind(name: str) -> None:
    model, originals = Frames(hidden=6).train(), chunk()
    model.bias.requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    hashes, state = [original.sha256 for original in originals], torch.get_rng_state()
    ATTACKS[name](model, originals, LABELS, FREE, lens(), steps=3, rng=rng(5))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert [model.weight.requires_grad, model.bias.requires_grad, model.weight.grad] == [True, False, None]
    assert torch.equal(torch.get_rng_state(), state)
    assert [Recording(r.x, r.y, r.t, r.p, r.sensor).sha256 for r in originals] == hashes


@NAMES
@pytest.mark.parametrize("noisy", [False, True])
def test_neither_batch_size_nor_order_matters(name: str, noisy: bool) -> None:
    originals, view = chunk(), lens(side=4, sensor=SENSOR)
    model = Spikes() if noisy else Frames(side=4, hidden=6)

    def attack(index: list[int]) -> tuple[Recording, ...]:
        labels, samples = LABELS[index], torch.tensor(index)
        with noise_stream(model, 11, samples):
            found = run_on_events(
                REGISTERED.get(name), model, [originals[i] for i in index], labels, FREE, view,
                rng=rng(index), steps=4, eot=2 if noisy else 1,
            )  # fmt: skip
        return found.recordings

    whole = attack([0, 1, 2, 3, 4])
    parts = attack([3, 0]) + attack([4, 1, 2])
    assert parts == tuple(whole[i] for i in (3, 0, 4, 1, 2))
    assert whole == attack([0, 1, 2, 3, 4])
    assert any(one != original for one, original in zip(whole, originals, strict=True))


@NAMES
def test_on_noise_no_sample_is_left_early(name: str) -> None:
    """One wrong answer may be luck, so the margin is pushed on."""
    originals, view, model = chunk(), lens(side=4, sensor=SENSOR), Spikes()
    threat = EventThreat(Fraction(1), max_shift=60)

    def mean_margin(recordings: tuple[Recording, ...] | list[Recording]) -> Tensor:
        with noise_stream(model, 99, torch.arange(5)):
            return torch.stack([margins(model, view, recordings, y) for _ in range(40)]).mean(0)

    with torch.no_grad(), noise_stream(model, 99, torch.arange(5)):
        y = torch.stack([model(view.frames(originals)) for _ in range(40)]).mean(0).argmax(1)
    with noise_stream(model, 11, torch.arange(5)):
        found = run_on_events(REGISTERED.get(name), model, originals, y, threat, view, rng=rng(5), steps=10, eot=4)
    assert mean_margin(found.recordings).mean() > mean_margin(originals).mean() + 0.05


@NAMES
def test_who_is_wrong_already_is_left_alone(name: str) -> None:
    model, originals, view = Frames(hidden=6), chunk(), lens()
    y = (model(view.frames(originals)).argmax(1) + 1) % 3
    found = ATTACKS[name](model, originals, y, FREE, view, steps=3, rng=rng(5))
    assert list(found.recordings) == originals


def test_retiming_keeps_what_every_pixel_sends() -> None:
    model, originals, view = Frames(hidden=6), chunk(), lens()
    y = model(view.frames(originals)).argmax(1)
    found = ATTACKS["retime"](model, originals, y, FREE, view, steps=5, rng=rng(5)).recordings
    assert any(one != original for one, original in zip(found, originals, strict=True))
    for original, one in zip(originals, found, strict=True):
        sent, sends = (sorted(zip(r.x, r.y, r.p, strict=True)) for r in (original, one))
        assert sent == sends
        seen = recount(original, one, FREE)
        assert (seen.added, seen.removed) == (0, 0)


@pytest.mark.parametrize(
    ("threat", "mend"),
    [
        (EventThreat(Fraction(1, 5)), "give max_shift"),
        (EventThreat(Fraction(1, 5), shifted=Fraction(0), max_shift=9), "leave out shifted=0"),
    ],
)
def test_retiming_needs_events_that_may_move(threat: EventThreat, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        ATTACKS["retime"](Frames(), chunk(), LABELS, threat, lens(), steps=3, rng=rng(5))


@NAMES
def test_senseless_steps_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        ATTACKS[name](Frames(), chunk(), LABELS, FREE, lens(), steps=0, rng=rng(5))


def test_yao_needs_a_pool_with_other_classes() -> None:
    model, originals, view = Frames(hidden=6), chunk(), lens()
    y = model(view.frames(originals)).argmax(1)
    alone = type(view)(view.framing, view.scale, view.device, [(view.pool[0][0], int(y[0]))], [int(y[0])])
    with pytest.raises(ValueError, match=r"of another class than \d; add some of a second class"):
        ATTACKS["yao"](model, originals[:1], y[:1], FREE, alone, steps=3, rng=rng(1))


def test_yao_finds_the_one_recording_of_another_class_and_reads_no_other() -> None:
    model, originals, view = Frames(hidden=6), chunk(), lens()
    y = model(view.frames(originals)).argmax(1)[:1]
    read: list[int] = []

    class Rare(list[tuple[Recording, int]]):
        def __getitem__(self, index: Any) -> Any:
            read.append(index)
            return super().__getitem__(index)

    labels = [int(y[0])] * 5000
    labels[4321] = (labels[0] + 1) % 3
    rare = Rare((view.pool[0][0], label) for label in labels)
    seen = replace(view, pool=rare, labels=labels)
    (made,) = ATTACKS["yao"](model, originals[:1], y, FREE, seen, steps=10, rng=rng(1)).recordings
    assert set(read) == {4321}
    assert made != originals[0]


def test_a_pool_has_a_label_for_each_recording() -> None:
    with pytest.raises(ValueError, match="a pool of 9 recordings needs as many labels, got 0"):
        replace(lens(), labels=())


def test_yaos_own_frames_are_not_what_a_loader_makes() -> None:
    """Absent candidates have a share in its cuts by number; in frames cut by time they have none."""
    model, originals = Frames(hidden=6), chunk()
    for by, same in (("number", False), ("time", True)):
        view = lens(by)
        y = model(view.frames(originals)).argmax(1)
        found = ATTACKS["yao"](model, originals, y, FREE, view, steps=10, rng=rng(5))
        changed = [n for n, (a, b) in enumerate(zip(originals, found.recordings, strict=True)) if a != b]
        assert changed
        true = view.frames(found.recordings)
        assert torch.equal(found.frames.sum((1, 2, 3, 4)), true.sum((1, 2, 3, 4)))
        # An edit of the first or the last event moves the cuts by time as well.
        held = [
            n
            for n in changed
            if [originals[n].t[0], originals[n].t[-1]] == [found.recordings[n].t[0], found.recordings[n].t[-1]]
        ]
        assert held
        assert torch.equal(found.frames[held], true[held]) is same
