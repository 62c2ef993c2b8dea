"""One attack, ours or another's, measured by one rule."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from attacks.external.hosting import View, hosted
from attacks.gradients import frozen
from attacks.projections import ball
from attacks.threat import Threat
from bench import evaluation
from bench.errors import BenchError, describe
from bench.evaluation import CountedModel
from bench.evidence.attacked import attacked_images
from bench.hygiene import Snapshot
from bench.peers.adapter import Arena
from bench.proposal import CHUNK
from bench.resolve import attack_arguments, threat_of
from bench.spec import CellSpec, randomness_key
from models.random import derive_key


@dataclass(frozen=True)
class Subject:
    """The network and the images that every attack of a contest meets.

    Attributes:
        model: the network.
        x: the first test images [N, C, H, W].
        y: their labels [N].
        classes: K.
        score_key, draws: of the scoring noise, the harness's own.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    classes: int
    score_key: int
    draws: int

    @property
    def samples(self) -> Tensor:
        """Dataset indices of the images."""
        return torch.arange(len(self.x), device=self.x.device)


@dataclass(frozen=True)
class Measured:
    """What an attack achieved and what it spent.

    Attributes:
        clean, robust: share of scoring draws in which each image is right without attack, and both without and
            under it, [N].
        outside: images whose candidate broke the threat model in float64 and was projected.
        excess: by how much at most, in pixel units.
        undone: images of these that stand more often after the projection than before.
        forwards, backwards: passes of the network for each image; scoring is not counted.
        seconds: of the attack alone.
        error: why there is no result; everything else is empty then.
        refused: whether that is because it cannot be asked for one.
    """

    clean: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    robust: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    outside: int = 0
    excess: float = 0.0
    undone: int = 0
    forwards: float = 0.0
    backwards: float = 0.0
    seconds: float = 0.0
    error: str = ""
    refused: bool = False


def measure_ours(subject: Subject, cell: CellSpec) -> Measured:
    """Our attack as the harness runs it: the same random numbers, and so the same images, as `bench run`."""
    return _measure(subject, threat_of(cell.attack), lambda model: attacked_images(model, subject.x, subject.y, cell))


def measure_theirs(subject: Subject, cell: CellSpec, attack: Callable[[Arena], Tensor], steps: int) -> Measured:
    """Another library's attack, at the budget and with the step size of one of our cells.

    It sees the network as a function of images, in chunks of the size that ours sees. Noise comes from torch's
    generator, seeded for the chunk; so do the library's random numbers. Whether it succeeded is not asked of it.
    """
    threat = threat_of(cell.attack)
    alpha = float(attack_arguments(cell.attack).get("alpha", 0.0))
    key = derive_key(randomness_key(cell), "peer")

    def run(model: nn.Module) -> Tensor:
        found = []
        for start in range(0, len(subject.x), CHUNK):
            x, y = (part[start : start + CHUNK].clone() for part in (subject.x.contiguous(), subject.y))
            seed = derive_key(key, start) % 2**31
            with frozen(model), hosted(seed):
                arena = Arena(View(model, x), x.clone(), y, threat, steps, alpha, subject.classes, seed)
                candidates = attack(arena)
            if not isinstance(candidates, Tensor) or candidates.shape != x.shape:
                raise BenchError(f"returned {getattr(candidates, 'shape', type(candidates).__name__)}, not images")
            found.append(candidates.detach().to(x.device, x.dtype))
        return torch.cat(found)

    return _measure(subject, threat, run)


def _measure(subject: Subject, threat: Threat, run: Callable[[nn.Module], Tensor]) -> Measured:
    counted, before = CountedModel(subject.model), Snapshot(subject.model)
    counted.reset(torch.arange(len(subject.x), device=subject.x.device))
    began = time.perf_counter()
    try:
        candidates = run(counted)
    except Exception as error:
        return Measured(error=describe(error))
    finally:
        before.restore()
    seconds = time.perf_counter() - began
    n = len(subject.x)
    forwards, backwards = counted.forwards / n, counted.backwards / n
    legal, outside, excess = made_legal(subject.x, candidates, threat)
    clean, attacked = (_correct(subject, images) for images in (subject.x, legal))
    robust, undone = (clean & attacked).mean(1), 0
    if outside:
        undone = int((robust > (clean & _correct(subject, candidates)).mean(1)).sum())
    return Measured(clean.mean(1), robust, outside, excess, undone, forwards, backwards, seconds)


def made_legal(x: Tensor, candidates: Tensor, threat: Threat) -> tuple[Tensor, int, float]:
    """Candidates [N, *] inside the ball and the box, how many were not, and by how much; x itself where not finite."""
    candidates = candidates.detach()
    inside = evaluation.feasible(x, candidates, threat)
    finite = torch.isfinite(candidates).flatten(1).all(1).view(-1, *[1] * (x.dim() - 1))
    candidates = torch.where(finite, candidates, x)
    delta = candidates.double() - x.double()
    wide = candidates.double()
    over = torch.maximum(delta.abs() - float(threat.eps), torch.maximum(threat.low - wide, wide - threat.high))
    excess = float(over.max()) if bool(finite.all()) else float("inf")
    return ball(x, threat).project(candidates), int((~inside).sum()), max(excess, 0.0)


def _correct(subject: Subject, images: Tensor) -> NDArray[np.bool_]:
    """Whether each image is right, by scoring draw [N, draws]; the harness's rule and noise."""
    parts = []
    for start in range(0, len(images), CHUNK):
        part = slice(start, start + CHUNK)
        score = evaluation.score(
            subject.model, images[part], subject.y[part], subject.samples[part], subject.score_key, subject.draws
        )
        parts.append(score.correct.cpu().numpy())
    return np.concatenate(parts)
