"""`bench tune`: a fair search over the settings of defenses."""

import json
import sys
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options as o
from bench.cli.formats import HELP, chosen_format
from bench.cli.matrix import Matrix, takes
from bench.cli.parts import of_file, said_of, searched
from bench.cli.run import EXIT_STOPPED
from bench.errors import BenchError
from bench.names import split_list
from bench.runtime import pick_device

if TYPE_CHECKING:
    from bench.plan import Plan
    from bench.scheduler import Report
    from bench.store import Store
    from bench.tuning.result import Found
    from bench.tuning.study import Search


@dataclass(frozen=True, kw_only=True)
class Tuning(Matrix):
    """The options of `tune`, as typed."""

    trials: o.TuneBudget = None
    held_out: o.HeldOut = None
    only_plan: Annotated[
        bool, typer.Option("--plan", help="Show what would be searched, and for how long; compute nothing.")
    ] = False
    show: Annotated[
        bool,
        typer.Option(
            "--show",
            help="List stored searches, those of --defense, --dataset and --model; a single one with its trials.",
        ),
    ] = False
    form: Annotated[str | None, typer.Option("--format", help=HELP)] = None
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file instead of printing.")] = None


@takes(Tuning)
def tune(tuning: Tuning) -> None:
    """Search the settings of each defense, with as many trainings for each, on images held out of the training set.

    Searched is what a defense declares, and for every defense the learning rate and the weight decay. What you write
    yourself stays: mc:delta=0.5, --lr 0.1. The test set is never looked at. The first trial is the default, so that
    tuning does not lose against it; what was tried is stored, and an interrupted search continues where it was cut off.

    Examples:

      bench tune -d at,tgo+at -a pgd10 --budget 20

      bench tune --show -d tgo+at

      bench tune --matrix leaderboard.toml

      bench run -d at,tgo+at -a pgd40 --tuned
    """
    form = chosen_format(tuning.form, tuning.output, as_json=tuning.as_json)
    if tuning.show:
        if tuning.file is not None:
            raise BenchError("--show lists what --defense, --dataset and --model say; leave --matrix out")
        _show(tuning, form)
        return
    if tuning.file is not None:
        # Once for all: how many trials, and on how many images, is the file's where nobody typed it.
        parts = searched(tuning)
        tuning = replace(tuning, trials=parts[0][1].trials, held_out=parts[0][1].held_out)
    else:
        tuning.no_part()
        parts = [("", tuning)]
    if tuning.trials is None:
        raise BenchError("say how many trials each defense gets: --budget 20 (or --show for what is stored)")
    if tuning.trials < 1:
        raise BenchError(f"--budget must be at least 1, the default setting, got {tuning.trials}")
    for option, given in (("--tuned", tuning.tuned), ("--preset", tuning.preset), ("--weights", tuning.weights)):
        if given:
            raise BenchError(f"{option} is for bench run; leave it out")
    from bench.report.tuning import write_studies

    device = pick_device(tuning.device, tuning.threads)
    o.load_plugins(tuning.all_plugins)
    found = _searches(parts)
    if tuning.only_plan:
        _plan(tuning, found, device)
        return
    store = o.open_store(tuning.results, tuning.store)
    results, stopped, failed = _search(tuning, found, store, device)
    o.write_or_print(_written(results, form, write_studies), tuning.output)
    if form == "text":
        commands = _next(tuning, results)
        print("\n".join(["On the test set:", *(f"  {line}" for line in commands)]) if commands else "")
    if stopped:
        print(f"stopped: {stopped}. Continue with the same command.", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
    if stopped:
        raise typer.Exit(EXIT_STOPPED)


def _searches(parts: "list[tuple[str, Tuning]]") -> "list[Search]":
    """Each search once, whichever of a file's parts ask for it."""
    from bench.tuning.study import searches

    found: dict[str, Search] = {}
    for where, tuning in parts:
        with said_of(where) if where else nullcontext():
            (request,) = tuning.requests()
            asked = (tuning.typed_options(),) if where else ()
            for search in searches(request, tuning.checkpoints, tuning.data_dir, tuning.held_out, asked):
                found.setdefault(search.key, search)
    return list(found.values())


def _next(tuning: Tuning, results: "list[Found]") -> list[str]:
    """The commands that measure the winners."""
    from bench.report.tuning import winner_commands

    if tuning.file is not None:
        return [f"bench run{of_file(tuning)}{tuning.store_options()}"]
    options = tuning.protocol_options(without=("count", "draws"))
    (request,) = tuning.requests()
    return [line for result in results for line in winner_commands(result, options, split_list(request.attacks))]


def _search(tuning: Tuning, found: "list[Search]", store: "Store", device: Any) -> "tuple[list[Found], str, bool]":
    """Run all searches: what they found, why they ended early, and whether one has no trial that worked."""
    from bench.cli.display import Display
    from bench.provenance import provenance
    from bench.scheduler import run_plan
    from bench.tuning.run import tune as search_all

    budget, crew = tuning.budget(), tuning.crew(device)
    run = store.begin_run(provenance(device))
    results, stopped = [], ""

    def compute(search: "Search", numbers: range, plan: "Plan") -> "Report":
        last = f" to {numbers[-1]}" if len(numbers) > 1 else ""
        print(f"{search.defense}: trial {numbers[0]}{last} of {tuning.trials}", file=sys.stderr)
        with Display(plan, len(crew.devices)) as display:
            return run_plan(plan, store, tuning.checkpoints, device, display, crew=crew, budget=budget)

    # What plug-ins and libraries print is not what the command answers.
    with redirect_stdout(sys.stderr):
        for search in found:
            result, stopped = search_all(search, tuning.trials or 1, store, run, compute)
            results.append(result)
            if stopped:
                break
    return results, stopped, any(result.trials and result.best is None for result in results)


def _written(results: "list[Found]", form: str, write: Any) -> str:
    if form in ("csv", "json") or len(results) == 1:
        return str(write(results, form))
    return "\n\n".join([*(str(write([result], form)) for result in results), str(write(results, form))])


def _plan(tuning: Tuning, found: "list[Search]", device: Any) -> None:
    """What would be searched, and for how long."""
    from bench.estimate import estimate
    from bench.report.text import counted, duration
    from bench.store.studies import Studies

    store, budget = o.open_existing_store(tuning.results, tuning.store), tuning.trials or 0
    crew = tuning.crew(device)
    workers = len(crew.devices) or crew.workers or 1
    lines: list[dict[str, Any]] = []
    for search in found:
        known = Studies(store).trials(search.key) if store is not None else ()
        stored = sum(trial.number < budget for trial in known)
        # The default stands for all: other values take about as long.
        with redirect_stdout(sys.stderr):
            one = estimate(search.plan({}), None, device, 1, threads=crew.threads)
        lines.append(
            {
                "study": search.key, "defense": search.defense, "trials": budget, "stored": stored,
                "space": search.space.as_json(), "trained_on": len(search.dataset.x_train),
                "held_out": len(search.dataset.x_test), "seconds": (budget - stored) * one.seconds / workers,
            }
        )  # fmt: skip
    if tuning.as_json:
        print(json.dumps(lines, indent=1))
        return
    for line in lines:
        print(
            f"{line['defense']}: {counted(line['trials'], 'trial')}, {line['stored']} stored; trained on "
            f"{line['trained_on']} images, judged on {line['held_out']} held out; about {duration(line['seconds'])}"
        )
        for name, space in line["space"].items():
            print(f"  {name}: {_range(space)}")
    whole = sum(line["seconds"] for line in lines)
    print(f"About {duration(whole)} on this machine with {counted(workers, 'worker')}.")


def _range(space: dict[str, Any]) -> str:
    if "choice" in space:
        return ", ".join(space["choice"])
    return f"{space['low']:g} to {space['high']:g}" + (" (ratios)" if space["log"] else "")


def _show(tuning: Tuning, form: str) -> None:
    """Stored searches."""
    opened = o.open_existing_store(tuning.results, tuning.store)
    if opened is None:
        raise BenchError(o.no_store(tuning.results, tuning.store))
    from bench.report.tuning import write_studies
    from bench.store.studies import Studies
    from bench.tuning.result import found

    wanted = split_list(tuning.defenses or ())
    # That of an .npz file goes by the file's name without its ending.
    dataset = Path(tuning.dataset).stem if tuning.dataset and tuning.dataset.endswith(".npz") else tuning.dataset
    studies = [
        study
        for study in Studies(opened).all()
        if (not wanted or study.settings["defense"] in wanted)
        and dataset in (None, study.settings["dataset"])
        and tuning.model in (None, study.settings["training"]["model"]["name"])
    ]
    if not studies:
        raise BenchError("no search matches; make one with: bench tune -d tgo -a pgd10 --budget 20")
    o.write_or_print(write_studies([found(opened, study) for study in studies], form), tuning.output)
