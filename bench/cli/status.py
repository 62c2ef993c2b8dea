"""`bench status` and `bench cancel`: a campaign as seen from another terminal, or another machine."""

import json
import math
import time
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError


def status(
    every: Annotated[bool, typer.Option("--all", help="Also campaigns that have ended.")] = False,
    forget: Annotated[
        str | None,
        typer.Option("--forget", metavar="KEY", help="Forget a failure that nobody will try again; all: every one."),
    ] = None,
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

    if watch is not None and not 0 < watch < math.inf:
        raise BenchError(f"--watch must be positive, got {watch:g}")
    opened = o.open_existing_store(results, store)
    if opened is None:
        raise BenchError(o.no_store(results, store))
    if forget is not None:
        count = Roster(o.open_store(results, store)).forget("" if forget == "all" else forget)
        if not count:
            raise BenchError(f"no failure begins with '{forget}'; see: bench status")
        print(f"forgot {count} failure{'s' * (count != 1)}")
        return
    roster, seen = Roster(opened), Watch()
    while True:
        campaigns = roster.campaigns(seen, active=not every)
        if as_json:
            print(json.dumps(status_json(campaigns, roster.failures()), indent=1), flush=True)
        else:
            print_status(campaigns, roster.failures(), opened.target, clear=watch is not None)
        if watch is None:
            return
        try:
            time.sleep(watch)
        except KeyboardInterrupt:
            return


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
    running = roster.campaigns(Watch(), active=True)
    active = [row.id for row in running if row.state != LOST]
    if campaign is None and len(active) != 1:
        which = "none runs" if not active else f"several run: {', '.join(map(str, active))}"
        raise BenchError(f"which campaign? {which}; see: bench status")
    campaign = active[0] if campaign is None else campaign
    if campaign in {row.id for row in running} - set(active):
        raise BenchError(f"campaign {campaign} runs no more: its process is gone; its command continues it")
    roster.ask(campaign, STOP if finish else CANCEL)
    when = "after its present chunk or epoch" if finish else f"within about {2 * BEAT:g} s"
    print(f"campaign {campaign} will stop {when}; see: bench status")
