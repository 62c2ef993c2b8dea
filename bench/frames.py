"""Stored results as tidy pandas data frames: one row a cell, or one row an image of a cell."""

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd

from attacks.events.threat import EVENTS
from attacks.threat import format_eps
from bench.report.doubt import doubts
from bench.statistics import Rate
from bench.statistics.edits import KINDS, edit_summary
from bench.store import CellRow, Store

RATES = ("clean", "robust", "robust_any", "attack_success", "worst_draw")
"""Each is a column with `NAME_low` and `NAME_high` beside it, its 95% Wilson interval; all are shares in [0, 1]."""

_OF_EDITS = ("changed_share", "own_frames_success")
_EDITED = ("events", *KINDS)

_RECIPE = ("epochs", "batch_size", "lr", "train_size", "augment")


def cells_frame(store: Store | None, rows: Iterable[CellRow] | None = None) -> pd.DataFrame:
    """One row for each finished cell, oldest first.

    Columns: what was measured (`key`, `dataset`, `model`, `T`, `decay`, `neuron`, `surrogate`, `defense`, `seed`,
    `epochs`, `batch_size`, `lr`, `train_size`, `augment`: missing for given weights), how (`attack`, `family`,
    `steps`, `restarts`, `eot`, `gradient`, `norm`, `eps` as a number and `eps_text` as written, `n`, `draws`,
    `attack_seed`, `test_set`, `weights`), whether it can be believed (`verdict`, `findings`, `audit`),
    the rates of `RATES`, the cost (`forwards`, `backwards`, `seconds`) and the origin (`version`, `commit`, `dirty`,
    `device`, `updated`). Where there are attacks on events also, over the recordings that they broke, the mean share of
    events changed (`changed_share`), and the attack success by the attack's own frames (`own_frames_success`).

    Args:
        store: where they are; without one, training and origin are missing.
        rows: the cells wanted; all of the store's if not given. Unfinished ones are left out.
    """
    if rows is None:
        rows = store.cells(status="done") if store else ()
    wanted = [row for row in rows if row.summary is not None]
    trained, origins = (store.trained(), store.origins([row.key for row in wanted])) if store else ({}, {})
    return pd.DataFrame(
        [_line(row, trained.get(row.weights_key, {}), origins.get(row.key, {})) | _edits(store, row) for row in wanted],
        columns=[*_COLUMNS, *(_OF_EDITS if any(row.norm == EVENTS for row in wanted) else ())],
    )


def _edits(store: Store | None, row: CellRow) -> dict[str, float | None]:
    """What `_OF_EDITS` are for an attack on events; nothing for others."""
    outcome = store.outcome(row.key) if store is not None and row.norm == EVENTS else None
    summary = edit_summary(outcome) if outcome is not None else None
    if summary is None:
        return {}
    return {
        "changed_share": round(summary.mean_share, 9) if summary.broken else None,
        "own_frames_success": round(summary.believed.value, 9) if summary.believed.n else None,
    }


def samples_frame(store: Store, rows: Sequence[CellRow]) -> pd.DataFrame:
    """One row for each image of each cell: what `cells_frame` names the cell by, and the image's outcome.

    Columns: `key`, `dataset`, `model`, `defense`, `seed`, `attack`, `eps`, `image` (its index in the test set),
    `clean`, `robust`, `robust_any` (shares of the scoring draws), `margin_clean`, `margin_last`, `flags`, and of
    attacks on events `events`, `added`, `removed`, `moved`.
    """
    parts = []
    for row in rows:
        outcome = store.outcome(row.key)
        if outcome is None:
            continue
        names = {name: getattr(row, name) for name in ("key", "dataset", "model", "defense", "seed", "attack")}
        parts.append(
            pd.DataFrame(
                {
                    **{name: [value] * outcome.n for name, value in names.items()},
                    "eps": float(Fraction(row.eps)),
                    "image": np.arange(outcome.n),
                    "clean": outcome.clean.mean(1),
                    "robust": outcome.robust_last,
                    "robust_any": outcome.robust_any,
                    "margin_clean": outcome.margin_clean,
                    "margin_last": outcome.margin_last,
                    "flags": outcome.flags,
                    **({} if outcome.edits is None else dict(zip(_EDITED, outcome.edits.T, strict=True))),
                }
            )
        )
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def rows_where(frame: pd.DataFrame, holds: Sequence[bool]) -> pd.DataFrame:
    """Rows for which a list says so; of an empty frame too, where an empty list would select columns."""
    return frame[pd.Series(list(holds), index=frame.index, dtype=bool)]


def written_frame(frame: pd.DataFrame, form: str) -> str:
    """A frame of any kind as `csv`, or as `json`: a list of objects, null where a value is missing."""
    if form == "csv":
        return frame.to_csv(index=False).rstrip()
    return str(frame.to_json(orient="records", indent=1, date_format="iso", double_precision=12))


def _line(row: CellRow, weights: Mapping[str, Any], origin: Mapping[str, Any]) -> dict[str, Any]:
    spec, recipe = row.spec, (weights.get("spec") or {}).get("recipe", {})
    attack, model = spec["attack"], spec["model"]
    line: dict[str, Any] = {
        "key": row.key, "dataset": row.dataset, "model": row.model, "T": model["T"],
        "decay": model["neuron"]["decay"], "neuron": model["neuron"]["kind"],
        "surrogate": model["neuron"]["surrogate"], "defense": row.defense, "seed": row.seed,
        **{name: recipe.get(name) for name in _RECIPE},
        "attack": row.attack, "family": attack["family"], "steps": attack["steps"], "restarts": attack["restarts"],
        "eot": attack.get("eot", 1), "gradient": attack["surrogate"] or model["neuron"]["surrogate"],
        "norm": row.norm, "eps": float(Fraction(row.eps)), "eps_text": format_eps(Fraction(row.eps)),
        "n": row.n, "draws": row.draws, "attack_seed": spec["attack_seed"], "test_set": spec["test_hash"],
        "weights": row.weights_key, "verdict": row.verdict,
        "findings": "; ".join(f"{finding.check}: {finding.says}" for finding in doubts(row)),
        "audit": row.audit.verdict if row.audit else "none",
    }  # fmt: skip
    assert row.summary is not None
    for name in RATES:
        rate: Rate = getattr(row.summary, name)
        value = round(rate.value, 9) if rate.n else None
        line |= {name: value, f"{name}_low": round(rate.low, 9), f"{name}_high": round(rate.high, 9)}
    return line | {
        "forwards": row.forwards, "backwards": row.backwards, "seconds": row.seconds,
        "version": origin.get("version"), "commit": origin.get("commit"), "dirty": origin.get("dirty"),
        "device": origin.get("device"), "updated": row.updated,
    }  # fmt: skip


_COLUMNS = [
    "key", "dataset", "model", "T", "decay", "neuron", "surrogate", "defense", "seed", *_RECIPE,
    "attack", "family", "steps", "restarts", "eot", "gradient", "norm", "eps", "eps_text", "n", "draws",
    "attack_seed", "test_set", "weights", "verdict", "findings", "audit",
    *(f"{name}{end}" for name in RATES for end in ("", "_low", "_high")),
    "forwards", "backwards", "seconds", "version", "commit", "dirty", "device", "updated",
]  # fmt: skip
