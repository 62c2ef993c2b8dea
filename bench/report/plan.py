"""A plan: what would run, and for how long."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from attacks.threat import format_eps
from bench.data.events import EventDataset
from bench.estimate import Estimate
from bench.plan import Plan
from bench.report.text import KEY_LENGTH, MOST_LINES, compact, counted, counts, duration, emit, make_console
from bench.spec import key_of


def print_plan(plans: Sequence[Plan], estimate: Estimate) -> None:
    """What would run.

    Args:
        plans: one after the other, each on another dataset.
        estimate: of all together.
    """
    console = make_console()
    for plan in plans:
        _print_cells(console, plan)
        print_note(console, plan)
    if any(plan.missing for plan in plans):
        console.print(f"About {duration(estimate.seconds)} on this machine, judged by {estimate.basis}.")
    else:
        console.print("Everything is stored; bench run would answer at once.")


def _print_cells(console: Console, plan: Plan) -> None:
    title = f"{plan.dataset.name}: {counted(len(plan.cells), 'cell')}, {len(plan.stored):,} stored"
    if len(plan.cells) > MOST_LINES:
        counts(console, title, _counted(plan), ("defense", "attack"))
    else:
        emit(console, compact(title, _lines(plan), ("seed", "model", "eps", "n", "draws")))


def print_note(console: Console, plan: Plan) -> None:
    """What must be known of a plan's data: recordings may be simulated, or a part of the official ones."""
    if isinstance(plan.dataset, EventDataset):
        console.print(f"{plan.dataset.name}: {plan.dataset.note}")


def _counted(plan: Plan) -> dict[tuple[str, ...], dict[str, int]]:
    names = ("stored", "to attack", "to train and attack")
    found = Counter(
        (cell.defense_name, cell.attack.name, "stored" if key_of(cell) in plan.stored else names[1 + (not job.trained)])
        for job in plan.jobs
        for cell in job.cells
    )
    lines: dict[tuple[str, ...], dict[str, int]] = {}
    for kind in dict.fromkeys((defense, attack) for defense, attack, _ in found):
        numbers = {name: found[(*kind, name)] for name in names}
        lines[kind] = {"cells": sum(numbers.values()), **numbers}
    return lines


def _lines(plan: Plan) -> list[dict[str, str]]:
    return [
        {
            "defense": cell.defense_name,
            "seed": str(cell.seed),
            "model": cell.model.name,
            "attack": cell.attack.name,
            "eps": format_eps(cell.attack.eps),
            "n": str(cell.n),
            "draws": str(cell.draws),
            "to do": "nothing" if key_of(cell) in plan.stored else "attack" if job.trained else "train, attack",
            "key": key_of(cell)[:KEY_LENGTH],
        }
        for job in plan.jobs
        for cell in job.cells
    ]


def plan_json(plans: Sequence[Plan], estimate: Estimate) -> dict[str, Any]:
    """Plans for programs, see `print_plan`."""
    cells = []
    stored = frozenset[str]().union(*(plan.stored for plan in plans))
    for job in (job for plan in plans for job in plan.jobs):
        for cell in job.cells:
            key = key_of(cell)
            cells.append(
                {
                    "key": key,
                    "defense": cell.defense_name,
                    "dataset": cell.dataset,
                    "model": cell.model.name,
                    "seed": cell.seed,
                    "attack": cell.attack.name,
                    "eps": str(cell.attack.eps),
                    "n": cell.n,
                    "draws": cell.draws,
                    "stored": key in stored,
                    "trained": job.trained,
                }
            )
    return {
        "cells": cells,
        "missing": sum(len(plan.missing) for plan in plans),
        "seconds": estimate.seconds,
        "basis": estimate.basis,
    }
