"""`bench run`: train, attack, store, show."""

import json
import sys
from contextlib import redirect_stdout

import typer

from bench.cli.matrix import Matrix, takes_matrix
from bench.cli.options import open_store
from bench.runtime import pick_device

EXIT_STOPPED = 3
"""A budget was spent, or somebody asked for an end, before all was done."""


@takes_matrix
def run(matrix: Matrix) -> None:
    """Train each defense, run each attack on it, and store every image's outcome.

    What the store already holds is not computed again, so an interrupted command
    continues where it was cut off. Several defenses, attacks, eps or seeds make a matrix.

    Examples:

      bench run --defense tgo --attack pgd40

      bench run -d vanilla,at,tgo,tgo+at -a fgsm,rfgsm,pgd7,pgd10,pgd20,pgd40

      bench run -d at -a pgd20 --eps 0.05,0.1,0.15,0.2

      bench run --preset table1 --workers 4 --max-time 8h

      bench run --matrix leaderboard.toml
    """
    from bench.cli.display import Display
    from bench.report.run import is_bad, next_commands, print_results, results_json
    from bench.scheduler import Report, run_plan
    from bench.spec import key_of

    device = pick_device(matrix.device, matrix.threads)
    budget, crew = matrix.budget(), matrix.crew(device)
    plans = matrix.plans()
    store = open_store(matrix.results, matrix.store)
    plans = [plan.known_to(store) for plan in plans]
    whole = Report(store=store)
    reports = []
    for plan in plans:
        report = Report(keys=[key_of(cell) for cell in plan.cells], store=store)
        if not whole.stopped:
            # What plug-ins and libraries print is not what the command answers.
            with redirect_stdout(sys.stderr), Display(plan, len(crew.devices)) as display:
                report = run_plan(plan, store, matrix.checkpoints, device, display, crew=crew, budget=budget)
        reports.append(report)
        whole += report
    if matrix.as_json:
        print(json.dumps(results_json(whole, store.target), indent=1))
    else:
        for plan, report in zip(plans, reports, strict=True):
            print_results(plan, report, store.target)
        own = any(job.spec.model.own_neurons for plan in plans for job in plan.jobs)
        protocol = matrix.protocol_options() if matrix.file is None else None
        next_commands(whole, protocol, matrix.store_options(), own_neurons=own)
    if whole.stopped:
        left = len(whole.keys) - len(store.done_keys(whole.keys))
        print(
            f"stopped: {whole.stopped}; {left} of {len(whole.keys)} cells are left. Continue with the same command.",
            file=sys.stderr,
        )
    if is_bad(whole):
        raise typer.Exit(1)
    if whole.stopped:
        raise typer.Exit(EXIT_STOPPED)
