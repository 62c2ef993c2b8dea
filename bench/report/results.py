"""Cells as people and programs read them after a run."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from attacks.threat import format_eps
from bench.estimate import Estimate
from bench.outcome import Flag, Outcome
from bench.plan import Plan
from bench.scheduler import Report
from bench.spec import key_of
from bench.statistics import Rate
from bench.store import CellRow

KEY_LENGTH = 12


def percent(rate: Rate) -> str:
    """`51.2 [46.8, 55.6]`, in percent; `-` for a rate of nothing."""
    if not rate.n:
        return "-"
    return f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def print_results(plan: Plan, report: Report, store: str) -> None:
    """The table that ends a run."""
    console = make_console()
    if not report.rows:
        return
    first = plan.cells[0]
    answered = f"{report.computed} computed now" if report.computed else "all answered from the store"
    lines = [_cells_of(row) for row in report.rows]
    # What is the same in every row belongs above the table, not in it.
    constant = [name for name in ("seed", "eps") if len({line[name] for line in lines}) == 1]
    facts = [f"{name} {lines[0][name]}" for name in constant]
    table = make_table(
        ", ".join([f"{plan.dataset.name} / {first.model.name}", f"T {first.model.T}", first.attack.norm, *facts])
        + f": {counted(len(lines), 'cell')}, {answered}"
    )
    for name in lines[0]:
        if name not in constant:
            table.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=name == "key")
    for line in lines:
        table.add_row(*(value for name, value in line.items() if name not in constant))
    if fits(console, table):
        emit(console, table)
    elif len(lines) <= _TALL:
        emit(console, _tall(str(table.title), report.rows, constant))
    else:
        from bench.report.matrix import matrix, render

        print(f"{table.title}\n\n{render(matrix(report.rows), 'text')}\n")
    console.print(
        "Percent with 95% Wilson interval. Robust accuracy: right without and under the attack's last iterate; "
        "any iterate: also under the strongest one visited. Attack success: share of the clean-correct images it flips."
    )
    if any(row.draws > 1 for row in report.rows):
        draws = max(row.draws for row in report.rows)
        console.print(
            f"Noisy networks: expectation over {draws} scoring draws, the same noise with and without attack."
        )
    console.print(f"Stored in {store}")


_WORDS = ("defense", "attack", "key")
_TALL = 6
"""More cells than this are shown as a matrix where the window is too narrow for one line each."""


def _tall(title: str, rows: Sequence[CellRow], constant: Sequence[str]) -> Table:
    """The same cells with one line a rate, for narrow windows."""
    table = make_table(title)
    labels = [name for name in ("defense", "seed", "attack", "eps") if name not in constant]
    for name in labels:
        table.add_column(name, overflow="fold")
    table.add_column("rate", no_wrap=True)
    for name in ("%", "95% interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("key / verdict", no_wrap=True, min_width=KEY_LENGTH)
    for row in rows:
        s, cell = row.summary, _cells_of(row)
        assert s is not None
        rates = {"clean accuracy": s.clean, "robust accuracy": s.robust, "any iterate": s.robust_any}
        notes = [cell["key"], *verdict(row).replace(": ", ":\n").splitlines()]
        notes += [""] * (4 - len(notes))
        for number, (name, rate) in enumerate((rates | {"attack success": s.attack_success}).items()):
            hide = row.verdict == "invalid" and name != "clean accuracy"
            value, _, interval = ("-" if hide else percent(rate)).partition(" ")
            first = [cell[label] if number == 0 else "" for label in labels]
            table.add_row(*first, name, value, interval, str(rate.n), notes[number])
        if row is not rows[-1]:
            table.add_row()
    return table


def _cells_of(row: CellRow) -> dict[str, str]:
    s = row.summary
    assert s is not None
    attacked = (lambda rate: "-") if row.verdict == "invalid" else percent
    return {
        "defense": row.defense,
        "seed": str(row.seed),
        "attack": row.attack,
        "eps": format_eps(Fraction(row.eps)),
        "clean accuracy": percent(s.clean),
        "robust accuracy": attacked(s.robust),
        "any iterate": attacked(s.robust_any),
        "n": str(s.robust.n),
        "attack success": attacked(s.attack_success),
        "of": str(s.attack_success.n),
        "verdict": verdict(row),
        "key": row.key[:KEY_LENGTH],
    }


def verdict(row: CellRow) -> str:
    """The verdict, with the reasons where it is not ok."""
    if row.verdict == "ok" or not row.flags:
        return row.verdict or row.status
    reasons = {
        Flag.NAN.name: "with NaN logits",
        Flag.OUTSIDE.name: "outside the ball",
        Flag.TIE.name: "tied",
    }
    return f"{row.verdict}: " + ", ".join(f"{count} {reasons[name]}" for name, count in row.flags.items())


def next_commands(report: Report, protocol: str, store: str) -> None:
    """Commands worth trying after this run.

    Args:
        report: what came of the run.
        protocol: every option the user typed, but for the names of defenses and attacks.
        store: options that name the store.
    """
    if not report.rows:
        return
    lines = [
        f"bench show {report.rows[-1].key[:KEY_LENGTH]}{store}",
        f"bench run -d vanilla,at,tgo,tgo+at -a fgsm,rfgsm,pgd7,pgd10,pgd20,pgd40{protocol}",
        f"bench table{store}",
    ]
    if len({row.defense for row in report.rows}) > 1:
        del lines[1]
    console = make_console()
    console.print("Next:")
    for line in lines:
        console.print(f"  {line}", soft_wrap=True)


def results_json(report: Report, store: str) -> dict[str, Any]:
    """A run's results for programs."""
    return {
        "store": store,
        "computed": report.computed,
        "failures": report.failures,
        "cells": [cell_json(row) for row in report.rows],
    }


def cell_json(row: CellRow) -> dict[str, Any]:
    """One cell's summary for programs; rates are shares in [0, 1]."""
    shown: dict[str, Any] = {
        name: getattr(row, name)
        for name in (
            "key", "status", "verdict", "dataset", "model", "defense", "seed", "attack", "norm", "eps", "n", "draws",
            "forwards", "backwards", "seconds", "error", "weights_key",
        )
    }  # fmt: skip
    shown["flags"] = dict(row.flags)
    shown["updated"] = row.updated.isoformat()
    if row.summary is not None:
        names = ("clean", "robust", "robust_any", "attack_success", "worst_draw")
        for name in names:
            rate: Rate = getattr(row.summary, name)
            shown[name] = {"value": rate.value if rate.n else None, "low": rate.low, "high": rate.high, "n": rate.n}
    return shown


def print_plan(plan: Plan, estimate: Estimate) -> None:
    """What would run."""
    console = make_console()
    lines = [
        {
            "defense": cell.defense_name,
            "seed": str(cell.seed),
            "model": cell.model.name,
            "attack": cell.attack.name,
            "eps": format_eps(cell.attack.eps),
            "n": str(cell.n),
            "draws": str(cell.draws),
            "to do": "nothing" if key_of(cell) in plan.stored else "attack" if job.trained else "train, attack",
            "key": key_of(cell)[:KEY_LENGTH],
        }
        for job in plan.jobs
        for cell in job.cells
    ]
    title = f"{plan.dataset.name}: {counted(len(lines), 'cell')}, {len(plan.stored)} stored"
    emit(console, _compact(title, lines, ("seed", "model", "eps", "n", "draws")))
    if plan.missing:
        console.print(f"About {duration(estimate.seconds)} on this machine, judged by {estimate.basis}.")
    else:
        console.print("Everything is stored; bench run would answer at once.")


def plan_json(plan: Plan, estimate: Estimate) -> dict[str, Any]:
    """A plan for programs."""
    cells = []
    for job in plan.jobs:
        for cell in job.cells:
            key = key_of(cell)
            cells.append(
                {
                    "key": key,
                    "defense": cell.defense_name,
                    "seed": cell.seed,
                    "attack": cell.attack.name,
                    "eps": str(cell.attack.eps),
                    "n": cell.n,
                    "draws": cell.draws,
                    "stored": key in plan.stored,
                    "trained": job.trained,
                }
            )
    return {"cells": cells, "missing": len(plan.missing), "seconds": estimate.seconds, "basis": estimate.basis}


def duration(seconds: float) -> str:
    """`42 s`, `3.5 min` or `2.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def print_cells(rows: Sequence[CellRow], store: str) -> None:
    """All stored cells, oldest first."""
    console = make_console()
    if not rows:
        console.print(f"Nothing is stored in {store} yet. Begin with: bench run --defense tgo --attack pgd40")
        return
    lines = []
    for row in rows:
        valid = row.summary is not None and row.verdict != "invalid"
        lines.append(
            {
                "key": row.key[:KEY_LENGTH],
                "dataset": row.dataset,
                "model": row.model,
                "defense": row.defense,
                "seed": str(row.seed),
                "attack": row.attack,
                "eps": format_eps(Fraction(row.eps)),
                "n": str(row.n),
                "status": row.status if row.status != "done" else verdict(row),
                "clean": percent(row.summary.clean) if row.summary else "",
                "robust": percent(row.summary.robust) if row.summary and valid else "",
            }
        )
    title, movable = f"{counted(len(rows), 'cell')} in {store}", ("dataset", "model", "seed", "eps", "n")
    table = _compact(title, lines, movable)
    if not fits(console, table):
        # A list to choose from: bench show and bench table have the intervals.
        lines = [line | {name: line[name].partition(" ")[0] for name in ("clean", "robust")} for line in lines]
        table = _compact(title, lines, movable)
    emit(console, table)


def _compact(title: str, lines: Sequence[Mapping[str, str]], movable: Sequence[str]) -> Table:
    """One row a line; what is the same in every line and may move stands in the title."""
    constant = [name for name in movable if len({line[name] for line in lines}) == 1]
    table = make_table(", ".join([title, *(f"{name} {lines[0][name]}" for name in constant)]))
    for name in lines[0]:
        if name not in constant:
            table.add_column(name, overflow="fold", no_wrap=name == "key")
    for line in lines:
        table.add_row(*(value for name, value in line.items() if name not in constant))
    return table


def print_cell(
    row: CellRow, weights: Mapping[str, Any] | None, provenance: Mapping[str, Any], outcome: Outcome | None
) -> None:
    """Everything about one cell."""
    console = make_console()
    table = make_table(f"{row.defense} under {row.attack} on {row.dataset}")
    table.show_header = False
    table.add_column()
    table.add_column(overflow="fold")
    lines: list[tuple[str, str]] = [("key", row.key), ("status", row.status), ("verdict", verdict(row))]
    if row.error:
        lines.append(("error", row.error))
    if row.summary is not None:
        for name in ("clean", "robust", "robust_any", "attack_success", "worst_draw"):
            rate: Rate = getattr(row.summary, name)
            lines.append(
                ({"robust_any": "any iterate"}.get(name, name.replace("_", " ")), f"{percent(rate)}  (n = {rate.n})")
            )
    attack, model = row.spec["attack"], row.spec["model"]
    neuron, own = model["neuron"], "the network's own"
    steps = [f"{attack['steps']} steps"] if attack["steps"] else []
    params = [f"{key} {value}" for key, value in attack["params"]]
    lines += [
        ("threat", f"{row.norm}, eps {format_eps(Fraction(row.eps))}, box [{attack['low']:g}, {attack['high']:g}]"),
        (
            "attack",
            ", ".join([attack["family"], *steps, *params, f"restarts {attack['restarts']}"]),
        ),
        ("surrogate", f"attacked with {attack['surrogate'] or own}, trained with {neuron['surrogate']}"),
        ("model", f"{model['name']}, T {model['T']}, neuron {neuron['kind']}, decay {neuron['decay']:g}"),
        ("draws", str(row.draws)),
        ("cost", f"{row.forwards:,} forwards, {row.backwards:,} backwards, {duration(row.seconds)}"),
        ("weights", f"{row.weights_key[:24]}, sha256 {weights['sha256'][:12] if weights else '?'}"),
    ]
    trained = weights["spec"] if weights else {}
    if "recipe" in trained:
        parts = [
            f"{part['part']} " + ", ".join(f"{k} {v}" for k, v in part.items() if k not in ("part", "version"))
            for part in trained["defense"]
        ]
        lines.append(("training", ", ".join(f"{key} {value}" for key, value in trained["recipe"].items())))
        lines.append(("defense", "; ".join(parts) or "nothing added"))
    commit = (provenance.get("commit") or "")[:12]
    dirty = " with uncommitted changes" if provenance.get("dirty") else ""
    lines += [
        ("test data", f"{row.spec['test_hash'][:12]}, first {row.n} images"),
        ("code", f"bench {provenance.get('version')} {commit}{dirty}"),
        ("device", f"{provenance.get('device')}, {provenance.get('threads')} threads"),
        ("packages", ", ".join(f"{k} {v}" for k, v in provenance.get("packages", {}).items())),
        ("command", str(provenance.get("command"))),
        ("measured", row.updated.isoformat(timespec="seconds")),
    ]
    for line in lines:
        table.add_row(*line)
    emit(console, table)
    if outcome is not None:
        console.print("image  clean  robust  margin clean -> attacked")
        for sample in samples_json(outcome):
            console.print(
                f"{sample['image']:5}  {sample['clean']:5.2f}  {sample['robust']:6.2f}  "
                f"{sample['margin_clean']:7.3f} -> {sample['margin_last']:7.3f}"
            )


def samples_json(outcome: Outcome) -> list[dict[str, Any]]:
    """Every image's outcome; `clean` and `robust` are shares of the scoring draws."""
    clean, robust, any_ = outcome.clean.mean(1), outcome.robust_last, outcome.robust_any
    return [
        {
            "image": i,
            "clean": float(clean[i]),
            "robust": float(robust[i]),
            "robust_any": float(any_[i]),
            "margin_clean": float(outcome.margin_clean[i]),
            "margin_last": float(outcome.margin_last[i]),
            "flags": int(outcome.flags[i]),
        }
        for i in range(outcome.n)
    ]


def make_table(title: str) -> Table:
    """A table in the house style."""
    return Table(title=title, title_justify="left", title_style="none", box=box.SIMPLE_HEAD, pad_edge=False)


def counted(count: int, noun: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def fits(console: Console, table: Table) -> bool:
    """Whether no cell of a table has to be folded."""
    return console.measure(table, options=console.options.update(max_width=1000)).maximum <= console.width


def emit(console: Console, table: Table) -> None:
    """Print a table without the blanks that pad its lines."""
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as capture:
        console.print(table)
    console.print("\n".join(line.rstrip() for line in capture.get().splitlines()), soft_wrap=True)


def make_console() -> Console:
    """Stdout; wide where nobody's window limits it."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=160)
