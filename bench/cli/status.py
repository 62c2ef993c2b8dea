"""`bench status` and `bench cancel`: a campaign as seen from another terminal, or another machine."""

import json
import time
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError


def status(
    every: Annotated[bool, typer.Option("--all", help="Also campaigns that have ended.")] = False,
    watch: Annotated[
        float | None, typer.Option("--watch", metavar="SECONDS", help="Show it again and again, until Ctrl-C.")
    ] = None,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    as_json: o.AsJson = False,
) -> None:
    """Show what runs: cells done, running and failed, what each worker does, and how long it will take.

    Works from any terminal and any machine that reaches the store.

    Examples:

      bench status

      bench status --watch 5

      bench status --store postgresql+psycopg://bench@db/bench
    """
    from bench.report.status import print_status, status_json
    from bench.store.process import Watch
    from bench.store.roster import Roster

    if watch is not None and watch <= 0:
        raise BenchError(f"--watch must be positive, got {watch:g}")
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    roster, seen = Roster(opened), Watch()
    while True:
        campaigns = roster.campaigns(seen, active=not every)
        if as_json:
            print(json.dumps(status_json(campaigns, roster.failures()), indent=1), flush=True)
        else:
            print_status(campaigns, roster.failures(), opened.target, clear=watch is not None)
        if watch is None:
            return
        time.sleep(watch)


def cancel(
    campaign: Annotated[
        int | None, typer.Argument(help="Its number, as `bench status` shows it; may be left out if only one runs.")
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Let what runs end its chunk of images or its epoch first.")
    ] = False,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
) -> None:
    """Stop a campaign from another terminal or machine. All that it finished is kept; its command continues it.

    Examples:

      bench cancel

      bench cancel 12 --finish
    """
    from bench.store import Store
    from bench.store.process import BEAT, Watch
    from bench.store.roster import CANCEL, LOST, STOP, Roster

    if (seen := o.open_existing_store(results, store)) is None:
        raise BenchError(o.no_store(results, store))
    seen.close()
    roster = Roster(Store(store or results / "bench.sqlite"))
    if campaign is None:
        active = [row for row in roster.campaigns(Watch(), active=True) if row.state != LOST]
        if len(active) != 1:
            which = "none runs" if not active else "several run: " + ", ".join(str(row.id) for row in active)
            raise BenchError(f"which campaign? {which}; see: bench status")
        campaign = active[0].id
    roster.ask(campaign, STOP if finish else CANCEL)
    when = "after its present chunk or epoch" if finish else f"within about {2 * BEAT:g} s"
    print(f"campaign {campaign} will stop {when}; see: bench status")
