"""What every registered attack must do and must not do, tried on a network whose optimum is known."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from attacks.threat import Norm, Threat
from bench.doctor.finding import Finding, NotApplicableError, UnsoundError, examine
from bench.doctor.oracle import SLACK, Problem, problem
from bench.doctor.subject import Subject, subject
from bench.doctor.trial import PlannedError, Trial, trial
from bench.registry import ATTACKS

GROUP = "attacks"
SHARES = {"clean": 0.0, "rfgsm": 0.4, "square": 0.6}
"""Attacks that are not meant to reach the optimum, and how much of the way they must go on average. RFGSM's two
half steps cancel on half of the pixels; Square searches at random."""
_TOLERANCES: dict[Norm, float] = {"linf": 1e-3, "l2": 1e-2}
_SAME = 1e-9


def attack_findings() -> Iterator[Callable[[torch.device], Iterator[Finding]]]:
    """One function for each registered attack, giving its findings on a device."""
    for family in ATTACKS.names():
        yield partial(findings_of, family)


def findings_of(family: str, device: torch.device) -> Iterator[Finding]:
    """The findings on the attack of a registered name."""
    found: list[Subject] = []

    def load() -> str:
        tested = subject(family)
        tested.spec(tested.norms[0])
        found.append(tested)
        return ""

    loading = examine(GROUP, family, "loads", load)
    yield loading
    if found:
        yield from _checks(found[0], device)


def _checks(tested: Subject, device: torch.device) -> Iterator[Finding]:
    first = tested.norms[0]
    problems = {norm: problem(norm, device, only_breakable=tested.dear) for norm in tested.norms}
    runs = {norm: trial(tested, problems[norm], norm) for norm in tested.norms}

    def check(name: str, test: Callable[[], str]) -> Finding:
        return examine(GROUP, tested.family, name, test)

    for norm in tested.norms:
        yield check(f"optimum {norm}", partial(_optimum, tested, problems[norm], runs[norm], norm))
    yield check("ball", partial(_ball, tested, problems, runs, device))
    yield check("repeats", partial(_repeats, tested, problems[first], runs[first], first))
    yield check("model", partial(_untouched, [run.changed for run in runs.values()], "changes the model: "))
    yield check("inputs", partial(_untouched, [run.inputs for run in runs.values()], "changes its inputs: "))
    moved = [run.generators for run in runs.values()]
    yield check("generators", partial(_untouched, moved, "moves "))
    yield check("errors", partial(_after_errors, tested, problems[first], runs[first], first))
    yield check("neighbours", partial(_neighbours, tested, problems[first], runs[first], first))
    yield check("cost", partial(_cost, tested, problems[first], runs[first], first))


def _optimum(tested: Subject, task: Problem, run: Trial, norm: Norm) -> str:
    """Whether the last iterate is the worst point of the ball; of attacks without gradients only how near it is."""
    last = run.proposal.last
    start, reached = task.margins(task.x), task.margins(last)
    shares = (reached - start) / (task.highest - start)
    share = float(shares.mean())
    least = SHARES.get(tested.family)
    if least is not None and not share >= least:
        raise UnsoundError(f"goes {share:.0%} of the way to the optimum, less than {least:.0%}")
    if least is not None or not run.backwards:
        return f"{share:.0%}"
    standing = task.highest > 0
    short = int((reached[standing] <= 0).sum())
    if short:
        raise UnsoundError(
            f"leaves {short} of {int(standing.sum())} images standing that {1 - SLACK:.0%} of eps breaks; "
            f"goes {share:.1%} of the way to the {norm} optimum"
        )
    # An attack that only looks for success hands an image that cannot be broken back as it was.
    tried = ~standing & (last != task.x).flatten(1).any(1)
    below = tried & (shares < 1 - _TOLERANCES[norm])
    if bool(below.any()):
        raise UnsoundError(
            f"stops at {float(shares[below].min()):.1%} of the way to the {norm} optimum of a linear network"
        )
    return f"{share:.1%}"


def _ball(tested: Subject, problems: dict[Norm, Problem], runs: dict[Norm, Trial], device: torch.device) -> str:
    """In float64, and in float32, where x + eps may round to a point further than eps from x."""
    for norm in tested.norms:
        narrow = problem(norm, device, torch.float32, only_breakable=tested.dear)
        for task, run in ((problems[norm], runs[norm]), (narrow, trial(tested, narrow, norm))):
            for images in run.proposal:
                outside, excess = _excess(task.x, images, task.threat)
                if outside:
                    raise UnsoundError(
                        f"{outside} of {len(images)} images leave the {norm} ball or the box, by up to {excess:.1e} "
                        f"({str(images.dtype).removeprefix('torch.')})"
                    )
    return ""


def _excess(x: Tensor, images: Tensor, threat: Threat) -> tuple[int, float]:
    """How many images break the threat model, recomputed in float64, and by how much."""
    wide = images.double().flatten(1)
    delta = wide - x.double().flatten(1)
    size = delta.abs().amax(1) if threat.norm == "linf" else torch.linalg.vector_norm(delta, dim=1)
    out = torch.maximum(threat.low - wide.amin(1), wide.amax(1) - threat.high)
    excess = torch.maximum(size - float(threat.eps), out)
    return int((~(excess <= 0)).sum()), float(excess.max())


def _repeats(tested: Subject, task: Problem, run: Trial, norm: Norm) -> str:
    again = trial(tested, task, norm)
    for first, second in zip(run.proposal, again.proposal, strict=True):
        if not torch.equal(first, second):
            raise UnsoundError("gives other images when it is run again")
    return ""


def _untouched(changed: list[list[str]], what: str) -> str:
    names = [name for part in changed for name in part]
    if names:
        more = f" and {len(names) - 2} more" if len(names) > 2 else ""
        raise UnsoundError(what + ", ".join(names[:2]) + more)
    return ""


def _after_errors(tested: Subject, task: Problem, plain: Trial, norm: Norm) -> str:
    """What is left behind when the network raises in its first or third call, and is not otherwise."""
    for call in (1, 3):
        run = trial(tested, task, norm, fails_at=call)
        if run.error is None:
            continue
        if not _planned(run.error):
            raise run.error
        left = {*run.changed, *run.inputs, *run.generators} - {*plain.changed, *plain.inputs, *plain.generators}
        _untouched([sorted(left)], f"when the network raises in call {call}, leaves changed: ")
    return ""


def _planned(error: BaseException | None) -> bool:
    """Whether an exception is the network's own, or was raised on its account."""
    while error is not None:
        if isinstance(error, PlannedError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _neighbours(tested: Subject, task: Problem, run: Trial, norm: Norm) -> str:
    if tested.attack.own_batches:
        raise NotApplicableError("makes batches of its own")
    whole, n = run.proposal, len(task.x)
    order = torch.arange(n, device=task.x.device).flip(0)
    # All but one in another order, and that one alone.
    for part in (order[: n - 1], order[n - 1 :]):
        alone = trial(tested, task.rows(part), norm, part).proposal
        for first, second in zip(whole, alone, strict=True):
            worst = float((first[part] - second).abs().max())
            if not worst <= _SAME:
                raise UnsoundError(
                    f"an image's result depends on its neighbours or its place (pixels move {worst:.1e})"
                )
    return ""


def _cost(tested: Subject, task: Problem, plain: Trial, norm: Norm) -> str:
    """The passes of an image that no attack can break: an attack that stops early states the cost of not stopping."""
    standing = task.highest < 0
    run = trial(tested, task.rows(standing), norm) if bool(standing.any()) else plain
    stated = tested.attack.cost(tested.spec(norm).steps)
    for what, most, spent in zip(("forwards", "backwards"), stated, (run.forwards, run.backwards), strict=True):
        if spent > most:
            raise UnsoundError(f"spends {spent:g} {what} on an image that it cannot break and states {most}")
    return f"{run.forwards:.0f}+{run.backwards:.0f}"
