"""The per-image worst case over several attacks, each spent only on the images that still stand."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attacks.base import Attack, Candidate, per_sample
from attacks.combinators import run_attack
from attacks.gradients import SpikeGradient, format_gradient, frozen
from attacks.gradients.estimation import active_estimation
from attacks.losses import margin
from attacks.threat import Threat
from models.neurons import is_stochastic
from models.random import CounterRNG, active_noise_stream
from models.surrogates import Surrogate

SELECTION_DRAWS = 10
_SELECTION = 3 << 30
_DRAWS_PER_MEMBER = 1 << 16


@dataclass(frozen=True)
class Member:
    """One attack of an ensemble, with everything it is called with.

    Attributes:
        attack: the attack.
        steps: its step count; 0 for an attack without steps.
        params: its parameters.
        gradient: how spikes are differentiated; None is the network's own way.
    """

    attack: Attack
    steps: int = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    gradient: Surrogate | SpikeGradient | None = None


def written(members: Sequence[Member]) -> str:
    """What an ensemble's results depend on: its members, in order, with the versions of their code."""
    parts = []
    for member in members:
        run = member.attack.run
        gradient = "own" if member.gradient is None else format_gradient(member.gradient)
        version = getattr(member.gradient, "version", 1)
        params = ",".join(f"{key}={value}" for key, value in sorted(member.params.items()))
        parts.append(f"{run.__name__}{member.steps}v{member.attack.version}:{params}@{gradient}v{version}")
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def kept(members: Sequence[Member], without: str) -> list[Member]:
    """The members of an ensemble, except those that differentiate spikes in some ways.

    Args:
        members: all of it.
        without: names of gradients, joined by `+`; empty leaves out none.

    Raises:
        ValueError: no member has such a gradient, or no member would be left.
    """
    names = {name for name in without.split("+") if name}
    there = dict.fromkeys(member.gradient.name for member in members if member.gradient is not None)
    if unknown := sorted(names - set(there)):
        raise ValueError(f"no member is differentiated by '{unknown[0]}'; without may name {', '.join(there)}")
    left = [member for member in members if member.gradient is None or member.gradient.name not in names]
    if not left:
        raise ValueError(f"without={without} leaves out every member")
    return left


def needing_whole_trains(members: Sequence[Member]) -> str:
    """The gradients of an ensemble that need layers whose whole train is known, as `without` names them."""
    return "+".join(dict.fromkeys(m.gradient.name for m in members if isinstance(m.gradient, SpikeGradient)))


def worst_of(
    members: Sequence[Member],
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    threat: Threat,
    *,
    rng: CounterRNG,
) -> Candidate:
    """Per image, the strongest proposal of any member: most often wrong, then the largest margin loss.

    Members run in order; an image that is wrong in every selection draw is left alone from then on. For a
    stochastic network each proposal is judged on `SELECTION_DRAWS` draws of its noise, the same ones for
    every proposal, so that no member wins by luck alone; these draws are not the harness's scoring draws.

    Cost: what the members spend on the images left to them, and two scorings of these for each.

    Args:
        members: tried in this order, so cheap ones first.
        others: as every attack's.
    """
    draws = SELECTION_DRAWS if is_stochastic(model) else 1
    stream = active_noise_stream()
    first_draw = stream.next_draw if stream is not None else 0
    product = x.clone(memory_format=torch.preserve_format)
    wrong, loss = _judge(model, x, y, draws)
    for number, member in enumerate(members):
        left = torch.nonzero(wrong < 1).squeeze(1)
        if not len(left):
            break
        if stream is None:
            candidate = _run(member, number, model, x[left], y[left], threat, rng.rows(left))
            found = _strongest(model, y[left], candidate, draws)
        else:
            with stream.rows(left):
                stream.seek(first_draw + number * _DRAWS_PER_MEMBER)
                candidate = _run(member, number, model, x[left], y[left], threat, rng.rows(left))
                found = _strongest(model, y[left], candidate, draws)
        stronger = (found.wrong > wrong[left]) | ((found.wrong == wrong[left]) & (found.loss > loss[left]))
        chosen = left[stronger]
        product[chosen] = found.x[stronger]
        wrong[chosen], loss[chosen] = found.wrong[stronger], found.loss[stronger]
    return Candidate(product, product)


@dataclass(frozen=True)
class _Judged:
    x: Tensor
    wrong: Tensor
    loss: Tensor


def _run(
    member: Member, number: int, model: nn.Module, x: Tensor, y: Tensor, threat: Threat, rng: CounterRNG
) -> Candidate:
    path = run_attack(
        member.attack,
        model,
        x,
        y,
        threat,
        rng=rng.fork(number),
        steps=(member.steps,),
        gradient=member.gradient or active_estimation().gradient,
        **member.params,
    )
    return path[member.steps]


def _strongest(model: nn.Module, y: Tensor, candidate: Candidate, draws: int) -> _Judged:
    last = _Judged(candidate.last, *_judge(model, candidate.last, y, draws))
    if candidate.best is candidate.last:
        return last
    best = _Judged(candidate.best, *_judge(model, candidate.best, y, draws))
    better = (best.wrong > last.wrong) | ((best.wrong == last.wrong) & (best.loss > last.loss))
    return _Judged(
        torch.where(per_sample(better, last.x), best.x, last.x),
        torch.where(better, best.wrong, last.wrong),
        torch.where(better, best.loss, last.loss),
    )


def _judge(model: nn.Module, x: Tensor, y: Tensor, draws: int) -> tuple[Tensor, Tensor]:
    """Share of selection draws in which an image is wrong, and its mean margin loss, each [N]."""
    stream = active_noise_stream()
    losses = []
    if stream is not None:
        stream.seek(_SELECTION)
    with frozen(model), torch.no_grad():
        for _ in range(draws):
            losses.append(margin(model(x), y))
    stacked = torch.stack(losses, 1).double()
    # NaN breaks nothing: no proposal may win by it. NaN pixels give finite logits, since NaN is below a threshold.
    believable = stacked.isfinite() & x.flatten(1).isfinite().all(1)[:, None]
    stacked = torch.where(believable, stacked, -torch.inf)
    return (stacked >= 0).double().mean(1), stacked.mean(1)
