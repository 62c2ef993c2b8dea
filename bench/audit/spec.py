"""What one audit is of, as a value."""

from dataclasses import dataclass
from fractions import Fraction

from bench.spec import ModelSpec, added, identity

AUDIT_VERSION = 1
"""Raise it when a change of a check may change a finding."""


@dataclass(frozen=True)
class AuditSpec:
    """What one audit is of: its key.

    Attributes:
        weights, model, test_hash: as a cell's.
        n: the first so many test images.
        norm, eps: of the attacks.
        high: the largest value that an input may take; the least is 0.
    """

    weights: str = identity()
    model: ModelSpec = identity()
    test_hash: str = identity()
    n: int = identity()
    norm: str = identity()
    eps: Fraction = identity()
    version: int = identity(default=AUDIT_VERSION)
    high: float = added(1.0)
