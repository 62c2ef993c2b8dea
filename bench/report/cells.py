"""Stored cells: a list of them, one in full, and either for programs."""

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from attacks.events.threat import EVENTS
from attacks.threat import format_eps
from bench.outcome import Outcome
from bench.report.doubt import audit_line, doubts, mark, placebo_line, reasons
from bench.report.text import (
    KEY_LENGTH,
    compact,
    counted,
    counts,
    duration,
    emit,
    fits,
    make_console,
    make_table,
    percent,
)
from bench.statistics import Rate
from bench.statistics.edits import KINDS, EditSummary
from bench.store import CellRow, Kind

_UNDONE = {"running": "unfinished", "failed": "failed", "done": "done"}
"""What a cell without a verdict is called: whether somebody is at it is what `bench status` knows."""


def verdict(row: CellRow) -> str:
    """The verdict, with the reasons where it is not ok."""
    why = reasons(row) if row.verdict != "ok" else []
    return (row.verdict or _UNDONE[row.status]) + (f": {', '.join(why)}" if why else "")


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
                "status": verdict(row),
                "clean": percent(row.summary.clean) if row.summary else "",
                "robust": percent(row.summary.robust) + mark(row) if row.summary and valid else "",
            }
        )
    title, movable = f"{counted(len(rows), 'cell')} in {store}", ("dataset", "model", "seed", "eps", "n")
    table = compact(title, lines, movable)
    if not fits(console, table):
        # A list to choose from: bench show and bench table have the intervals.
        lines = [line | {name: _without_interval(line[name]) for name in ("clean", "robust")} for line in lines]
        table = compact(title, lines, movable)
    emit(console, table)


def print_kinds(kinds: Sequence[Kind], store: str) -> None:
    """How many cells there are of each kind, where there are too many to list."""
    console = make_console()
    lines: dict[tuple[str, ...], dict[str, int]] = {}
    for kind in kinds:
        names = (kind.dataset, kind.model, kind.defense, kind.attack)
        line = lines.setdefault(names, dict.fromkeys(("cells", "done", "running", "failed", "suspect", "invalid"), 0))
        for name in ("cells", kind.status, kind.verdict):
            if name in line:
                line[name] += kind.cells
    total = counted(sum(line["cells"] for line in lines.values()), "cell")
    counts(console, f"{total} in {store}", lines, ("dataset", "model", "defense", "attack"))
    console.print(
        "Too many to list; choose some with --dataset, --model, --defense, --attack or --eps, or see: bench table"
    )


def _without_interval(rate: str) -> str:
    value, _, rest = rate.partition(" ")
    return value + rest.partition("]")[2]


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
    shown["findings"] = None if row.findings is None else [finding.as_json() for finding in row.findings]
    shown["audit"] = row.audit.verdict if row.audit else None
    shown["updated"] = row.updated.isoformat()
    if row.summary is not None:
        names = ("clean", "robust", "robust_any", "attack_success", "worst_draw")
        for name in names:
            rate: Rate = getattr(row.summary, name)
            shown[name] = _rate_json(rate)
        shown["majority"] = _rate_json(row.summary.majority) if row.summary.majority else None
    return shown


def _rate_json(rate: Rate) -> dict[str, Any]:
    return {"value": rate.value if rate.n else None, "low": rate.low, "high": rate.high, "n": rate.n}


Share = tuple[int, int, Mapping[str, Any] | None]
"""A chunk: its first image, how many, and where it comes from."""


def print_cell(
    row: CellRow,
    weights: Mapping[str, Any] | None,
    provenance: Mapping[str, Any],
    outcome: Outcome | None,
    shares: Sequence[Share] = (),
    edits: EditSummary | None = None,
) -> None:
    """Everything about one cell; `outcome` where every image is to be listed, `edits` of an attack on events."""
    console = make_console()
    table = make_table(f"{row.defense} under {row.attack} on {row.dataset}")
    table.show_header = False
    table.add_column()
    table.add_column(overflow="fold")
    lines: list[tuple[str, str]] = [("key", row.key), ("status", _UNDONE[row.status]), ("verdict", verdict(row))]
    lines += [(f"  {finding.check}", finding.says) for finding in doubts(row)]
    if row.status == "done":
        lines += [("audit", audit_line(row)), ("placebo", placebo_line(row))]
    if row.error:
        lines.append(("error", row.error))
    if row.summary is not None:
        for name in ("clean", "robust", "robust_any", "attack_success", "worst_draw"):
            rate: Rate = getattr(row.summary, name)
            if name == "robust_any" and row.norm == EVENTS:
                continue
            lines.append(
                ({"robust_any": "any iterate"}.get(name, name.replace("_", " ")), f"{percent(rate)}  (n = {rate.n})")
            )
        if row.summary.majority is not None and row.draws > 1:
            lines.append(("majority", f"{percent(row.summary.majority)}  (right in more than half of the draws)"))
    if edits is not None:
        lines += _edit_lines(edits)
    attack, model = row.spec["attack"], row.spec["model"]
    neuron, own = model["neuron"], "the network's own"
    brought = model.get("own_neurons", False)
    trained = own if brought else neuron["surrogate"]
    neurons = "neurons of its own" if brought else f"neuron {neuron['kind']}, decay {neuron['decay']:g}"
    steps = [f"{attack['steps']} steps"] if attack["steps"] else []
    params = [f"{key} {value}" for key, value in attack["params"]]
    averaged = [f"eot {attack['eot']}"] if attack.get("eot", 1) > 1 else []
    lines += [
        ("threat", _threat(row)),
        (
            "attack",
            ", ".join([attack["family"], *steps, *params, f"restarts {attack['restarts']}", *averaged]),
        ),
        ("surrogate", f"attacked with {attack['surrogate'] or own}, trained with {trained}"),
        ("model", f"{model['name']}, T {model['T']}, {neurons}"),
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
        ("test data", f"{row.spec['test_hash'][:12]}, first {row.n} images{_recordings(row)}"),
        ("code", f"bench {provenance.get('version')} {commit}{dirty}"),
        ("device", f"{provenance.get('device')}, {provenance.get('threads')} threads"),
        ("packages", ", ".join(f"{k} {v}" for k, v in provenance.get("packages", {}).items())),
        ("command", str(provenance.get("command"))),
        ("measured", row.updated.isoformat(timespec="seconds")),
    ]
    if row.batch:
        lines.append(("batch", f"{row.batch} images at once: more did not fit into memory"))
    lines += _shares(shares)
    for line in lines:
        table.add_row(*line)
    emit(console, table)
    if outcome is not None:
        edited = outcome.edits is not None
        console.print(f"image  clean  robust  margin clean -> attacked{'  events: added, removed, moved' * edited}")
        for sample in samples_json(outcome):
            counts = f"  {sample['events']:6}: " + ", ".join(str(sample[k]) for k in KINDS) if edited else ""
            console.print(
                f"{sample['image']:5}  {sample['clean']:5.2f}  {sample['robust']:6.2f}  "
                f"{sample['margin_clean']:7.3f} -> {sample['margin_last']:7.3f}{counts}"
            )


def _threat(row: CellRow) -> str:
    attack, eps = row.spec["attack"], format_eps(Fraction(row.eps))
    if row.norm != EVENTS:
        return f"{row.norm}, eps {eps}, box [{attack['low']:g}, {attack['high']:g}]"
    rules = f"; {attack['rules'].replace('=', ' ').replace(',', ', ')}" if attack.get("rules") else ""
    return f"{row.norm}, eps {eps}: at most floor({eps} n) edits of a recording of n events{rules}"


def _recordings(row: CellRow) -> str:
    found = row.spec.get("recordings", "")
    return f", recordings {found[:12]}" if found else ""


def _edit_lines(edits: EditSummary) -> list[tuple[str, str]]:
    """What an attack on events changed, and what it believed."""
    lines = []
    if edits.broken:
        kinds = ", ".join(f"{name} {count:.4g}" for name, count in edits.by_kind.items())
        changed = f"mean {edits.mean:.4g} ({edits.mean_share:.2%} of the events), "
        changed += f"median {edits.median:.4g} ({edits.median_share:.2%})"
        lines += [
            ("events changed", f"{changed}, over the {edits.broken} recordings broken"),
            ("  mean by kind", kinds),
        ]
    else:
        lines.append(("events changed", "no recording was broken"))
    own = "attack success by the frames that the attack itself computed with, which no recording need have"
    return [
        *lines,
        ("own frames", f"{percent(edits.believed)}  ({own}; the rates above are of recordings framed again)"),
    ]


def edits_json(edits: EditSummary) -> dict[str, Any]:
    """A summary of edits for programs; null where nothing was broken."""

    def number(value: float) -> float | None:
        return None if math.isnan(value) else value

    return {
        "broken": edits.broken,
        **{name: number(getattr(edits, name)) for name in ("mean", "median", "mean_share", "median_share")},
        **{f"mean_{name}": number(value) for name, value in edits.by_kind.items()},
        "own_frames_success": _rate_json(edits.believed),
    }


def _shares(shares: Sequence[Share]) -> list[tuple[str, str]]:
    """A line for each run that measured a part, where there are several."""
    runs: dict[int, list[Share]] = {}
    for share in shares:
        if share[2] is not None:
            runs.setdefault(share[2]["run"], []).append(share)
    if len(runs) < 2:
        return []
    lines = []
    for parts in runs.values():
        origin = parts[0][2]
        assert origin is not None
        images = sum(n for _, n, _ in parts)
        where = f"{origin.get('device')}, {origin.get('threads')} threads, bench {(origin.get('commit') or '')[:12]}"
        lines.append((f"  {images} images", f"run {origin['run']} of {origin['started'][:19]} on {where}"))
    return [("measured by", f"{len(runs)} runs"), *lines]


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
            **_edits_of(outcome, i),
        }
        for i in range(outcome.n)
    ]


def _edits_of(outcome: Outcome, image: int) -> dict[str, int]:
    if outcome.edits is None:
        return {}
    return dict(zip(("events", *KINDS), outcome.edits[image].tolist(), strict=True))
