"""Stored cells as reports see them, and how they are read: without what most readers never look into."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.orm import Session

from attacks.threat import continuous
from bench.audit.finding import Finding
from bench.audit.join import AuditRow, Network, hash_of_model, joined, relevant
from bench.statistics import Rate, success_rate, wilson
from bench.store.problems import damaged
from bench.store.schema import DONE, Audit, Cell, Weights

_FEW_WEIGHTS = 500


@dataclass(frozen=True)
class Summary:
    """The rates of one finished cell, each with n and a 95% Wilson interval.

    Attributes:
        clean: accuracy without attack.
        robust: correct without and under the attack's last iterate.
        robust_any: as robust, under the worse of the last and the strongest iterate on the attack's path.
        attack_success: share of the clean-correct images that the last iterate flips.
        worst_draw: images right in every scoring draw, with and without attack.
        majority: images right in more than half of the draws, with and without attack; None for cells stored
            before this was counted.
    """

    clean: Rate
    robust: Rate
    robust_any: Rate
    attack_success: Rate
    worst_draw: Rate
    majority: Rate | None = None


class Stored(Mapping[str, Any]):
    """A JSON object of the store, read when it is looked into: a list of a million cells needs the spec of none.

    Args:
        text: as it is stored.
        target: the store, for its errors.
    """

    __slots__ = ("_target", "_text", "_value")

    def __init__(self, text: str, target: str) -> None:
        self._text: str | None = text
        self._target = target

    @property
    def value(self) -> dict[str, Any]:
        """The object.

        Raises:
            StoreError: it is none.
        """
        if self._text is not None:
            try:
                self._value: dict[str, Any] = json.loads(self._text)
            except ValueError as error:
                raise damaged(self._target, f"the specification of a cell: {error}") from error
            self._text = None
        return self._value

    def __getitem__(self, name: str) -> Any:
        return self.value[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self.value | dict(other)

    def __repr__(self) -> str:
        return repr(self.value)


class Names(NamedTuple):
    """What cells are called that differ in their seeds and budgets at most."""

    dataset: str
    model: str
    defense: str
    attack: str


class Kind(NamedTuple):
    """Cells that agree in what they are called and in what came of them.

    Attributes:
        verdict: their own, before any audit of the network.
        cells: how many.
    """

    dataset: str
    model: str
    defense: str
    attack: str
    status: str
    verdict: str | None
    cells: int


@dataclass(frozen=True)
class CellRow:
    """A stored cell as reports see it.

    Attributes:
        verdict: the worse of the cell's own and what the audit of its network says about such a cell.
        batch: how many images at once fitted into memory, where that was less than a chunk.
        findings: what is behind the verdict: the cell's own, then the audit's that concern it. None for cells
            stored before findings were kept.
        audit: the audit of the same weights, model and norm; None if there was none.
    """

    key: str
    status: str
    verdict: str | None
    dataset: str
    model: str
    defense: str
    seed: int
    attack: str
    norm: str
    eps: str
    n: int
    draws: int
    flags: Mapping[str, int]
    forwards: int
    backwards: int
    seconds: float
    error: str | None
    weights_key: str
    spec: Mapping[str, Any]
    updated: datetime
    summary: Summary | None
    findings: tuple[Finding, ...] | None = None
    audit: AuditRow | None = None
    batch: int | None = None

    @property
    def stops_early(self) -> bool:
        """Whether its attack left images alone once they were broken, so that there is no last iterate to speak of."""
        return bool(dict(self.spec["attack"].get("params", ())).get("early_stop"))


_OWN = ("summary", "flags", "verdict", "findings", "audit", "spec")
_SHARED = tuple(name for name in CellRow.__dataclass_fields__ if name not in _OWN)
_HITS = (Cell.clean_hits, Cell.robust_hits, Cell.robust_any_hits, Cell.worst_draw_hits, Cell.majority_hits)
# JSON comes as text: most of it is read by nobody, or is the same in many rows.
_TEXTS = (sa.cast(column, sa.Text).label(column.key) for column in (Cell.spec, Cell.flags, Cell.findings))
_READ = (*(getattr(Cell, name) for name in _SHARED), Cell.verdict, *_HITS, *_TEXTS)


def read_rows(
    session: Session, target: str, *where: Any, order: Sequence[Any] = (), limit: int | None = None
) -> list[CellRow]:
    """Cells as reports see them, each with the audit of its network.

    Args:
        session: to read with.
        target: the store, for its errors.
        where, order, limit: which cells, and how they are sorted.
    """
    cells = session.execute(sa.select(*_READ).where(*where).order_by(*order).limit(limit)).all()
    audits, bits = _audits_of(session, {cell.weights_key for cell in cells})
    return [_row(cell, audits, bits, target) for cell in cells]


def _audits_of(session: Session, weights: set[str]) -> tuple[dict[Network, list[AuditRow]], dict[str, str]]:
    """The audits of some weights, oldest first, and what bits all of these are."""
    audits: dict[Network, list[AuditRow]] = {}
    if not weights or session.scalar(sa.select(Audit.key).limit(1)) is None:
        return {}, {}
    known = sa.select(Weights.key, Weights.sha256)
    # By their bits: one set of weights may be known under several keys.
    query = sa.select(Audit, Weights.sha256).join(Weights, Audit.weights_key == Weights.key)
    few = len(weights) <= _FEW_WEIGHTS
    bits = dict(session.execute(known.where(Weights.key.in_(weights)) if few else known).all())
    query = query.where(Weights.sha256.in_(set(bits.values()))) if few else query
    for row, sha256 in session.execute(query.order_by(Audit.created)):
        audits.setdefault(Network(sha256, row.model_hash, row.norm), []).append(audit_row(row))
    audited = {network.sha256 for network in audits}
    return audits, {key: sha256 for key, sha256 in bits.items() if sha256 in audited}


def _row(cell: Any, audits: Mapping[Network, Sequence[AuditRow]], bits: Mapping[str, str], target: str) -> CellRow:
    summary, verdict, audit = None, cell.verdict, None
    findings, spec = _findings(cell.findings), Stored(cell.spec, target)
    if cell.status == DONE:
        assert cell.clean_hits is not None and cell.robust_hits is not None and cell.verdict is not None
        assert cell.robust_any_hits is not None and cell.worst_draw_hits is not None
        correct = round(cell.clean_hits, 9)
        summary = Summary(
            wilson(cell.clean_hits, cell.n),
            wilson(cell.robust_hits, cell.n),
            wilson(cell.robust_any_hits, cell.n),
            success_rate(correct, correct - cell.robust_hits),
            wilson(cell.worst_draw_hits, cell.n),
            wilson(cell.majority_hits, cell.n) if cell.majority_hits is not None else None,
        )
        if cell.weights_key in bits:
            network = Network(bits[cell.weights_key], hash_of_model(spec["model"]), continuous(cell.norm))
            audit = relevant(audits.get(network, ()), cell.eps)
        if audit is not None:
            verdict, findings = joined(cell.verdict, findings, audit, spec)
    shared = dict(zip(_SHARED, cell, strict=False))
    flags = json.loads(cell.flags or "null") or {}
    return CellRow(**shared, spec=spec, verdict=verdict, flags=flags, summary=summary, findings=findings, audit=audit)


@functools.lru_cache(maxsize=4096)
def _findings(text: str | None) -> tuple[Finding, ...] | None:
    """Thousands of cells have the same."""
    found = json.loads(text or "null")
    return None if found is None else tuple(Finding.of_json(data) for data in found)


def audit_row(row: Audit) -> AuditRow:
    """An audit as reports see it."""
    return AuditRow(
        row.key,
        row.eps,
        row.n,
        row.version,
        row.verdict,
        tuple(Finding.of_json(data) for data in row.findings),
        row.seconds,
        row.created,
    )
