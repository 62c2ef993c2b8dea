"""`bench audit`: is a network's robustness number believable?"""

import inspect
import json
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

import typer

from bench.cli.matrix import Matrix
from bench.cli.options import open_store
from bench.errors import BenchError
from bench.runtime import pick_device

_OF_ATTACKS = (
    "attacks", "event_eps", "event_rules", "alpha", "restarts", "eot", "no_random_start", "attack_surrogate", "draws",
    "attack_seed", "preset", "file", "parts", "typed",
)  # fmt: skip
"""Options of `bench run` that choose attacks; the audit has its own."""

Calibrate = Annotated[
    int | None,
    typer.Option(
        "--calibrate",
        metavar="SEEDS",
        help="Audit networks with known faults and sound ones instead, each trained with so many seeds.",
    ),
]
FirstSeed = Annotated[
    int, typer.Option("--first-seed", metavar="INT", help="With --calibrate: the first of those seeds.")
]


def _takes_networks(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Matrix` that choose networks, images and budgets."""

    def wrapper(calibrate: int | None, first_seed: int, **typed: Any) -> None:
        command(Matrix(**typed), calibrate, first_seed)

    hints = get_type_hints(Matrix, include_extras=True)
    kept = [f for f in fields(Matrix) if f.name not in _OF_ATTACKS]
    own = [("calibrate", None, Calibrate), ("first_seed", 0, FirstSeed)]
    declared = [(f.name, f.default, hints[f.name]) for f in kept] + own
    wrapper.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
            for name, default, hint in declared
        ]
    )
    wrapper.__annotations__ = {name: hint for name, _, hint in declared}
    wrapper.__doc__ = command.__doc__
    return wrapper


@_takes_networks
def audit(matrix: Matrix, calibrate: int | None, first_seed: int) -> None:
    """Look for signs that a network's robust accuracy is too high to be true.

    Trains or loads each network as `bench run` does, and checks it on the first 128 test images (-n): leaked state,
    NaN, ties, gradients that are zero or mislead, surrogates too narrow, attacks in the wrong order, undeclared
    noise. What it finds is stored and shown beside every cell of the network.

    Examples:

      bench audit -d tgo,at

      bench audit --weights mine.safetensors -d vanilla --model cnn-small

      bench audit --calibrate 5
    """
    device = pick_device(matrix.device, matrix.threads)
    if calibrate is not None:
        _calibrate(matrix, calibrate, first_seed)
        return
    from bench.audit.network import FEWEST, IMAGES
    from bench.audit.run import audit_plan
    from bench.cli.audit_display import AuditDisplay
    from bench.report.audit import audits_json, print_audits

    plan = matrix.plan()
    n = plan.cells[0].n if matrix.count is not None else min(IMAGES, len(plan.dataset.x_test))
    if n < FEWEST:
        raise BenchError(f"an audit needs at least {FEWEST} images, got {n}")
    store = open_store(matrix.results, matrix.store)
    display = AuditDisplay(plan)
    with display:
        report = audit_plan(plan, store, matrix.checkpoints, device, display, n)
    if matrix.as_json:
        print(json.dumps(audits_json(report, store.target), indent=1))
    else:
        print_audits(report, store.target)
    if report.failures or any(audited.row.verdict == "invalid" for audited in report.audits):
        raise typer.Exit(1)


def _calibrate(matrix: Matrix, count: int, first: int) -> None:
    if count < 1 or first < 0:
        raise BenchError(f"--calibrate needs at least one seed, none negative, got {count} from {first}")
    from bench.audit.calibrate import IMAGES, calibrate
    from bench.cli.audit_display import spinning
    from bench.data import load_dataset
    from bench.report.audit import calibration_json, print_calibration

    seeds, n = range(first, first + count), matrix.count or IMAGES
    dataset = load_dataset("digits", matrix.data_dir)
    if not 1 <= n <= len(dataset.x_test):
        raise BenchError(f"-n must lie in [1, {len(dataset.x_test)}], the size of the test set, got {n}")
    with spinning() as heard:
        results = calibrate(dataset, seeds, n, heard)
    if matrix.as_json:
        print(json.dumps(calibration_json(results, seeds, n), indent=1))
    else:
        print_calibration(results, seeds, n)
