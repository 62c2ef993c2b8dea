"""A search over the settings of one defense: what identifies it, and the plans of its trials."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.canonical import canonical_json
from bench.data import Dataset, load_dataset
from bench.data.held_out import default_count
from bench.errors import BenchError
from bench.names import HELD_OUT, split_held_out, split_list
from bench.plan import Plan, Request, make_plan
from bench.spec import identity_of
from bench.tuning.sampler import BATCH, SAMPLER_VERSION, STARTUP
from bench.tuning.space import RECIPE, Space, space_for
from defenses.base import Setting


@dataclass(frozen=True)
class Search:
    """One defense that is to be tuned.

    Attributes:
        request: of trial 0, on the held-out view.
        dataset: that view, which is all that a search ever sees.
        space: what is searched.
        key: names the study: a hash of everything that decides its trials. The budget is not part of it, so that a
            larger one continues.
        settings: what the study is about, as JSON values.
        checkpoints, data_dir: as for `make_plan`.
        asked: see `Plan.asked`.
    """

    request: Request
    dataset: Dataset
    space: Space
    key: str
    settings: Mapping[str, Any]
    checkpoints: Path
    data_dir: Path
    asked: tuple[str, ...] = ()

    @property
    def defense(self) -> str:
        """As tables call it without tuning."""
        return str(self.settings["defense"])

    def plan(self, values: Mapping[str, str]) -> Plan:
        """What one trial runs: a training and its attacks.

        Raises:
            BenchError: the defense refuses these values.
        """
        recipe = dict(self.request.recipe) | self.space.recipe_at(values)
        request = replace(self.request, defenses=(self.space.defense_at(values),), recipe=recipe)
        return replace(make_plan(request, self.checkpoints, self.data_dir, self.dataset), asked=self.asked)


def searches(
    request: Request, checkpoints: Path, data_dir: Path, count: int | None = None, asked: tuple[str, ...] = ()
) -> list[Search]:
    """One search for each defense of a request. The test set is dropped here and not handed on.

    Args:
        request: what the user asked for, of the dataset itself; its attacks are what a setting is judged by.
        checkpoints, data_dir: as for `make_plan`.
        count: how many training images are held out; a fifth, and 5,000 at most, if not given.
        asked: see `Plan.asked`.

    Raises:
        BenchError: a mistake in the request, or too few images.
    """
    if request.weights is not None:
        raise BenchError("--weights is trained already, so nothing of it can be tuned; leave it out")
    if len(request.seeds) > 1:
        raise BenchError("bench tune trains each setting once: give one --seed")
    if split_held_out(request.dataset)[0]:
        raise BenchError(f"bench tune holds images out itself: give --dataset {split_held_out(request.dataset)[1]}")
    size = request.recipe.get("train_size") or None
    if count is None and size:
        count = default_count(size)
    if count is not None and count < 1:
        raise BenchError(f"--held-out must be at least 1, got {count}")
    numbers = (f"{count}-of-{size}:" if size else f"{count}:") if count is not None else ""
    # Mistakes first: a typing error should not cost a search.
    _check_names(request)
    dataset = load_dataset(f"{HELD_OUT}{numbers}{request.dataset}", data_dir)
    head, name = split_held_out(dataset.name)
    source = head + request.dataset
    recipe = {key: value for key, value in request.recipe.items() if value is not None and key != "train_size"}
    found: dict[str, Search] = {}
    for defense in split_list(request.defenses) or ["vanilla"]:
        one = replace(request, defenses=(defense,), dataset=source, recipe=recipe)
        (job,) = make_plan(one, checkpoints, data_dir, dataset).jobs
        setting = Setting(job.spec.model.name, dataset.protocol.train_eps, dataset.box)
        space = space_for(defense, setting, job.spec.recipe, recipe)
        settings = {
            "dataset": name, "held_out": len(dataset.x_test), "of": len(dataset.x_train) + len(dataset.x_test),
            "whole": not size, "defense": job.spec.defense_name, "fixed": fixed_of(request.recipe),
            "seed": job.spec.seed, "attacks": [cell.attack.name for cell in job.cells],
            "budgets": sorted({f"{cell.attack.norm} {cell.attack.eps}" for cell in job.cells}),
            "n": job.cells[0].n, "draws": job.cells[0].draws, "training": identity_of(job.spec),
        }  # fmt: skip
        identity = [
            SAMPLER_VERSION, STARTUP, BATCH, space.as_json(), settings["fixed"], settings["training"],
            [identity_of(cell) for cell in job.cells],
        ]  # fmt: skip
        key = hashlib.sha256(canonical_json(identity).encode()).hexdigest()
        found[key] = Search(one, dataset, space, key, settings, checkpoints, data_dir, asked)
    return list(found.values())


def fixed_of(recipe: Mapping[str, Any]) -> list[str]:
    """Of the recipe's searched fields those that the user decided."""
    return [name for name in RECIPE if recipe.get(name) is not None]


def _check_names(request: Request) -> None:
    from bench.resolve import parse_defense

    for defense in split_list(request.defenses):
        parse_defense(defense)
