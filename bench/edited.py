"""Attacks on events: what they propose, checked by recounting and framed as the dataset frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.base import Attack, Candidate
from attacks.events.base import EventCandidate
from attacks.events.lens import Lens
from attacks.events.run import run_on_events
from bench.data.events import EventDataset
from bench.errors import BenchError
from bench.proposal import carefully
from bench.recount import recount
from bench.registry import ATTACKS
from bench.resolve import attack_arguments, event_threat_of, parse_gradient
from bench.spec import CellSpec
from events import Recording
from models.random import CounterRNG


@dataclass(frozen=True)
class Edited:
    """What an attack on events made of a run of recordings.

    Attributes:
        recordings: N of them, as the attacker hands them over.
        candidate: `last` are their frames by the dataset's own framing, `best` the frames that the attack computed
            with, the same where it says nothing of them; [N, T, 2, H, W] each.
        edits: as `Outcome.edits`, by the checker's count, [N, 4].
        problems: which rule each breaks; empty texts where none is.
    """

    recordings: tuple[Recording, ...]
    candidate: Candidate
    edits: NDArray[np.int32]
    problems: tuple[str, ...]


class Pool(Sequence[tuple[Recording, int]]):
    """The training recordings with their labels, each read when it is asked for."""

    def __init__(self, dataset: EventDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.y_train)

    @overload
    def __getitem__(self, index: int) -> tuple[Recording, int]: ...

    @overload
    def __getitem__(self, index: slice) -> list[tuple[Recording, int]]: ...

    def __getitem__(self, index: int | slice) -> tuple[Recording, int] | list[tuple[Recording, int]]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        return _copy(self.dataset.recordings_train[index]), int(self.dataset.y_train[index])


def lens_of(dataset: EventDataset, attack: Attack, device: torch.device) -> Lens:
    """How a network sees a dataset's recordings, and what else an attack may take events from."""
    pool = (Pool(dataset), dataset.y_train.tolist()) if attack.pool else ()
    return Lens(replace(dataset.framing), dataset.scale, device, *pool)


def propose_edits(
    model: nn.Module, dataset: EventDataset, index: Tensor, y: Tensor, cells: Sequence[CellSpec]
) -> Edited:
    """What one run of an attack on events proposes for some test recordings.

    An attack may be anyone's code: it is given copies, and what it hands back is copied before it is judged.

    Args:
        model: the network under attack.
        dataset: whose recordings they are.
        index: their numbers in the test set, int64 [N], in one chunk.
        y: their labels [N], on the model's device.
        cells: cells of one `trajectory_key`.

    Raises:
        BenchError: the attack failed, changed the model, or returned something else than recordings; or the dataset's
            recordings are not those that its frames were made of.
    """
    first = cells[0]
    attack: Attack = ATTACKS.get(first.attack.family)
    originals = tuple(dataset.recordings_test[number] for number in index.tolist())
    lens = lens_of(dataset, attack, y.device)
    _check_still_those(dataset, index, lens.frames(originals))
    samples = index.to(y.device)

    def work(key: int) -> object:
        threat = event_threat_of(first.attack)
        return run_on_events(
            attack,
            model,
            tuple(map(_copy, originals)),
            y.clone(),
            threat,
            lens_of(dataset, attack, y.device),
            rng=CounterRNG(key, samples.clone()),
            steps=first.attack.steps,
            restarts=first.attack.restarts,
            gradient=parse_gradient(threat.surrogate) if threat.surrogate else None,
            eot=first.attack.eot,
            **attack_arguments(first.attack),
        )

    found = _checked(carefully(model, first, samples, work), len(originals), first.attack.name)
    handed = [_handed(*pair) for pair in zip(originals, found.recordings, strict=True)]
    recordings, threat = tuple(recording for recording, _ in handed), event_threat_of(first.attack)
    frames = lens.frames(recordings)
    counts = [recount(*pair, threat) for pair in zip(originals, recordings, strict=True)]
    edits = np.array([(c.events, c.added, c.removed, c.moved) for c in counts], np.int32).reshape(-1, 4)
    own = frames if found.frames is None else _frames(found.frames, frames, first.attack.name)
    problems = tuple(problem or count.problem for (_, problem), count in zip(handed, counts, strict=True))
    return Edited(recordings, Candidate(frames, own), edits, problems)


def _copy(recording: Recording) -> Recording:
    return Recording(recording.x, recording.y, recording.t, recording.p, recording.sensor)


def _check_still_those(dataset: EventDataset, index: Tensor, frames: Tensor) -> None:
    """The clean accuracy is of frames that were made when the dataset was loaded, maybe hours ago."""
    loaded = dataset.pixels(dataset.x_test[index], frames.device)
    if changed := (loaded != frames).flatten(1).any(1).nonzero().flatten().tolist():
        raise BenchError(
            f"test recording {int(index[changed[0]])} of '{dataset.name}' is not what its frames were made of; "
            "was its file changed? Run the same command again"
        )


def _checked(found: object, count: int, attack: str) -> EventCandidate:
    fits = isinstance(found, EventCandidate) and len(found.recordings) == count
    if not fits or not all(isinstance(one, Recording) for one in found.recordings):  # type: ignore[attr-defined]
        raise BenchError(f"attack '{attack}' must return an EventCandidate of {count} recordings")
    assert isinstance(found, EventCandidate)
    return found


def _handed(original: Recording, found: Recording) -> tuple[Recording, str]:
    """A recording that is one whatever was done to the attack's, and why it is not the attack's."""
    try:
        copy = _copy(found)
    except (ValueError, TypeError, AttributeError) as error:
        return original, f"it is no recording: {error}"
    if copy.sensor != original.sensor:
        return original, f"it is of a sensor of {copy.sensor} and not of {original.sensor}"
    return copy, ""


def _frames(own: Tensor, frames: Tensor, attack: str) -> Tensor:
    if not isinstance(own, Tensor) or own.shape != frames.shape:
        got = list(own.shape) if isinstance(own, Tensor) else type(own).__name__
        raise BenchError(f"attack '{attack}' says that its frames were {got} instead of {list(frames.shape)}")
    return own.detach().to(frames)
