"""The verdict on one cell, from its outcome alone."""

from dataclasses import dataclass

import numpy as np

from bench.audit.finding import INVALID, OK, SUSPECT, Finding, limited, verdict_of
from bench.outcome import Flag, Outcome
from bench.statistics import wilson

ZERO_GRADIENT_LIMIT = 0.05
TIE_LIMIT = 0.05
BACKFIRE_LIMIT = 0.25


@dataclass(frozen=True)
class Judgement:
    """A cell's verdict and every finding that is behind it."""

    verdict: str
    findings: tuple[Finding, ...]


_LEGAL = {
    False: ("ball", "proposals in the ball and the box", "proposals outside the ball"),
    True: ("edits", "edits within the budget and the rules", "edits that the threat model forbids"),
}


def judge_cell(outcome: Outcome, classes: int, *, gradients: bool) -> Judgement:
    """Decide whether a cell's rates can be believed.

    Invalid are NaN logits, proposals outside of the ball and a placebo that differs; suspect are zero gradients and
    ties on more than 5% of the images, a clean accuracy that may be chance, and an attack that made more than a
    quarter of the images safer.

    Args:
        outcome: of every image.
        classes: K.
        gradients: whether the attack took gradients.
    """
    findings = [
        _flagged(outcome, Flag.NAN, "nan", "finite logits", "NaN or infinite logits"),
        _flagged(outcome, Flag.OUTSIDE, *_LEGAL[outcome.edits is not None]),
        _flagged(outcome, Flag.PLACEBO, "placebo", "eps = 0 scores as no attack", "eps = 0 scores differently"),
        _flagged(outcome, Flag.TIE, "ties", "ties", "ties for the first place, which count as wrong", TIE_LIMIT),
        _chance(outcome, classes),
    ]
    if gradients:
        findings += [_blind(outcome), _backfire(outcome)]
    return Judgement(verdict_of(findings), tuple(findings))


def majority_hits(outcome: Outcome) -> int:
    """Images that are right without and under attack in more than half of the scoring draws."""
    return int((outcome.robust_last > 0.5).sum())


def _flagged(outcome: Outcome, flag: Flag, check: str, fine: str, wrong: str, limit: float = 0.0) -> Finding:
    count = int((outcome.flags & flag != 0).sum())
    verdict = SUSPECT if limit else INVALID
    says = f"{count} of {outcome.n} images with {wrong}"
    calm = says if count else f"{fine} on all images" if not limit else f"no {fine}"
    return limited(check, count / outcome.n, limit, calm, says, verdict)


def _blind(outcome: Outcome) -> Finding:
    """Over the images at which a gradient was seen: an attack may leave some alone, or make its own batches."""
    watched = int((outcome.flags & Flag.UNWATCHED == 0).sum())
    if not watched:
        return Finding("zero gradient", OK, None, ZERO_GRADIENT_LIMIT, "not watched: the attack makes its own batches")
    zero = int((outcome.flags & Flag.ZERO_GRADIENT != 0).sum())
    says = f"{zero} of {watched} images with an input gradient of exactly zero: the attack was blind there"
    calm = says if zero else f"no zero gradients at {watched} images"
    return limited("zero gradient", zero / watched, ZERO_GRADIENT_LIMIT, calm, says)


def _chance(outcome: Outcome, classes: int) -> Finding:
    clean = wilson(float(outcome.clean.mean(1).sum()), outcome.n)
    above = clean.low > 1 / classes
    # Written as an error rate, so that more is worse as everywhere.
    return Finding(
        "chance",
        OK if above else SUSPECT,
        1 - clean.low,
        1 - 1 / classes,
        f"clean accuracy {clean.value:.1%} is {'above' if above else 'not clearly above'} chance, {1 / classes:.1%}",
    )


def _backfire(outcome: Outcome) -> Finding:
    """An attack that follows a useful gradient lowers the margin of almost every image."""
    right = outcome.clean.all(1)
    if not right.any():
        return Finding("backfire", OK, None, None, "no image is right without attack")
    safer = outcome.margin_last[right] > outcome.margin_clean[right]
    share = float(np.mean(safer))
    says = f"the attack raised the margin of {share:.0%} of the images that are right without it"
    return limited("backfire", share, BACKFIRE_LIMIT, says, f"{says}: its gradients mislead")
