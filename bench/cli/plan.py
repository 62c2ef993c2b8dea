"""`bench plan`: what `bench run` would do."""

import functools
import json
import operator
import sys
from contextlib import redirect_stdout

from bench.cli.matrix import Matrix, takes_matrix
from bench.cli.options import open_existing_store
from bench.runtime import pick_device, process_age

_START = 1.35


@takes_matrix
def plan(matrix: Matrix) -> None:
    """Show the cells of a matrix, which are stored already, and how long the rest will take.

    Takes the options of `bench run` and computes nothing but a trial of a second.
    """
    from bench.estimate import Estimate, estimate
    from bench.report.plan import plan_json, print_plan

    device = pick_device(matrix.device, matrix.threads)
    plans = matrix.plans()
    store = open_existing_store(matrix.results, matrix.store)
    plans = [plan.known_to(store) for plan in plans] if store else plans
    # To begin, run needs what this process needed up to here, and a third of it to show what it found and to end.
    crew = matrix.crew(device)
    workers = len(crew.devices) or crew.workers or 1
    start, expected = _START * process_age(), list[Estimate]()
    for made in plans:
        # What a network prints is not what the command answers.
        with redirect_stdout(sys.stderr):
            expected.append(estimate(made, store, device, workers, threads=crew.threads, start=start))
        start = 0.0 if expected[-1].seconds else start
    whole = functools.reduce(operator.add, expected)
    if matrix.as_json:
        print(json.dumps(plan_json(plans, whole), indent=1))
    else:
        print_plan(plans, whole)
