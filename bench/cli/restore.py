"""`bench restore`: the backup takes a damaged store's place."""

import json
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError


def restore(
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    force: Annotated[bool, typer.Option("--force", help="Restore even though the store is healthy.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Put the backup of a damaged store in its place.

    The backup is read through first. What was there is moved aside, and nothing is deleted. A store that is healthy
    is left alone. What was measured after the backup is missing then: bench run computes it again, from the
    checkpoints that are there.

    Examples:

      bench restore

      bench restore --store archive/bench.sqlite --json
    """
    from bench.store import backup
    from bench.store.url import sqlite_file

    file = sqlite_file(store or str(results / "bench.sqlite"))
    if file is None:
        raise BenchError(
            "bench restore is for SQLite files; a server's database is restored with its own tools: pg_restore"
        )
    done = backup.restore(file, force=force)
    if as_json:
        print(
            json.dumps(
                {
                    "store": str(file),
                    "backup": str(done.backup.file),
                    "made": done.backup.made.isoformat(timespec="seconds"),
                    "cells": done.backup.cells,
                    "damaged": None if done.aside is None else str(done.aside),
                },
                indent=1,
            )
        )
        return
    print(f"restored '{file}' from {done.backup}")
    if done.aside is not None:
        print(f"what was there is now '{done.aside}'")
    print("bench run computes again what was measured since; checkpoints are untouched, nothing is trained again")
