"""Searches over settings for people and for programs: their trials, the best of them, and whether that is luck."""

import json
import shlex
from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.audit.finding import SUSPECT
from bench.frames import written_frame
from bench.report.doubt import MARK
from bench.report.formats import write_sheet
from bench.report.sheet import MISSING, Piece, Sheet, embolden, rate_piece
from bench.report.text import KEY_LENGTH, counted
from bench.statistics import Rate
from bench.tuning.result import Found, Judged

_DEFAULT = "default"


def write_studies(found: Sequence[Found], form: str) -> str:
    """Searches as `text`, `md`, `latex` or `html`: a list of them, and the trials of a single one. Or every trial as a
    line of `csv`, or an object of `json`."""
    if form == "csv":
        return written_frame(pd.DataFrame([line for search in found for line in trial_lines(search)]), form)
    if form == "json":
        return json.dumps([study_json(search) for search in found], indent=1)
    sheets = [trials_sheet(found[0])] if len(found) == 1 else [studies_sheet(found)]
    return "\n\n".join(write_sheet(sheet, form) for sheet in sheets)


def studies_sheet(found: Sequence[Found]) -> Sheet:
    """One row for each search."""
    heads = ("study", "defense", "dataset", "model", "epochs", "attacks", "trials", "failed", "default", "best", "p")
    rows = []
    for search in found:
        settings, paired = search.study.settings, search.against_default
        training = settings["training"]
        names = (
            search.study.key[:KEY_LENGTH], settings["defense"], settings["dataset"],
            f"{training['model']['name']}, T {training['model']['T']}", str(training["recipe"]["epochs"]),
            ", ".join(settings["attacks"]),
        )  # fmt: skip
        failed = sum(trial.robust is None for trial in search.trials)
        rows.append(
            (
                *map(Piece, names), Piece(str(len(search.trials))), Piece(str(failed)), _robust(search.default),
                _robust(search.best), Piece(f"{paired.p:.2g}" if paired else MISSING),
            )
        )  # fmt: skip
    return Sheet(
        heads, tuple(rows), 6, caption="Searches. " + _CAPTION, notes=_notes(found),
        label="studies",
    )  # fmt: skip


_CAPTION = (
    "Robust accuracy in percent on held-out training images, per image the worst case over the attacks (any iterate), "
    "with 95% Wilson interval."
)


def trials_sheet(search: Found) -> Sheet:
    """One row for each trial of a search."""
    settings, names = search.study.settings, list(search.study.space)
    training, rows = settings["training"], []
    for one in search.trials:
        values = [one.trial.values.get(name, _DEFAULT) for name in names]
        robust = _robust(one)
        said = (one.trial.error or "").splitlines()
        rows.append(
            (
                Piece(str(one.trial.number)), *map(Piece, values), embolden(robust) if one is search.best else robust,
                rate_piece(one.clean), Piece(f"failed: {said[0]}" if said else SUSPECT if one.suspect else "ok"),
            )
        )  # fmt: skip
    facts = ", ".join(
        [
            f"{settings['defense']} on {settings['dataset']} / {training['model']['name']}",
            f"T {training['model']['T']}", counted(training["recipe"]["epochs"], "epoch"), f"seed {settings['seed']}",
            f"under {', '.join(settings['attacks'])} ({', '.join(settings['budgets'])})",
            f"{settings['n']} of {settings['held_out']} held-out images",
            f"{settings['of'] - settings['held_out']} trained on",
        ]
    )  # fmt: skip
    return Sheet(
        ("trial", *names, "robust", "clean", "verdict"), tuple(rows), 1,
        caption=f"Study {search.study.key[:KEY_LENGTH]}: {facts}. {_CAPTION}",
        notes=(_sentence(search), *_notes([search])), label=f"study-{search.study.key[:KEY_LENGTH]}",
    )  # fmt: skip


def _sentence(search: Found) -> str:
    best = search.best
    return f"Best: {'none' if best is None else f'trial {best.trial.number}'}; {search.says}."


def _notes(found: Sequence[Found]) -> tuple[str, ...]:
    notes = [
        "The best of many is flattered by the images it was chosen on; on the test set: bench run --tuned. Each "
        "setting was trained once, and p knows of the images alone: for other seeds give --seed 0,1,2 there."
    ]
    if any(trial.suspect for search in found for trial in search.trials):
        notes.append(f"{MARK} suspect, perhaps too high: the attacks may have been blinded; see bench show KEY.")
    return tuple(notes)


def _robust(trial: Judged | None) -> Piece:
    return rate_piece(trial.robust if trial is not None else None, MARK if trial is not None and trial.suspect else "")


def winner_commands(search: Found, options: str, attacks: Sequence[str]) -> list[str]:
    """What measures the winner on the test set: by the search, and with every value written out.

    Args:
        search: with a best trial.
        options: of the protocol, as typed.
        attacks: as typed.
    """
    if search.best is None:
        return []
    trial = search.best.trial
    recipe = "".join(f" --{name.replace('_', '-')} {value}" for name, value in trial.values.items() if "." not in name)
    attacked = f" -a {shlex.quote(','.join(attacks))}" if attacks else ""
    return [
        f"bench run -d {shlex.quote(str(search.study.settings['defense']))} --tuned{attacked}{options}",
        f"bench run -d {shlex.quote(trial.defense)}{recipe}{attacked}{options}",
    ]


def study_json(search: Found) -> dict[str, Any]:
    """A search for programs."""
    settings, paired, best = search.study.settings, search.against_default, search.best
    names = ("defense", "dataset", "held_out", "of", "n", "draws", "seed", "attacks", "budgets", "fixed")
    return {
        "study": search.study.key,
        **{name: settings[name] for name in names},
        "model": settings["training"]["model"]["name"],
        "T": settings["training"]["model"]["T"],
        "recipe": settings["training"]["recipe"],
        "space": dict(search.study.space),
        "best": best.trial.number if best is not None else None,
        "says": search.says,
        "difference": paired.difference if paired else None,
        "difference_low": paired.low if paired else None,
        "difference_high": paired.high if paired else None,
        "p_corrected": paired.p if paired else None,
        "trials": [_trial_json(trial) for trial in search.trials],
    }


def _trial_json(trial: Judged) -> dict[str, Any]:
    return {
        "trial": trial.trial.number,
        "defense": trial.trial.defense,
        "values": dict(trial.trial.values),
        "robust": _rate(trial.robust),
        "clean": _rate(trial.clean),
        "suspect": trial.suspect,
        "error": trial.trial.error,
        "cells": list(trial.trial.cells),
    }


def _rate(rate: Rate | None) -> dict[str, float] | None:
    return {"value": rate.value, "low": rate.low, "high": rate.high, "n": rate.n} if rate is not None else None


def trial_lines(search: Found) -> list[dict[str, Any]]:
    """A search as flat lines, one for each trial; rates are shares in [0, 1]."""
    settings, best = search.study.settings, search.best
    lines = []
    for one in search.trials:
        line: dict[str, Any] = {
            "study": search.study.key, "dataset": settings["dataset"], "model": settings["training"]["model"]["name"],
            "defense": settings["defense"], "attacks": " ".join(settings["attacks"]), "trial": one.trial.number,
            "best": one is best, "setting": one.trial.defense,
            **{name: one.trial.values.get(name) for name in search.study.space},
        }  # fmt: skip
        for name in ("robust", "clean"):
            rate: Rate | None = getattr(one, name)
            line |= {name: rate and rate.value, f"{name}_low": rate and rate.low, f"{name}_high": rate and rate.high}
        lines.append(line | {"suspect": one.suspect, "error": one.trial.error, "cells": " ".join(one.trial.cells)})
    return lines
