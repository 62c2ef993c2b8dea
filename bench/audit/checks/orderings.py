"""Orders that must hold between attacks whatever the network: a stronger attacker breaks no fewer images."""

import numpy as np

from bench.audit.finding import NOTE, OK, Finding, limited
from bench.audit.lab import Lab
from bench.audit.paired import broken_more
from models.surrogates import SURROGATES

GAP = 0.03
UNBOUNDED, STEPS_NOTE, STEPS_LIMIT = 0.05, 0.02, 0.10
SPREAD_NOTE, SPREAD = 0.05, 0.10
OTHERS = ("arctan:alpha=2", "arctan:alpha=4", "triangular:gamma=2", "rga", "assg")
"""Gradients of other kinds than a network's own surrogate."""
STEPWISE = tuple(name for name in OTHERS if name.partition(":")[0] in SURROGATES)
"""Those of them for a network whose layers do not show whole trains."""
_MANY = (5, 10, 20)


def _pgd(lab: Lab, steps: int) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    lab.outcome("pgd40", steps=_MANY)
    return lab.stands(f"pgd{steps}")


def more_steps(lab: Lab) -> Finding:
    """PGD-40 against PGD-20: an attack that still gains has not converged. And no fewer steps may be stronger."""
    stands = {steps: _pgd(lab, steps) for steps in (*_MANY, 40)}
    for fewer, more in ((5, 10), (10, 20), (20, 40)):
        wrong = f"PGD-{fewer} breaks more images than PGD-{more}"
        finding = broken_more("steps", stands[fewer], stands[more], GAP, "", wrong)
        if finding.verdict != OK:
            return finding
    fine, wrong = "PGD-40 against PGD-20", "PGD still gains from 20 to 40 steps: use more"
    finding = broken_more("steps", stands[40], stands[20], STEPS_LIMIT, fine, wrong)
    if finding.verdict != OK:
        return finding
    return broken_more("steps", stands[40], stands[20], STEPS_NOTE, fine, wrong, NOTE)


def iterative(lab: Lab) -> Finding:
    """Twenty steps against one."""
    return broken_more(
        "iterative",
        lab.stands("fgsm"),
        _pgd(lab, 20),
        GAP,
        "FGSM against PGD-20",
        "one step (FGSM) breaks more images than twenty (PGD)",
    )


def noise(lab: Lab) -> Finding:
    """A gradient against none: a random point of the ball."""
    return broken_more(
        "noise",
        lab.stands("pgd1:alpha=0"),
        _pgd(lab, 20),
        0.0,
        "random noise against PGD-20",
        "random noise of the same size breaks more images than PGD-20",
    )


def monotone_eps(lab: Lab) -> Finding:
    """A larger ball holds every point of a smaller one."""
    eps = lab.spec.eps
    for small, large in ((eps / 2, eps), (eps, min(2 * eps, lab.whole_range))):
        if large == small:
            continue
        finding = broken_more(
            "eps",
            lab.stands("pgd20", small) if small != eps else _pgd(lab, 20),
            lab.stands("pgd20", large) if large != eps else _pgd(lab, 20),
            GAP,
            f"PGD-20 at eps {float(small):.3g} against {float(large):.3g}",
            f"PGD-20 breaks more images at eps {float(small):.3g} than at {float(large):.3g}",
        )
        if finding.verdict != OK:
            return finding
    return finding


def more_restarts(lab: Lab) -> Finding:
    """The best of three runs against the first of them."""
    return broken_more(
        "restarts",
        _pgd(lab, 20),
        lab.stands("pgd20:restarts=3"),
        GAP,
        "one run of PGD-20 against the best of three",
        "one run of PGD-20 breaks more images than the best of three",
    )


def unbounded(lab: Lab) -> Finding:
    """With every image in reach nothing may survive."""
    runs = ["pgd20", "pgd20@arctan:alpha=2"] if lab.spiking else ["pgd20"]
    left = np.logical_and.reduce([lab.stands(run, lab.whole_range) for run in runs])
    share = float(left.mean())
    says = f"with eps = {float(lab.whole_range):g}, where every image is in reach, {share:.1%} survive"
    return limited("unbounded", share, UNBOUNDED, says, f"{says}: the attack cannot find what is there")


def black_box(lab: Lab) -> Finding:
    """Who sees the gradient must not do worse than random search, which sees scores alone."""
    if lab.spec.norm != "linf":
        return Finding("black box", OK, None, GAP, "not measured: Square is defined for linf")
    return broken_more(
        "black box",
        lab.stands("square300"),
        _pgd(lab, 40),
        GAP,
        "random search (Square, 300 queries) against PGD-40",
        "random search (Square, 300 queries) breaks more images than PGD-40: the gradient is masked",
    )


def transfer(lab: Lab) -> Finding:
    """Images crafted through the network's twin without spikes must not do better than its own gradient."""
    if not lab.spiking:
        return Finding("transfer", OK, None, GAP, "not measured: the network has no spiking layers")
    if not lab.whole_trains:
        return Finding("transfer", OK, None, GAP, "not measured: a neuron that is called step by step has no such twin")
    return broken_more(
        "transfer",
        lab.stands("pgd20@conversion"),
        _pgd(lab, 20),
        GAP,
        "images crafted through the twin without spikes against the network's own gradient",
        "images crafted through the twin without spikes break more than its own gradient: it is masked",
    )


def surrogate_spread(lab: Lab) -> Finding:
    """What other ways to differentiate the same spikes break, beyond as much work with the network's own."""
    if not lab.spiking:
        return Finding("surrogate spread", OK, None, SPREAD, "not measured: the network has no spiking layers")
    own = lab.stands("apgd30:loss=margin,restarts=3")
    others = OTHERS if lab.whole_trains else STEPWISE
    stands = {name: lab.stands(f"apgd30:loss=margin@{name}") for name in others}
    worst = np.logical_and.reduce([own, *stands.values()])
    strongest = min(stands, key=lambda name: int(stands[name].sum()))
    fine = f"worst case over {len(others)} other gradients too, against the network's own alone"
    wrong = (
        f"other gradients break more images than the network's own surrogate (most: @{strongest}); attack with "
        "snn-standard"
    )
    finding = broken_more("surrogate spread", worst, own, SPREAD, fine, wrong)
    if finding.verdict != OK:
        return finding
    return broken_more("surrogate spread", worst, own, SPREAD_NOTE, fine, wrong, NOTE)
