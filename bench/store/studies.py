"""Searches over settings as they are stored: what was searched, and what was tried."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bench.store.retry import lasting
from bench.store.schema import Failure, Study, Trial
from bench.store.store import Store


@dataclass(frozen=True)
class TrialRow:
    """One setting that was tried.

    Attributes:
        number: 0 is the default.
        values: of what was searched, by name; as a user would write them. Empty for the default.
        defense: as written on the command line.
        cells: keys of what was measured, one for each attack.
        error: why it failed; None where it did not.
    """

    number: int
    values: Mapping[str, str]
    defense: str
    cells: tuple[str, ...]
    error: str | None


@dataclass(frozen=True)
class StudyRow:
    """One search.

    Attributes:
        key: names it.
        settings: everything but the budget that decides what it finds, as JSON values.
        space: what is searched, by name, as JSON values.
        trials: by number.
        created: when it began.
    """

    key: str
    settings: Mapping[str, Any]
    space: Mapping[str, Any]
    trials: tuple[TrialRow, ...]
    created: datetime


class Studies:
    """The searches of a store.

    Args:
        store: where they are.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.target = store, store.target

    @lasting
    def begin(self, key: str, settings: Mapping[str, Any], space: Mapping[str, Any], run: int) -> None:
        """Make a search known; one that is known already stays as it is."""
        with self.store.writing() as session:
            if session.get(Study, key) is None:
                session.add(Study(key=key, settings=dict(settings), space=dict(space), run_id=run))

    @lasting
    def add(self, key: str, row: TrialRow) -> None:
        """Keep what was tried. A trial that is there already stays as it is: another process made the same one."""
        values = {"setting": dict(row.values), "defense": row.defense, "cells": list(row.cells), "error": row.error}
        with self.store.writing() as session:
            if session.get(Trial, (key, row.number)) is None:
                session.add(Trial(study_key=key, number=row.number, **values))

    @lasting
    def trials(self, key: str) -> tuple[TrialRow, ...]:
        """What a search tried, by number; nothing of one that is not known."""
        return self._trials([key]).get(key, ())

    @lasting
    def all(self) -> list[StudyRow]:
        """Every search, oldest first."""
        with self.store.reading() as session:
            rows = session.scalars(sa.select(Study).order_by(Study.created, Study.key)).all()
        trials = self._trials([row.key for row in rows])
        return [StudyRow(row.key, row.settings, row.space, trials.get(row.key, ()), row.created) for row in rows]

    @lasting
    def why(self, keys: Sequence[str]) -> str | None:
        """Why one of some cells or trainings failed last; None if none did."""
        with self.store.reading() as session:
            return session.scalar(sa.select(Failure.error).where(Failure.key.in_(keys)).limit(1))

    def _trials(self, keys: Sequence[str]) -> dict[str, tuple[TrialRow, ...]]:
        found: dict[str, list[TrialRow]] = {}
        with self.store.reading() as session:
            query = sa.select(Trial).where(Trial.study_key.in_(keys)).order_by(Trial.study_key, Trial.number)
            for row in session.scalars(query):
                found.setdefault(row.study_key, []).append(
                    TrialRow(row.number, row.setting, row.defense, tuple(row.cells), row.error)
                )
        return {key: tuple(trials) for key, trials in found.items()}
