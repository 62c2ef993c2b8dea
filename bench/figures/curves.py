"""Robust accuracy against the budget, and against the weight of the membrane constraint (TGO, Fig. 3)."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from attacks.events.threat import EVENTS
from bench.errors import BenchError
from bench.figures.style import COLOURS, DASHES, MARKERS, caption, new_figure, styled
from bench.frames import rows_where, written_frame
from bench.names import defense_called, short_name, short_names, without_eot
from bench.report.tables import layout
from bench.report.tables.conditions import Paper, departures, warning
from bench.statistics import over_seeds
from bench.tuning.notes import tuned_paragraph

BUDGETS = ("2/255", "4/255", "6/255", "8/255")
"""Of the paper's Fig. 3."""
_BANDS = 4
_KIND = [
    "n", "draws", "attack_seed", "test_set", "T", "decay", "surrogate", "epochs", "batch_size", "lr", "train_size",
    "augment",
]  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """Points of curves, and what they are of.

    Attributes:
        points: columns `curve`, `x`, `label` (of x), `value`, `low`, `high`, `n`, `seeds`, `per_seed`, `suspect`,
            `keys`; rates are shares in [0, 1].
        axis: what x is.
        about: what all points have in common.
        notes: what a reader should know, such as a curve that rises with the budget.
        measure: what the values are.
        legends: curve -> what a picture calls it, where that is another name.
    """

    points: pd.DataFrame
    axis: str
    about: str
    notes: tuple[str, ...]
    measure: str = "accuracy"
    legends: Mapping[str, str] = field(default_factory=dict)


def eps_curves(cells: pd.DataFrame, attack: str, iterate: str = "last") -> Curves:
    """Robust accuracy over eps, a curve for each defense; clean accuracy stands at eps = 0.

    Points of one curve are of the same test set, images, draws and training; where several kinds are stored, the one
    with most budgets is drawn, of the seeds that are there at every budget.

    Args:
        cells: rows of `cells_frame` of one dataset and model.
        attack: its name; a mean over draws counts as the same attack.
        iterate: `last` or `any`.

    Raises:
        BenchError: no such cells.
    """
    valid = cells[cells["verdict"] != "invalid"]
    chosen = _of_one_place(rows_where(valid, [_same_attack(name, attack) for name in valid["attack"]]), attack)
    lines, used = [], []
    for defense, group in chosen.groupby("defense", sort=False):
        group = _of_the_same_seeds(_of_one_kind(group, "eps"), "eps")
        used.append(group)
        first = group.drop_duplicates("weights")
        lines.append(_point(str(defense), 0.0, "0", first, "clean"))
        for eps, at in group.groupby("eps"):
            text = str(at["eps_text"].iloc[0])
            lines.append(_point(str(defense), float(eps), text, at, _rate(iterate)))  # type: ignore[arg-type]
    points, shown = pd.DataFrame(lines), pd.concat(used)
    about = _about(shown, points, attack, iterate, BUDGETS)
    legends = _legends({name: name for name in points["curve"]})
    notes = (*_rising(points, legends), *_doubted(points), *_tuned(legends))
    return Curves(points, _axis(shown), about, notes, legends=legends)


def success_curves(cells: pd.DataFrame, attacks: Sequence[str]) -> Curves:
    """Attack success over eps, a curve for each attack and defense; without a budget no attack succeeds.

    Args:
        cells: rows of `cells_frame` of one dataset and model.
        attacks: names; a mean over draws counts as the same attack.

    Raises:
        BenchError: no such cells.
    """
    valid, lines, used = cells[cells["verdict"] != "invalid"], list[dict[str, Any]](), []
    one_defense, of_curve = valid["defense"].nunique() == 1, dict[str, str]()
    for attack in attacks:
        mine = rows_where(valid, [_same_attack(name, attack) for name in valid["attack"]])
        # Where nothing was right before, nothing can be broken.
        for defense, group in _of_one_place(mine.dropna(subset="attack_success"), attack).groupby(
            "defense", sort=False
        ):
            group = _of_the_same_seeds(_of_one_kind(group, "eps"), "eps")
            used.append(group)
            # What all curves share is said once, in the caption.
            name = attack if one_defense else str(defense) if len(attacks) == 1 else f"{defense}, {attack}"
            of_curve[name] = str(defense)
            nothing = {"value": 0.0, "low": 0.0, "high": 0.0, "suspect": False, "keys": ""}
            for eps, at in group.groupby("eps"):
                text = str(at["eps_text"].iloc[0])
                lines.append(_point(name, float(eps), text, at, "attack_success"))  # type: ignore[arg-type]
            lines.append(lines[-1] | {"x": 0.0, "label": "0"} | nothing)
    points, shown = pd.DataFrame(lines), _of_one_place(pd.concat(used), " or ".join(attacks))
    legends = _legends(of_curve)
    of = ", ".join(_legends({name: name for name in shown["defense"]}).values())
    about = f"Share of what is right without attack. {of} under {_facts(shown, points, ', '.join(attacks))}"
    notes = (*_falling(points, legends), *_tuned(of_curve.values()))
    return Curves(points, _axis(shown), about, notes, "attack success", legends)


def _axis(shown: pd.DataFrame) -> str:
    norm = shown["norm"].iloc[0]
    return "eps (edits for each event)" if norm == EVENTS else f"eps ({norm}, pixels in [0, 1])"


def lambda_curves(
    cells: pd.DataFrame,
    weights: Mapping[str, float],
    attacks: Sequence[str],
    iterate: str = "last",
    beside: Sequence[str] = (),
) -> Curves:
    """Clean and robust accuracy over lam_max, a curve for each attack.

    Where the cells are of several budgets, those of the one with most values of lam_max are drawn, and where some
    defenses have several values of lam_max, only these.

    Args:
        cells: rows of `cells_frame` of one dataset and model.
        weights: weights key -> lam_max of its membrane constraint, from the stored training.
        attacks: names.
        iterate: `last` or `any`.
        beside: defenses without such a constraint to compare with: level lines, whose points have no x.

    Raises:
        BenchError: no such cells.
    """
    chosen = cells[cells["verdict"] != "invalid"]
    chosen = rows_where(chosen, [any(_same_attack(name, attack) for attack in attacks) for name in chosen["attack"]])
    chosen = chosen.assign(lam=[weights.get(key, float("nan")) for key in chosen["weights"]])
    level = [not defense_called(name).isdisjoint(beside) for name in chosen["defense"]]
    chosen = rows_where(chosen, [known or wanted for known, wanted in zip(chosen["lam"].notna(), level, strict=True)])
    chosen = _of_one_budget(_of_one_place(chosen, " or ".join(attacks)))
    kinds = chosen.assign(kind=[without_lambda(name) for name in chosen["defense"]])
    groups = [_of_the_same_seeds(_of_one_kind(group, "lam"), "lam") for _, group in kinds.groupby("kind", sort=False)]
    most = max(group["lam"].nunique() for group in groups)
    used = [group for group in groups if min(most, 2) <= group["lam"].nunique() or group["lam"].isna().all()]
    lines, of_curve = [], dict[str, str]()
    for group in sorted(used, key=lambda group: bool(group["lam"].isna().all())):
        kind = str(group["kind"].iloc[0])
        for name, of in (("clean", None), *((attack, attack) for attack in attacks)):
            mine = group if of is None else rows_where(group, [_same_attack(held, of) for held in group["attack"]])
            rate = "clean" if of is None else _rate(iterate)
            of_curve[f"{kind}, {name}"] = kind
            for _, at in mine.groupby("lam", dropna=False):
                at, lam = at if of else at.drop_duplicates("weights"), float(at["lam"].iloc[0])
                lines.append(_point(f"{kind}, {name}", lam, "" if np.isnan(lam) else f"{lam:g}", at, rate))
    points, shown = pd.DataFrame(lines), pd.concat(used)
    about = _about(shown, points, ", ".join(attacks), iterate, (layout.EPS,))
    single = ("Only one lam_max is stored: there is no curve yet.",) if most < 2 else ()
    notes = (*single, *_doubted(points), *_tuned(of_curve.values()))
    return Curves(points, "lam_max (weight of the membrane constraint)", about, notes, legends=_legends(of_curve))


def of_defenses(cells: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """The cells of some defenses, each with every lam_max; all cells where none is named.

    Raises:
        BenchError: one of them is not there.
    """
    held = [defense_called(str(name)) | defense_called(without_lambda(str(name))) for name in cells["defense"]]
    for name in names:
        if not any(name in called for called in held):
            stored = ", ".join(sorted({short_name(str(full)) for full in cells["defense"]}))
            raise BenchError(f"no finished cell has the defense '{name}'; stored are {stored}")
    return rows_where(cells, [not names or any(name in called for name in names) for called in held])


def lambdas(trained: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Weights key -> lam_max of the membrane constraint it was trained with, of those that were."""
    found = {}
    for key, weights in trained.items():
        for part in (weights.get("spec") or {}).get("defense", ()):
            if part.get("part") == "membrane-constraint" and part.get("lam_max") is not None:
                found[key] = float(part["lam_max"])
    return found


def said(curves: Curves) -> str:
    """All that the figure of some curves says, as text that is the same on every machine."""
    # The last bits of a mean are the processor's.
    points = written_frame(curves.points.round(9), "csv")
    return "\n".join([curves.measure, curves.axis, curves.about, *curves.notes, points])


def draw_curves(curves: Curves) -> Figure:
    """The curves with their intervals: bands, or bars where bands would hide each other."""
    points = curves.points
    names = list(dict.fromkeys(points["curve"]))
    columns = min(3, len(names))
    with styled():
        figure = new_figure(4.6, 3.6 + 0.14 * -(-len(names) // columns))
        axes = figure.add_subplot()
        keys: list[Any] = []
        for number, name in enumerate(names):
            line = points[points["curve"] == name].sort_values("x")
            # From the second round on another marker and dash: no two of 64 curves look alike.
            turn, last = divmod(number, len(COLOURS))
            style: Any = {
                "color": COLOURS[last], "marker": MARKERS[(last + turn) % len(MARKERS)], "ms": 4, "lw": 1.4,
                "ls": DASHES[(last + 3 * turn) % len(DASHES)], "label": curves.legends.get(name, name),
            }  # fmt: skip
            value, low, high = (100 * line[of].clip(0, 1) for of in ("value", "low", "high"))
            if line["x"].isna().all():
                keys.append(axes.axhline(value.iloc[0], **style | {"marker": None}))
                axes.axhspan(low.iloc[0], high.iloc[0], color=COLOURS[last], alpha=0.08, lw=0)
                continue
            if len(names) > _BANDS or len(line) < 2:
                around = np.abs(np.stack([value - low, high - value]))
                keys.append(axes.errorbar(line["x"], value, around, elinewidth=0.6, capsize=1.5, **style))
            else:
                keys += axes.plot(line["x"], value, **style)
                axes.fill_between(line["x"], low, high, color=COLOURS[last], alpha=0.15, lw=0)
            doubtful = line["suspect"].to_numpy(bool)
            axes.plot(line["x"][doubtful], value[doubtful], ls="", marker=style["marker"], ms=4, mfc="#ffffff",
                      mec=COLOURS[last], zorder=5)  # fmt: skip
        _ticks(axes, points)
        axes.set_ylim(0, 100)
        axes.set_xlabel(curves.axis)
        axes.set_ylabel(f"{curves.measure} (%)")
        axes.grid(axis="y", lw=0.4, alpha=0.5)
        figure.legend(handles=keys, loc="outside upper left", ncols=columns)
        caption(figure, " ".join([curves.about, *curves.notes]), 95)
    return figure


def _ticks(axes: Axes, points: pd.DataFrame) -> None:
    """A tick at every point; a label where there is room, on the slant where it is scarce."""
    ticks = points.dropna(subset="x").drop_duplicates("x").sort_values("x")
    places = ticks["x"].tolist()
    width = places[-1] - places[0] if len(places) > 1 else 1.0
    labels: list[str] = []
    last, close = -float("inf"), False
    for x, label in zip(places, ticks["label"], strict=True):
        fits = x - last >= 0.035 * width
        close |= fits and x - last < 0.12 * width
        labels.append(label if fits else "")
        last = x if fits else last
    axes.set_xticks(places, labels, rotation=45 if close else 0)


def _same_attack(name: str, wanted: str) -> bool:
    return without_eot(str(name)) == without_eot(wanted)


def _rate(iterate: str) -> str:
    return {"last": "robust", "any": "robust_any"}[iterate]


def _of_one_place(chosen: pd.DataFrame, attack: str) -> pd.DataFrame:
    if chosen.empty:
        raise BenchError(f"no finished cell under {attack} matches; see: bench ls runs")
    places = chosen[["dataset", "model", "norm"]].drop_duplicates()
    if len(places) > 1:
        shown = ", ".join(" / ".join(map(str, place)) for place in places.itertuples(index=False))
        raise BenchError(f"stored are {shown}: choose with --dataset, --model, --norm")
    return chosen


def _of_one_kind(group: pd.DataFrame, over: str) -> pd.DataFrame:
    """Cells that may stand on one curve: of the kinds that are stored, that with most points, then most images."""
    kinds = [kind for _, kind in group.groupby(_KIND, dropna=False)]
    return max(kinds, key=lambda kind: (kind[over].nunique(), kind["n"].iloc[0], kind["updated"].max()))


def _of_the_same_seeds(group: pd.DataFrame, over: str) -> pd.DataFrame:
    """The cells of training seeds that every point of a curve has, so that it bends for no other seed's sake.

    Where no seed has every point, all cells: the caption says how many seeds the points have.
    """
    common = set.intersection(*(set(at["seed"]) for _, at in group.groupby(over, dropna=False)))
    return rows_where(group, [seed in common for seed in group["seed"]]) if common else group


def _of_one_budget(chosen: pd.DataFrame) -> pd.DataFrame:
    counts = chosen.groupby("eps_text")["lam"].nunique()
    most = list(counts[counts == counts.max()].index)
    if len(most) > 1 and layout.EPS not in most:
        raise BenchError(f"lambda curves are of one budget; stored are {', '.join(most)}: choose with --eps")
    return chosen[chosen["eps_text"] == (layout.EPS if layout.EPS in most else most[0])]


def _point(curve: str, x: float, label: str, at: pd.DataFrame, rate: str) -> dict[str, Any]:
    at = at.sort_values("updated").drop_duplicates("seed", keep="last").sort_values("seed")
    mean = over_seeds([float(value) for value in at[rate]])
    single = len(at) == 1
    return {
        "curve": curve, "x": x, "label": label, "value": mean.value,
        "low": float(at[f"{rate}_low"].iloc[0]) if single else mean.low,
        "high": float(at[f"{rate}_high"].iloc[0]) if single else mean.high,
        "n": int(at["n"].iloc[0]), "seeds": len(at), "per_seed": " ".join(f"{v:.6f}" for v in mean.values),
        "suspect": rate != "clean" and bool((at["verdict"] == "suspect").any()), "keys": " ".join(at["key"]),
    }  # fmt: skip


def _about(used: pd.DataFrame, points: pd.DataFrame, attack: str, iterate: str, budgets: Sequence[str]) -> str:
    paper = Paper("cifar100", "CIFAR-100", ("wrn16-4",), "WRN-16", 10_000, budgets)
    departing = warning(departures(used, paper, sorted(set(points["seeds"]))))
    return " ".join(filter(None, [_facts(used, points, attack, f", {iterate} iterate"), departing]))


def _facts(used: pd.DataFrame, points: pd.DataFrame, attack: str, how: str = "") -> str:
    line = used.iloc[0]

    def listed(name: str) -> str:
        return ", ".join(f"{int(value)}" for value in sorted(set(used[name].dropna())))

    single = set(points["seeds"]) == {1}
    interval = "95% Wilson interval" if single else "95% interval (Wilson; Student's over several training seeds)"
    at = f", eps {line['eps_text']}" if used["eps_text"].nunique() == 1 else ""
    return (
        f"{attack}{at}{how}; {line['dataset']} / {line['model']}, T {listed('T')}, "
        f"epochs {listed('epochs') or 'unknown'}, n {listed('n')}; {interval}."
    )


def _doubted(points: pd.DataFrame) -> list[str]:
    return ["Hollow: suspect, perhaps too high."] if points["suspect"].any() else []


def _legends(of: Mapping[str, str]) -> dict[str, str]:
    """Curve -> its name with that of its defense as tables show it; given curve -> the stored name of its defense."""
    names = short_names(("", defense) for defense in of.values())
    return {curve: curve.replace(defense, names["", defense]) for curve, defense in of.items()}


def _tuned(defenses: Iterable[str]) -> list[str]:
    return list(filter(None, [tuned_paragraph(((), defense, "") for defense in defenses)]))


def _rising(points: pd.DataFrame, legends: Mapping[str, str]) -> list[str]:
    notes = []
    for name, line in points.groupby("curve", sort=False):
        line = line.sort_values("x")
        for before, after in itertools.pairwise(line.to_dict("records")):
            if after["low"] > before["high"]:
                change = f"rises from eps {before['label']} to {after['label']}"
                notes.append(f"{legends[str(name)]} {change}: a sign of a blinded attack.")
    return notes


def _falling(points: pd.DataFrame, legends: Mapping[str, str]) -> list[str]:
    notes = []
    for name, line in points.groupby("curve", sort=False):
        for before, after in itertools.pairwise(line.sort_values("x").to_dict("records")):
            if after["high"] < before["low"]:
                change = f"falls from eps {before['label']} to {after['label']}"
                notes.append(f"{legends[str(name)]} {change}: more budget leads it astray.")
    return notes


def without_lambda(name: str) -> str:
    """`tgo:lam_max=0.2+at` -> `tgo+at`; what a search chose besides stays behind it."""
    import re

    defense, bracket, rest = name.partition(" (")
    defense = re.sub(r"lam_max=[^,+]+,?", "", defense)
    return re.sub(r":(?=\+|$)", "", defense).replace(",+", "+").rstrip(",") + bracket + rest
