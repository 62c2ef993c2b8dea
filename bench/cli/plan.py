"""`bench plan`: what `bench run` would do."""

import json
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
    from bench.estimate import estimate
    from bench.report.plan import plan_json, print_plan

    device = pick_device(matrix.device, matrix.threads)
    made = matrix.plan()
    store = open_existing_store(matrix.results, matrix.store)
    made = made.known_to(store) if store else made
    # To begin, run needs what this process needed up to here, and a third of it to show what it found and to end.
    crew = matrix.crew(device)
    workers = len(crew.devices) or crew.workers or 1
    # What a network prints is not what the command answers.
    with redirect_stdout(sys.stderr):
        expected = estimate(made, store, device, workers, threads=crew.threads, start=_START * process_age())
    if matrix.as_json:
        print(json.dumps(plan_json(made, expected), indent=1))
    else:
        print_plan(made, expected)
