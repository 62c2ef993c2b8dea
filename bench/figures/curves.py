"""Robust accuracy against the budget, and against the weight of the membrane constraint (TGO, Fig. 3)."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from bench.errors import BenchError
from bench.figures.style import COLOURS, DASHES, MARKERS, caption, new_figure, styled
from bench.frames import rows_where
from bench.plan import without_eot
from bench.statistics import over_seeds


@dataclass(frozen=True)
class Curves:
    """Points of curves, and what they are of.

    Attributes:
        points: columns `curve`, `x`, `label` (of x), `value`, `low`, `high`, `n`, `seeds`, `per_seed`, `suspect`,
            `keys`; rates are shares in [0, 1].
        axis: what x is.
        about: what all points have in common.
        notes: what a reader should know, such as a curve that rises with the budget.
    """

    points: pd.DataFrame
    axis: str
    about: str
    notes: tuple[str, ...]


def eps_curves(cells: pd.DataFrame, attack: str, iterate: str = "last") -> Curves:
    """Robust accuracy over eps, a curve for each defense; clean accuracy stands at eps = 0.

    Points of one curve are of the same test set, images, draws and training; where several kinds are stored, the one
    with most budgets is drawn.

    Args:
        cells: rows of `cells_frame` of one dataset and model.
        attack: its name; a mean over draws counts as the same attack.
        iterate: `last` or `any`.

    Raises:
        BenchError: no such cells.
    """
    valid = cells[cells["verdict"] != "invalid"]
    chosen = _of_one_place(rows_where(valid, [_same_attack(name, attack) for name in valid["attack"]]), attack)
    lines = []
    for defense, group in chosen.groupby("defense", sort=False):
        group = _of_one_kind(group, ["n", "draws", "epochs", "T", "decay", "attack_seed"])
        first = group.drop_duplicates("weights")
        lines.append(_point(str(defense), 0.0, "0", first, "clean"))
        for eps, at in group.groupby("eps"):
            text = str(at["eps_text"].iloc[0])
            lines.append(_point(str(defense), float(eps), text, at, _rate(iterate)))  # type: ignore[arg-type]
    points = pd.DataFrame(lines)
    about = _about(chosen, attack, iterate)
    return Curves(points, f"eps ({chosen['norm'].iloc[0]})", about, tuple(_rising(points)))


def lambda_curves(
    cells: pd.DataFrame, weights: Mapping[str, float], attacks: Sequence[str], iterate: str = "last"
) -> Curves:
    """Clean and robust accuracy over lam_max, a curve for each attack.

    Args:
        cells: rows of `cells_frame` of one dataset, model and budget.
        weights: weights key -> lam_max of its membrane constraint, from the stored training.
        attacks: names.
        iterate: `last` or `any`.

    Raises:
        BenchError: no such cells.
    """
    chosen = cells[(cells["verdict"] != "invalid") & cells["weights"].isin(weights)]
    chosen = rows_where(chosen, [any(_same_attack(name, attack) for attack in attacks) for name in chosen["attack"]])
    chosen = _of_one_place(chosen, " or ".join(attacks))
    if chosen["eps"].nunique() > 1:
        held = ", ".join(chosen["eps_text"].unique())
        raise BenchError(f"lambda curves are of one budget; stored are {held}: choose with --eps")
    chosen = _of_one_kind(chosen, ["n", "draws", "epochs", "T", "decay", "attack_seed"])
    chosen = chosen.assign(lam=[weights[key] for key in chosen["weights"]])
    kinds = chosen.assign(kind=[_without_lambda(name) for name in chosen["defense"]])
    lines = []
    for kind, group in kinds.groupby("kind", sort=False):
        for lam, at in group.groupby("lam"):
            first = at.drop_duplicates("weights")
            lines.append(_point(f"{kind}, clean", float(lam), f"{lam:g}", first, "clean"))  # type: ignore[arg-type]
            for attack in attacks:
                mine = rows_where(at, [_same_attack(name, attack) for name in at["attack"]])
                if len(mine):
                    name = f"{kind}, {attack}"
                    lines.append(_point(name, float(lam), f"{lam:g}", mine, _rate(iterate)))  # type: ignore[arg-type]
    about = _about(chosen, ", ".join(attacks), iterate) + f", eps {chosen['eps_text'].iloc[0]}"
    return Curves(pd.DataFrame(lines).sort_values(["curve", "x"], ignore_index=True), "lam_max", about, ())


def lambdas(trained: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Weights key -> lam_max of the membrane constraint it was trained with, of those that were."""
    found = {}
    for key, weights in trained.items():
        for part in (weights.get("spec") or {}).get("defense", ()):
            if part.get("part") == "membrane-constraint" and part.get("lam_max") is not None:
                found[key] = float(part["lam_max"])
    return found


def draw_curves(curves: Curves) -> Figure:
    """The curves with their intervals as bands."""
    points = curves.points
    names = list(dict.fromkeys(points["curve"]))
    with styled():
        figure = new_figure(4.6, 3.4 + 0.14 * max(0, len(names) - 4))
        axes = figure.add_subplot()
        for number, name in enumerate(names):
            line = points[points["curve"] == name].sort_values("x")
            colour = COLOURS[number % len(COLOURS)]
            axes.plot(
                line["x"], 100 * line["value"], color=colour, marker=MARKERS[number % len(MARKERS)], ms=4, lw=1.4,
                ls=DASHES[number % len(DASHES)], label=name,
            )  # fmt: skip
            low, high = (100 * line[end].clip(0, 1) for end in ("low", "high"))
            axes.fill_between(line["x"], low, high, color=colour, alpha=0.15, lw=0)
        ticks = points.drop_duplicates("x").sort_values("x")
        axes.set_xticks(ticks["x"], ticks["label"])
        axes.set_ylim(0, 100)
        axes.set_xlabel(curves.axis)
        axes.set_ylabel("accuracy (%)")
        axes.grid(axis="y", lw=0.4, alpha=0.5)
        figure.legend(loc="outside upper left", ncols=min(3, len(names)))
        caption(figure, " ".join([curves.about + ".", *curves.notes]), 95)
    return figure


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


def _of_one_kind(group: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Cells that may stand on one curve: of the kinds that are stored, that with most budgets, then most images."""
    kinds = [kind for _, kind in group.groupby(names, dropna=False)]
    return max(kinds, key=lambda kind: (kind["eps"].nunique(), kind["n"].iloc[0], kind["updated"].max()))


def _point(curve: str, x: float, label: str, at: pd.DataFrame, rate: str) -> dict[str, Any]:
    at = at.sort_values("updated").drop_duplicates("seed", keep="last").sort_values("seed")
    mean = over_seeds([float(value) for value in at[rate]])
    single = len(at) == 1
    return {
        "curve": curve, "x": x, "label": label, "value": mean.value,
        "low": float(at[f"{rate}_low"].iloc[0]) if single else mean.low,
        "high": float(at[f"{rate}_high"].iloc[0]) if single else mean.high,
        "n": int(at["n"].iloc[0]), "seeds": len(at), "per_seed": " ".join(f"{v:.6f}" for v in mean.values),
        "suspect": bool((at["verdict"] == "suspect").any()), "keys": " ".join(at["key"]),
    }  # fmt: skip


def _about(chosen: pd.DataFrame, attack: str, iterate: str) -> str:
    line = chosen.iloc[0]
    epochs = sorted({int(e) for e in chosen["epochs"].dropna()})
    counts = sorted(set(chosen["n"]))
    trained = f", epochs {', '.join(map(str, epochs))}" if epochs else ""
    interval = "bands: 95% Wilson interval, or Student's over several training seeds"
    return (
        f"{attack}, {iterate} iterate; {line['dataset']} / {line['model']}, T {line['T']}{trained}, "
        f"n {', '.join(map(str, counts))}; {interval}"
    )


def _rising(points: pd.DataFrame) -> list[str]:
    notes = []
    for name, line in points.groupby("curve", sort=False):
        line = line.sort_values("x")
        for before, after in itertools.pairwise(line.to_dict("records")):
            if after["low"] > before["high"]:
                notes.append(
                    f"{name} rises from eps {before['label']} to {after['label']}: a sign of a blinded attack."
                )
    return notes


def _without_lambda(name: str) -> str:
    """`tgo:lam_max=0.2+at` -> `tgo+at`."""
    import re

    name = re.sub(r"lam_max=[^,+]+,?", "", name)
    return re.sub(r":(?=\+|$)", "", name).replace(",+", "+").rstrip(",")
