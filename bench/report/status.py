"""Campaigns: how far each is, and what its workers do."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from bench.report.failure import failure_json
from bench.report.text import counted, duration, emit, make_console, make_table
from bench.store.roster import LOST, RUNNING, CampaignRow, FailureRow, WorkerRow

_FEW = 5


def print_status(
    campaigns: Sequence[CampaignRow], failures: Sequence[FailureRow], store: str, *, clear: bool = False
) -> None:
    """What runs.

    Args:
        campaigns: the latest first.
        failures: of the store.
        store: where they are.
        clear: begin with an empty screen.
    """
    console = make_console()
    if clear and console.is_terminal:
        console.clear()
    if not campaigns:
        console.print(f"Nothing runs on {store}. What ran: bench status --all; what is stored: bench ls runs")
    for row in campaigns:
        console.print(f"campaign {row.id}: {row.command}", soft_wrap=True)
        console.print(f"  {_summary(row)}", soft_wrap=True)
        if row.state == LOST:
            console.print("  its process is gone; the same command continues where it was", soft_wrap=True)
        elif row.workers:
            table = make_table("")
            for name in ("worker", "does", "done", "", "device", "seen"):
                table.add_column(name, justify="right" if name in ("worker", "done", "seen") else "left")
            for number, worker in enumerate(row.workers, 1):
                table.add_row(*_worker(number, worker))
            emit(console, table)
    if failures:
        console.print(f"{counted(len(failures), 'failure')} in the store; the same command tries them again:")
        for failure in failures[-_FEW:]:
            console.print(f"  {failure.key[:18]}  {failure.what}: {failure.error}", soft_wrap=True)
        rest = "; all of them: bench status --json" if len(failures) > _FEW else ""
        console.print(f"  The traceback: bench show KEY{rest}")
        console.print("  To forget one that nobody will try again: bench status --forget KEY")


def _summary(row: CampaignRow) -> str:
    known = row.stored + row.done
    running = sum(worker.holds for worker in row.workers)
    parts = [f"{row.state}{' (asked to stop)' if row.asked and row.state == RUNNING else ''}"]
    before = f" ({row.stored} before it began)" if row.stored else ""
    parts.append(f"{known} of {counted(row.cells, 'cell')} done{before}")
    if row.state == RUNNING:
        parts += [f"{running} running", f"{row.cells - known - row.failed - running} to do"]
    if row.failed:
        parts.append(f"{row.failed} failed")
    if row.seconds_left and row.state == RUNNING:
        parts.append(f"about {duration(row.seconds_left)} left")
    parts.append(f"began {_ago(row.created)}" if row.state in (RUNNING, LOST) else f"ended {_ago(row.seen)}")
    return ", ".join(parts)


def _worker(number: int, worker: WorkerRow) -> tuple[str, ...]:
    share = f"{worker.amount / worker.total:.0%}" if worker.total else ""
    node = worker.process.node.partition("/")[0]
    return (str(number), worker.doing or "idle", share, worker.note, f"{worker.device} on {node}", _ago(worker.seen))


def _ago(when: datetime) -> str:
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return f"{duration(max(0.0, (datetime.now(UTC) - when).total_seconds()))} ago"


def status_json(campaigns: Sequence[CampaignRow], failures: Sequence[FailureRow]) -> dict[str, Any]:
    """The same for programs; times are UTC."""
    return {
        "campaigns": [
            {
                "id": row.id,
                "state": row.state,
                "asked": row.asked,
                "command": row.command,
                "cells": row.cells,
                "stored": row.stored,
                "done": row.done,
                "failed": row.failed,
                "running": sum(worker.holds for worker in row.workers),
                "seconds_left": row.seconds_left,
                "created": row.created.isoformat(),
                "seen": row.seen.isoformat(),
                "workers": [
                    {
                        "id": worker.id,
                        "node": worker.process.node,
                        "pid": worker.process.pid,
                        "device": worker.device,
                        "doing": worker.doing,
                        "amount": worker.amount,
                        "total": worker.total,
                        "note": worker.note,
                        "seen": worker.seen.isoformat(),
                    }
                    for worker in row.workers
                ],
            }
            for row in campaigns
        ],
        "failures": [failure_json(failure) for failure in failures],
    }
