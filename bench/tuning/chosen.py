"""What a search found, as what is to be run: the values of `bench run --tuned`."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.data import Dataset, load_dataset
from bench.data.held_out import held_out
from bench.errors import BenchError
from bench.names import marked_tuned, split_list
from bench.plan import Request, make_plan
from bench.spec import TrainSpec, identity_of
from bench.store import Store
from bench.store.studies import Studies, StudyRow
from bench.tuning.notes import tuned_text, way_trained
from bench.tuning.result import found
from bench.tuning.study import fixed_of


def tuned(
    request: Request,
    store: Store | None,
    checkpoints: Path,
    data_dir: Path,
    command: Callable[[str], str],
    loaded: Dataset | None = None,
) -> list[Request]:
    """A request for each defense of one, with the values that a search found best for exactly this: the same images,
    model, time steps, decay, surrogate, epochs, batch size and training set size, and the same of it fixed.

    Of several searches, which differ in what they were judged by, the one with most trials is taken, then the newest.

    Args:
        request: what the user asked for.
        store: where the searches are; None where there is none.
        checkpoints, data_dir: as for `make_plan`.
        command: that searches for a defense.
        loaded: the request's dataset, where the caller has it already.

    Raises:
        BenchError: there is no such search; the message says which command makes one.
    """
    if request.weights is not None:
        raise BenchError("--tuned trains with what bench tune found, and --weights is trained already; leave one out")
    dataset = loaded or load_dataset(request.dataset, data_dir)
    studies = Studies(store).all() if store is not None else []
    return [
        _tuned(replace(request, defenses=(defense,)), dataset, studies, store, checkpoints, data_dir, command)
        for defense in split_list(request.defenses) or ["vanilla"]
    ]


def _tuned(
    request: Request,
    dataset: Dataset,
    studies: list[StudyRow],
    store: Store | None,
    checkpoints: Path,
    data_dir: Path,
    command: Callable[[str], str],
) -> Request:
    spec = make_plan(request, checkpoints, data_dir, dataset).jobs[0].spec
    fitting = [study for study in studies if study.trials and _fits(study, spec, dataset, request.recipe)]
    if store is None or not fitting:
        elsewhere = any(study.settings["defense"] == spec.defense_name for study in studies)
        raise BenchError(
            f"'{spec.defense_name}' was "
            + ("tuned, but not for these images and conditions" if elsewhere else "not tuned yet")
            + f"; first: {command(spec.defense_name)}"
        )
    study = max(fitting, key=lambda study: (len(study.trials), study.created))
    search = found(store, study)
    if search.best is None:
        raise BenchError(f"every trial of study {study.key[:12]} failed; see: bench tune --show -d {spec.defense_name}")
    trial = search.best.trial
    recipe = {name: float(value) for name, value in trial.values.items() if "." not in name}
    note = marked_tuned(tuned_text(search))
    return replace(request, defenses=(trial.defense,), recipe=dict(request.recipe) | recipe, note=note)


def _fits(study: StudyRow, spec: TrainSpec, dataset: Dataset, typed: Mapping[str, Any]) -> bool:
    """Whether a search was over exactly what is to be run, and on a part of exactly these training images."""
    settings = study.settings
    of = spec.recipe.train_size or len(dataset.x_train)
    if (
        (settings["dataset"], settings["of"], settings["defense"]) != (dataset.name, of, spec.defense_name)
        or list(settings["fixed"]) != fixed_of(typed)
        or way_trained(settings["training"]) != way_trained(identity_of(spec))
    ):
        return False
    return bool(held_out(dataset, settings["held_out"], of).train_hash == settings["training"]["train_hash"])
