"""The surrogate Jacobian of the logits, and Eq. 10 of the TGO paper held against what perturbations do.

The paper (Eq. 7-10) measures the strength of an attack by

    R(f, x, eps) = max over ||d||_p <= 1 of ||f(x + eps d) - f(x)||_2^2

and bounds it by eps^2 ||J||_2^2 + O(eps^2), J the Jacobian of the logits. Read as printed:

- The remainder has the order of the leading term (Appendix B: first O(eps^3), in Eq. 26 O(eps^2)), so that
  as a statement on orders Eq. 10 says nothing. What can be computed, and is meant, is the leading term.
- Eq. 23 uses ||d||_2 <= 1. In the paper's own threat model p is infinity, where ||d||_2 reaches sqrt(D): the
  leading term is too small by a factor of up to D, already for a linear f. The right factor is the norm
  ||J||_{inf->2}^2. Finding it is NP-hard; `linf_gain` bounds it from above.
- Taylor's theorem needs a differentiable f. Spikes are steps: f is constant where no spike flips (so its true
  Jacobian is 0, and so is every A_k of Theorem 2) and jumps where one does. With the surrogate's J in its place
  the inequality has no proof, and it fails in practice: see `JacobianEvidence.violated`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from attacks.base import per_sample
from attacks.projections import ball
from attacks.threat import Threat
from bench.evidence.numbers import Numbers, Spread, spread
from bench.evidence.probe import Probe, grads_of
from models.random import CounterRNG, derive_key

_ROUNDS = 5
_RELATIVE, _ROUNDING = 1e-4, 8 * torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Bound(Numbers):
    """One reading of Eq. 10's leading term against the largest change that was found.

    Attributes:
        value: of the term, squared logit units.
        ratio: value / measured over the images that moved at all; below 1 it is no bound.
        violated: share of images (and draws) in which a perturbation was found that exceeds it. A lower
            estimate: a stronger perturbation may exist.
    """

    value: Spread
    ratio: Spread
    violated: float


@dataclass(frozen=True)
class JacobianEvidence(Numbers):
    """The surrogate Jacobian J [K, D] of the logits at the clean images.

    Attributes:
        norm, eps: of the threat model; eps in pixel units.
        spectral: ||J||_2, exact (all K rows).
        frobenius: ||J||_F.
        zero_images: share of images whose whole Jacobian is zero.
        measured: max of ||f(x') - f(x)||_2^2 over the perturbations tried, a lower estimate of R.
        tried: their names.
        unmoved: share of images that none of them moved.
        printed: eps^2 ||J||_2^2, as printed.
        corrected: with the operator norm that belongs to the threat's p; equal to `printed` for l2.
    """

    norm: str
    eps: float
    spectral: Spread
    frobenius: Spread
    zero_images: float
    measured: Spread
    tried: tuple[str, ...]
    unmoved: float
    printed: Bound
    corrected: Bound


def jacobian(model: nn.Module, x: Tensor) -> Tensor:
    """All rows of the Jacobian of the logits. Cost: 1 forward, K backwards.

    Args:
        model: maps x [N, *] to logits [N, K]; samples must not influence each other (eval mode).
        x: inputs [N, *] of D entries each.

    Returns:
        J [N, K, D], float64 and detached.
    """
    inputs = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(inputs)
        rows = [grads_of(column.sum(), [inputs], keep=True)[0].flatten(1) for column in logits.unbind(1)]
    return torch.stack(rows, 1).double()


def spectral_norm(matrix: Tensor) -> Tensor:
    """Largest singular value of each [K, D] matrix in [N, K, D], from its K by K Gram matrix (Eq. 11): [N]."""
    scale = matrix.abs().amax((1, 2), keepdim=True)
    rows = matrix / torch.where(scale > 0, scale, 1)
    largest = torch.linalg.eigvalsh(rows @ rows.mT)[:, -1].clamp(min=0)
    norm: Tensor = largest.sqrt() * scale[:, 0, 0]
    return norm


def linf_gain(matrix: Tensor) -> Tensor:
    """An upper bound of max ||J d||_2 over ||d||_inf <= 1 for each matrix in [N, K, D]: [N].

    The smaller of sqrt(D) ||J||_2 and the l2 norm of the rows' l1 norms.
    """
    by_rows = torch.linalg.vector_norm(matrix.abs().sum(2), dim=1)
    return torch.minimum(by_rows, spectral_norm(matrix) * matrix.shape[2] ** 0.5)


def steepest_change(matrix: Tensor, norm: str) -> Tensor:
    """A direction of unit norm with a large ||J d||_2, for each matrix in [N, K, D]: [N, D].

    l2: the leading right singular vector, exact. linf: signs, by alternating maximisation from there.
    """
    u: Tensor = torch.linalg.eigh(matrix @ matrix.mT)[1][:, :, -1:]
    d: Tensor = matrix.mT @ u
    if norm == "l2":
        length = torch.linalg.vector_norm(d, dim=1, keepdim=True)
        d = d / torch.where(length > 0, length, 1)
        return d[:, :, 0]
    for _ in range(_ROUNDS):
        d = (matrix.mT @ u).sign()
        u = matrix @ d
    return d[:, :, 0]


def jacobian_evidence(
    model: nn.Module, x: Tensor, probe: Probe, threat: Threat, x_adv: Tensor | None = None
) -> JacobianEvidence:
    """Eq. 10 at the clean images against the logits at perturbed ones, under the same noise.

    The perturbations: two random ones, J's steepest direction both ways, and the attack's if given. Each
    draw of a stochastic network is a network by itself: its J is held against its own change.

    Cost: 6 or 7 forwards and K backwards for each draw.

    Args:
        model: maps x to logits [N, K].
        x: inputs [N, *] in the box.
        probe: gradient and noise.
        threat: norm, eps and box; perturbed images lie in it.
        x_adv: the attack's images [N, *].
    """
    eps = float(threat.eps)
    found: dict[str, list[Tensor]] = {}
    tried: tuple[str, ...] = ()
    for part, draw in probe.parts():
        with probe.realisation(model, part, draw):
            matrix = jacobian(model, x[part])
        logits = _logits(model, x[part], probe, part, draw)
        spectral = spectral_norm(matrix)
        candidates = _candidates(x[part], matrix, threat, probe.samples[part], probe.key)
        if x_adv is not None:
            candidates["the attack's"] = x_adv[part]
        tried = tuple(candidates)
        changes = [
            torch.linalg.vector_norm(_logits(model, images, probe, part, draw) - logits, dim=1)
            for images in candidates.values()
        ]
        values = {
            "spectral": spectral,
            "frobenius": torch.linalg.matrix_norm(matrix),
            "largest": matrix.abs().amax((1, 2)),
            "measured": torch.stack(changes).amax(0),
            "size": torch.linalg.vector_norm(logits, dim=1),
            "printed": eps * spectral,
            "corrected": eps * (linf_gain(matrix) if threat.norm == "linf" else spectral),
        }
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    v = {name: torch.cat(values) for name, values in found.items()}
    return JacobianEvidence(
        threat.norm,
        eps,
        spread(v["spectral"]),
        spread(v["frobenius"]),
        float((v["largest"] == 0).double().mean()),
        spread(v["measured"].square()),
        tried,
        float((v["measured"] == 0).double().mean()),
        _bound(v["printed"], v["measured"], v["size"]),
        _bound(v["corrected"], v["measured"], v["size"]),
    )


def _logits(model: nn.Module, x: Tensor, probe: Probe, part: slice, draw: int) -> Tensor:
    with probe.realisation(model, part, draw), torch.no_grad():
        logits: Tensor = model(x)
    return logits.double()


def _candidates(x: Tensor, matrix: Tensor, threat: Threat, samples: Tensor, key: int) -> dict[str, Tensor]:
    steepest = steepest_change(matrix, threat.norm).to(x.dtype).view_as(x)
    made = {f"J's steepest {way}": moved(x, sign * steepest, threat) for way, sign in (("+", 1), ("-", -1))}
    for number in (1, 2):
        made[f"random {number}"] = random_point(x, threat, CounterRNG(derive_key(key, "random", number), samples))
    return made


def random_point(x: Tensor, threat: Threat, rng: CounterRNG) -> Tensor:
    """Random noise of exactly size eps, clipped to the box: signs for linf, a uniform direction for l2; [N, *]."""
    noise = rng.normal(1, x.shape[1:])[0].to(x.dtype)
    if threat.norm == "linf":
        noise = torch.where(noise < 0, -1.0, 1.0).to(x.dtype)
    else:
        noise = noise / per_sample(torch.linalg.vector_norm(noise.flatten(1), dim=1), noise)
    return moved(x, noise, threat)


def moved(x: Tensor, direction: Tensor, threat: Threat) -> Tensor:
    """x + eps * direction within the ball and the box, for a direction of unit norm: [N, *]."""
    size = float(threat.eps)
    if threat.norm == "l2":
        # Rounding may lengthen a step; one that ends inside the ball is not projected.
        size *= 1 - 2.0**-18
    return ball(x, threat).project((x + size * direction).clamp(threat.low, threat.high))


def _bound(bound: Tensor, measured: Tensor, size: Tensor) -> Bound:
    """Both in logit units, not yet squared; `size` of the logits tells rounding from a violation."""
    violated = measured > bound * (1 + _RELATIVE) + _ROUNDING * size
    ratio = (bound / measured).square()
    return Bound(
        spread(bound.square()), spread(ratio[measured > 0]), float(violated.double().mean()) if len(bound) else 0.0
    )
