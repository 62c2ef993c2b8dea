"""Events chosen by Gumbel-softmax: every candidate is there as ON, there as OFF, or absent."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.base import EventCandidate
from attacks.events.draft import ADDED, REMOVED, Draft
from attacks.events.gains import Floats
from attacks.events.lens import Lens
from attacks.events.sight import Sight
from attacks.events.sketch import Sketch, Wish
from attacks.events.threat import EventThreat
from attacks.gradients import frozen, input_gradient
from attacks.losses import cross_entropy
from events import Recording
from models.random import CounterRNG

_POOL, _GUMBEL = 6, 7
_HOT, _COLD, _PERIOD, _CLIP, _BOUND = 2.0, 0.1, 10, 20.0, 2.0
_NEW = (0.05, 0.9, 0.05)
_LOOKS = 32
_STATES = (-1.0, 0.0, 1.0)


def yao(
    model: nn.Module,
    recordings: Sequence[Recording],
    y: Tensor,
    threat: EventThreat,
    lens: Lens,
    *,
    steps: int,
    rng: CounterRNG,
    draws: int = 1,
    kappa: float = 0.1,
    targeted: bool = True,
) -> EventCandidate:
    """Learn for each candidate event how likely it is OFF, absent or ON, and hand over the best draw.

    Candidates are the recording's own events and those of one recording of another class, which is the target, in
    order of time. Their logits alpha begin as the one-hot vector of what is there, (0.05, 0.9, 0.05) for the foreign
    ones. A step draws states by Gumbel-softmax, at a temperature that falls as a cosine from 2 to 0.1; counts the
    drawn events in frames; and goes along the gradient of CE(target) + kappa mean |state - what is there|, which passes
    each draw straight through to its chosen entry. Adam with rate 1 (cosine of period 10), the gradient's norm clipped
    at 20, alpha at +-2.

    Source: Yao et al., ECCV 2024, raw events, as the official code has it. Where they differ:
    - There the frames attacked are cut from the candidates, absent ones counted, and are never made from the list of
      events; what they say is not what a loader gives. Here every draw becomes a list of events, is framed as the
      dataset's are, and is judged by that; the frames that the attack computed with come back beside it.
    - There is no budget there. Here those edits of a draw are made whose first-order use is largest, as many as the
      threat model allows. An event that changes its polarity is two edits; foreign events later than the last own one
      or too close to another of their pixel are left out.
    - There a sample is done once any draw is the target; here once a draw is misclassified by its true frames (never
      on a stochastic network), and the draw of the largest margin is handed over.
    - The foreign recording is drawn from those of other classes in `lens.pool`: the first that the model gets right
      among 32 drawn at random, the first if there is none. So a frequent class is a target more often.
    - Frames cut by time are cut from the candidates by time.

    Args:
        model: maps frames [N, T, 2, H, W] to logits [N, K].
        recordings: N of them.
        y: true labels [N].
        threat: which edits are allowed, and how many. Events are never moved.
        lens: how the network sees recordings; its pool holds training recordings of other classes.
        steps: gradient steps, at least 1; 100 there.
        rng: the foreign recording and the draws of each sample.
        draws: of the states in each step, at least 1; the gradient is their mean.
        kappa: weight of the changes, at least 0.
        targeted: whether the loss draws to the foreign recording's class or only away from the true one.

    Returns:
        the recordings, and for each the frames that the attack itself made of the same edits.

    Raises:
        ValueError: steps or draws below 1, a negative kappa, or a pool without a recording of another class.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    _check({"draws": draws, "kappa": kappa}, threat)
    sight = Sight.of(model, y, lens)
    best = [Draft.of(recording) for recording in recordings]
    own = lens.frames(recordings)
    if not best or all(Sketch(draft, threat).is_spent for draft in best):
        return EventCandidate(tuple(recordings), own)
    with frozen(model):
        highest = sight.margins(range(len(best)), recordings, 0)
        left = [n for n, draft in enumerate(best) if not Sketch(draft, threat).is_spent]
        left = [n for n in left if sight.patient or highest[n] <= 0]
        foreign = _foreign(sight, left, rng)
        mixtures = {n: _Mixture.of(recordings[n], *foreign[n], lens) for n in left}
        learner = _Learner(mixtures, left, len(best), y.device)
        for step in range(steps):
            left = [n for n in left if sight.patient or highest[n] <= 0]
            if not left:
                break
            moment = 1 + _LOOKS + step * (draws + 1)
            trials: list[list[_Trial]] = [[] for _ in left]
            grad = torch.zeros_like(learner.alpha[left])
            for draw in range(draws):
                drawn = learner.draw(left, rng, step, draw * steps + step, steps)
                slope = _slope(sight, left, drawn.states, mixtures, targeted, moment + draw)
                grad += learner.gradient(left, drawn, slope, kappa) / draws
                for found, n, states, steepness in zip(trials, left, drawn.states, slope, strict=True):
                    found.append(_drafted(mixtures[n], best[n].original, threat, states, steepness))
            learner.step(left, grad, step)
            shown = [[best[n], *(trial.draft for trial in found)] for n, found in zip(left, trials, strict=True)]
            owners = [n for n, drafts in zip(left, shown, strict=True) for _ in drafts]
            flat = [draft.recording for drafts in shown for draft in drafts]
            values = np.split(sight.margins(owners, flat, moment + draws), len(left))
            for n, found, margins in zip(left, trials, values, strict=True):
                place = int(margins.argmax())
                highest[n] = margins[place]
                if place:
                    best[n] = found[place - 1].draft
                    counts = mixtures[n].counts(found[place - 1].states)
                    own[n] = torch.from_numpy(counts / lens.scale).to(own)
    return EventCandidate(tuple(draft.recording for draft in best), own)


def _check(params: Mapping[str, Any], _: EventThreat) -> None:
    draws, kappa = params["draws"], params["kappa"]
    if draws < 1 or not kappa >= 0:
        raise ValueError(f"draws must be at least 1 and kappa at least 0, got {draws} and {kappa}")


def _foreign(sight: Sight, rows: list[int], rng: CounterRNG) -> dict[int, tuple[Recording, int]]:
    """For each sample a recording of another class, with that class, which the model gets right if one is found."""
    pool, classes = sight.lens.pool, np.asarray(sight.lens.labels, np.int64)
    own = {row: int(sight.y[row]) for row in rows}
    others = {label: np.flatnonzero(classes != label) for label in set(own.values())}
    if alone := [label for label, numbers in others.items() if not len(numbers)]:
        raise ValueError(
            f"yao takes events from training recordings of other classes, and of the {len(pool)} that there are none "
            f"is of another class than {alone[0]}; add some of a second class, or use an attack that needs none: greedy"
        )
    uniform = rng.uniform((_LOOKS,), stream=_POOL).double().cpu().numpy()
    found: dict[int, tuple[Recording, int]] = {}
    first: dict[int, tuple[Recording, int]] = {}
    for look in range(_LOOKS):
        left = {row: others[own[row]] for row in rows if row not in found}
        if not left:
            break
        # A float32 uniform may be 1 exactly.
        places = {row: min(int(uniform[row, look] * len(numbers)), len(numbers) - 1) for row, numbers in left.items()}
        shown = {row: pool[int(left[row][place])] for row, place in places.items()}
        first = shown | first
        labels = sight.y.clone()
        labels[list(shown)] = torch.tensor([label for _, label in shown.values()], device=labels.device)
        judge = Sight(sight.model, labels, sight.lens, sight.first_draw)
        values = judge.margins(list(shown), [recording for recording, _ in shown.values()], 1 + look)
        found |= {row: pair for (row, pair), value in zip(shown.items(), values, strict=True) if value < 0}
    return first | found


@dataclass(frozen=True, eq=False)
class _Mixture:
    """The candidates of one sample, in order of time.

    Attributes:
        x, y, t: of each candidate, [K].
        event: its number in the original, -1 for a foreign one, [K].
        there: -1 for OFF, 0 for absent, 1 for ON, as recorded, [K].
        place: where it is counted if it is OFF, in frames counted through, [K]; ON is `plane` further.
        plane: places of one polarity of a frame.
        target: the foreign recording's class.
        shape: of the frames.
    """

    x: NDArray[np.int16]
    y: NDArray[np.int16]
    t: NDArray[np.int64]
    event: NDArray[np.int64]
    there: NDArray[np.float64]
    place: NDArray[np.int64]
    plane: int
    target: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, own: Recording, foreign: Recording, target: int, lens: Lens) -> "_Mixture":
        framing = lens.framing
        used = foreign.between(int(own.t[0]) if framing.by == "time" else 0, int(own.t[-1]) + 1)
        x, y, t = (np.concatenate([getattr(r, name) for r in (own, used)]) for name in "xyt")
        order = np.argsort(t, kind="stable")
        event = np.append(np.arange(len(own)), np.full(len(used), -1))[order]
        there = np.append(2.0 * own.p - 1, np.zeros(len(used)))[order]
        together = Recording(x[order], y[order], t[order], np.zeros(len(order), np.uint8), own.sensor)
        plane = framing.height * framing.width
        place = framing.frame_of(together) * 2 * plane + framing.pixel_of(together)
        shape = (framing.T, 2, framing.height, framing.width)
        return cls(x[order], y[order], t[order], event, there, place, plane, target, shape)

    def where(self, states: NDArray[np.float64]) -> NDArray[np.int64]:
        """Where candidates are counted if they are in these states."""
        return self.place + self.plane * (states > 0)

    def counts(self, states: NDArray[np.float64]) -> NDArray[np.float64]:
        """The frames that the attack makes of states, absent candidates having had a share in the cuts."""
        counted = np.bincount(self.where(states), np.abs(states), math.prod(self.shape)).astype(np.float64)
        return counted.reshape(self.shape)

    @cached_property
    def start(self) -> NDArray[np.float64]:
        """Initial logits [K, 3]."""
        start = np.tile(_NEW, (len(self.t), 1))
        own = self.there != 0
        start[own] = np.eye(3)[(self.there[own] + 1).astype(np.int64)]
        return start


class _Drawn(NamedTuple):
    """States of each sample's candidates, [K] each; the entry chosen and the softmax that it was drawn by, padded."""

    states: list[NDArray[np.float64]]
    chosen: Tensor
    soft: Tensor
    temperature: float


class _Learner:
    """The logits of all samples' candidates, [N, K, 3], padded to the longest, and Adam's memory."""

    def __init__(self, mixtures: dict[int, _Mixture], rows: list[int], n: int, device: torch.device) -> None:
        self._mixtures = mixtures
        longest = max((len(mixtures[row].t) for row in rows), default=0)
        self.alpha = torch.zeros(n, longest, 3, dtype=torch.float64, device=device)
        for row in rows:
            start = torch.from_numpy(mixtures[row].start)
            self.alpha[row, : len(start)] = start.to(device)
        self._first, self._second = torch.zeros_like(self.alpha), torch.zeros_like(self.alpha)

    def draw(self, rows: list[int], rng: CounterRNG, step: int, draw: int, steps: int) -> _Drawn:
        temperature = _COLD + (_HOT - _COLD) * (1 + math.cos(math.pi * step / steps)) / 2
        of = rng.rows(torch.tensor(rows, device=rng.samples.device))
        u = of.uniform(self.alpha.shape[1:], stream=_GUMBEL, draw=draw).double()
        # A float32 uniform may be 1 exactly, whose Gumbel number is infinite.
        u = u.clamp(max=1 - 2.0**-25)
        perturbed = self.alpha[rows] - (-u.log()).log()
        chosen = perturbed.argmax(2, keepdim=True)
        whole = (chosen.squeeze(2) - 1).double().cpu().numpy()
        states = [whole[place, : len(self._mixtures[row].t)] for place, row in enumerate(rows)]
        return _Drawn(states, chosen, (perturbed / temperature).softmax(2), temperature)

    def gradient(self, rows: list[int], drawn: _Drawn, slope: list[Floats], kappa: float) -> Tensor:
        """Of the loss in the logits of some samples, through the chosen entries alone, [M, K, 3]."""
        by_state = torch.zeros_like(drawn.soft[..., 0])
        for place, (row, states, steep) in enumerate(zip(rows, drawn.states, slope, strict=True)):
            mixture = self._mixtures[row]
            # relu(state) and relu(-state) are counted, whose slope in an absent event's state is 0.
            in_state = states * steep[mixture.where(states)]
            in_state += kappa * np.sign(states - mixture.there) / len(states)
            by_state[place, : len(states)] = torch.from_numpy(in_state * states).to(by_state)
        through = drawn.soft.gather(2, drawn.chosen)
        one = torch.zeros_like(drawn.soft).scatter_(2, drawn.chosen, 1.0)
        return by_state[..., None] * through * (one - drawn.soft) / drawn.temperature

    def step(self, rows: list[int], grad: Tensor, step: int) -> None:
        norm = grad.flatten(1).norm(dim=1)[:, None, None]
        grad = grad * (_CLIP / norm.clamp(min=_CLIP))
        first = 0.9 * self._first[rows] + 0.1 * grad
        second = 0.999 * self._second[rows] + 0.001 * grad.square()
        self._first[rows], self._second[rows] = first, second
        rate = (1 + math.cos(math.pi * step / _PERIOD)) / 2
        size = (second / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
        moved = self.alpha[rows] - rate * first / (1 - 0.9 ** (step + 1)) / size
        self.alpha[rows] = moved.clamp(-_BOUND, _BOUND)


def _slope(
    sight: Sight,
    rows: list[int],
    states: list[NDArray[np.float64]],
    mixtures: dict[int, _Mixture],
    targeted: bool,
    moment: int,
) -> list[Floats]:
    """Slope of the loss to be lowered in each count of the attack's own frames, flat, for each sample."""
    counts = np.stack([mixtures[row].counts(drawn) for row, drawn in zip(rows, states, strict=True)])
    frames = torch.from_numpy(counts / sight.lens.scale).to(sight.lens.device, torch.float32)
    labels = torch.tensor([mixtures[row].target for row in rows], device=sight.y.device)
    labels = labels if targeted else sight.y[rows]
    with sight.at(rows, moment):
        grad = input_gradient(sight.model, frames, labels, cross_entropy).grad / sight.lens.scale
    return list((grad if targeted else -grad).flatten(1).double().cpu().numpy())


class _Trial(NamedTuple):
    draft: Draft
    states: NDArray[np.float64]


def _drafted(
    mixture: _Mixture, original: Recording, threat: EventThreat, states: NDArray[np.float64], slope: Floats
) -> _Trial:
    """The most useful edits of a draw that the threat model allows, and the states that these leave."""
    value = np.abs(states) * slope[mixture.where(states)]
    use = np.abs(mixture.there) * slope[mixture.where(mixture.there)] - value
    (changed,) = np.nonzero(states != mixture.there)
    sketch, made = Sketch(Draft.of(original), threat), mixture.there.copy()
    for candidate in changed[np.argsort(-use[changed], kind="stable")]:
        if sketch.is_spent:
            break
        x, y, t = (int(values[candidate]) for values in (mixture.x, mixture.y, mixture.t))
        there, state = mixture.there[candidate], states[candidate]
        gone = Wish(REMOVED, int(there > 0), int(mixture.event[candidate]), x, y)
        new = Wish(ADDED, int(state > 0), -1, x, y, t=t, low=t, high=t)
        taken = sketch.flip(gone, new) if there and state else sketch.take(gone if there else new)
        made[candidate] = state if taken else there
    return _Trial(sketch.draft(), made)


YAO = Attack(
    yao,
    "events chosen by Gumbel-softmax, handed over as a list and framed anew",
    takes_steps=True,
    version=2,
    defaults={"draws": 1, "kappa": 0.1, "targeted": True},
    domain="events",
    pool=True,
    kinds=(ADDED, REMOVED),
    check=_check,
    cost=lambda steps: (3 * steps, steps),
)
