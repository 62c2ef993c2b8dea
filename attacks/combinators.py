"""Wrappers that make a stronger attack out of any attack."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import Attack, Candidate, Path, per_sample
from attacks.gradients import SpikeGradient, estimating, frozen
from attacks.grid import OnGrid, to_counts
from attacks.losses import margin
from attacks.threat import Threat
from models.random import CounterRNG, active_noise_stream
from models.surrogates import Surrogate

DRAWS_PER_RUN = 1 << 20
"""Each run of an attack begins so many draws of a noisy network's noise after the one before."""
COMPARISONS = 1 << 31
"""Where the draws begin by which candidates of several runs are compared."""


def run_attack(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    rng: CounterRNG,
    steps: tuple[int, ...] = (),
    gradient: Surrogate | SpikeGradient | None = None,
    eot: int | None = None,
    **params: Any,
) -> Path:
    """One run of any attack, its proposals given as a `Path` whatever it returns itself.

    Where the threat model allows whole counts only, the attack moves freely between them, sees the network as
    `OnGrid` shows it, and what it returns is rounded to the nearest counts.

    Args:
        attack: the attack.
        steps: step counts wanted; empty for an attack without steps, whose path has the one key 0.
        gradient: how the attacker differentiates spikes; None is the network's own way.
        eot: every gradient is the mean over so many draws of the model's noise, see `estimating`.
        others: as the attack's own.
    """
    with estimating(model, gradient, eot):
        if not threat.grid:
            return _run(attack, model, x, y, threat, rng, steps, params)
        seen = model if isinstance(model, OnGrid) else OnGrid(model, threat.grid)
        path = _run(attack, seen, x, y, threat, rng, steps, params)
        return {step: _whole(x, candidate, threat.grid) for step, candidate in path.items()}


def _whole(x: Tensor, candidate: Candidate, grid: int) -> Candidate:
    last = to_counts(x, candidate.last, grid)
    return Candidate(last, last if candidate.best is candidate.last else to_counts(x, candidate.best, grid))


def _run(
    attack: Attack,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    rng: CounterRNG,
    steps: tuple[int, ...],
    params: Mapping[str, Any],
) -> Path:
    if not attack.takes_steps:
        x_adv = attack.run(model, x, y, threat, rng=rng, **params)
        return {0: Candidate(x_adv, x_adv)}
    kept = {"snapshots": steps} if attack.shares_trajectory else {}
    result = attack.run(model, x, y, threat, rng=rng, steps=max(steps), **kept, **params)
    if isinstance(result, Tensor):
        return {max(steps): Candidate(result, result)}
    return result  # type: ignore[no-any-return]


def restarted(
    attack: Attack,
    restarts: int,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    rng: CounterRNG,
    **params: Any,
) -> Path:
    """Run an attack `restarts` times with independent randomness; per sample keep the larger margin loss.

    Cost: restarts times the attack's, and two forwards for each restart and kept step count.
    The first run is exactly the unwrapped attack's.
    """
    kept: dict[int, Candidate] = {}
    for restart in range(restarts):
        seek(restart * DRAWS_PER_RUN)
        path = run_attack(attack, model, x, y, threat, rng=rng.fork(restart), **params)
        if restarts == 1:
            return path
        for step, candidate in path.items():
            previous = kept.get(step)
            kept[step] = candidate if previous is None else _worse(model, y, previous, candidate, restart, step)
    return kept


def _worse(model: nn.Module, y: Tensor, a: Candidate, b: Candidate, restart: int, step: int) -> Candidate:
    """The pointwise stronger of two candidates; ties keep `a`."""

    def pick(first: Tensor, second: Tensor) -> Tensor:
        margins = []
        with frozen(model), torch.no_grad():
            for x in (first, second):
                seek(COMPARISONS + restart * DRAWS_PER_RUN + step)
                margins.append(margin(model(x), y))
        return torch.where(per_sample(margins[1] > margins[0], first), second, first)

    return Candidate(pick(a.last, b.last), pick(a.best, b.best))


def seek(draw: int) -> None:
    """Place a stochastic model's noise by what it is for, not by how many calls came before."""
    stream = active_noise_stream()
    if stream is not None:
        stream.seek(draw)
