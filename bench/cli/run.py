"""`bench run`: train, attack, store, show."""

import json

import typer

from bench.cli.matrix import Matrix, takes_matrix
from bench.cli.options import open_store
from bench.runtime import pick_device


@takes_matrix
def run(matrix: Matrix) -> None:
    """Train each defense, run each attack on it, and store every image's outcome.

    What the store already holds is not computed again, so an interrupted command
    continues where it was cut off. Several defenses, attacks, eps or seeds make a matrix.

    Examples:

      bench run --defense tgo --attack pgd40

      bench run -d vanilla,at,tgo,tgo+at -a fgsm,rfgsm,pgd7,pgd10,pgd20,pgd40

      bench run -d at -a pgd20 --eps 0.05,0.1,0.15,0.2
    """
    from bench.cli.display import Display
    from bench.report.run import is_bad, next_commands, print_results, results_json
    from bench.scheduler import run_plan

    device = pick_device(matrix.device, matrix.threads)
    plan = matrix.plan()
    store = open_store(matrix.results, matrix.store)
    plan = plan.known_to(store)
    with Display(plan) as display:
        report = run_plan(plan, store, matrix.checkpoints, device, display)
    if matrix.as_json:
        print(json.dumps(results_json(report, store.target), indent=1))
    else:
        print_results(plan, report, store.target)
        next_commands(report, matrix.protocol_options(), matrix.store_options())
    if is_bad(report):
        raise typer.Exit(1)
