"""Which audit speaks about a cell, and what it means for the cell's verdict."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from bench.audit.finding import NOTE, OK, Finding, verdict_of, worst
from bench.canonical import canonical_json


@dataclass(frozen=True)
class AuditRow:
    """A stored audit as reports see it."""

    key: str
    eps: str
    n: int
    version: int
    verdict: str
    findings: tuple[Finding, ...]
    seconds: float
    created: datetime


class Network(NamedTuple):
    """What an audit and a cell must have in common: the same bits, run as the same model, under one norm."""

    sha256: str
    model_hash: str
    norm: str


def hash_of_model(model: Mapping[str, Any]) -> str:
    """Names a model, from its identity as JSON values."""
    return hashlib.sha256(canonical_json(model).encode()).hexdigest()


def relevant(audits: Sequence[AuditRow], eps: str) -> AuditRow | None:
    """Of a network's audits the one to believe: newest checks, then the cell's own budget, then most images.

    Args:
        audits: oldest first.
        eps: the cell's, as stored.
    """
    return max(audits, key=lambda audit: (audit.version, audit.eps == eps, audit.n, audit.created), default=None)


def joined(
    verdict: str, own: tuple[Finding, ...] | None, audit: AuditRow, spec: Mapping[str, Any]
) -> tuple[str, tuple[Finding, ...]]:
    """The worse of a cell's own verdict and the audit's, and the findings behind it.

    Args:
        verdict, own: the cell's.
        audit: of its network.
        spec: the cell's identity.
    """
    concerning = tuple(f for f in audit.findings if f.verdict not in (OK, NOTE) and concerns(f, spec["attack"]))
    return worst((verdict, verdict_of(concerning))), (own or ()) + concerning


def concerns(finding: Finding, attack: Mapping[str, Any]) -> bool:
    """Whether a finding about a network casts doubt on a cell: not where the cell's attack heeds it already.

    Args:
        attack: the cell's attack, as JSON values.
    """
    heeded = _HEEDED.get(finding.check)
    return heeded is None or not heeded(attack)


_MANY_GRADIENTS = ("sweep", "snn-standard")
_EOT = 8
_STEPS = 40

_HEEDED: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "surrogate spread": lambda attack: attack["family"] in _MANY_GRADIENTS,
    "eot": lambda attack: attack.get("eot", 1) >= _EOT,
    "steps": lambda attack: attack["steps"] >= _STEPS,
    "saturated ce": lambda attack: dict(attack["params"]).get("loss", "ce") != "ce",
}
