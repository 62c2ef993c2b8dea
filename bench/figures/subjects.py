"""The networks that a figure shows, rebuilt from stored cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from attacks.threat import Threat, format_eps
from bench.errors import BenchError
from bench.evidence.attacked import attacked_images
from bench.evidence.probe import Probe
from bench.evidence.stored import stored_cell, stored_images, stored_network
from bench.frames import cells_frame
from bench.names import short_names, tuned_name
from bench.report.tables import layout
from bench.report.tables.choose import Cell, training
from bench.report.tables.conditions import Paper, departures, warning
from bench.resolve import parse_gradient, threat_of
from bench.spec import CellSpec
from bench.store import CellRow, Store
from bench.tuning.notes import tuned_paragraph
from models.neurons import is_stochastic, spiking_layers
from models.random import derive_key

_PAPER = ("vanilla", "tgo")
_DRAWS = 3


@dataclass(frozen=True)
class Subject:
    """One network and what it looks at.

    Attributes:
        name: its defense, as tables show it.
        row, cell: the stored cell that it was taken from: its attack is the attack of the figure.
        model: in eval mode.
        x, y: the first test images [N, C, H, W] and their labels [N].
        probe: gradient and noise.
        threat: of the cell.
    """

    name: str
    row: CellRow
    cell: CellSpec
    model: nn.Module
    x: Tensor
    y: Tensor
    probe: Probe
    threat: Threat

    def attacked(self) -> Tensor:
        """The cell's attack on `x`, [N, C, H, W]."""
        return attacked_images(self.model, self.x, self.y, self.cell)


def chosen_rows(rows: Sequence[CellRow], keys: Sequence[str], store: Store) -> list[CellRow]:
    """The cells of a figure: those named, or the paper's pair of a vanilla and a TGO network.

    The pair is of one dataset, model, way to train, attack, budget and seed: of those that have both, networks as typed
    before those whose values a search found (whose learning rates are each one's own), an attack named RFGSM as in the
    paper, then those without doubts, then the newest.

    Args:
        rows: to choose from, or those named.
        keys: what was named; nothing if it is to be chosen.
        store: knows how networks were trained.

    Raises:
        BenchError: no pair is stored.
    """
    if keys:
        return list(rows)
    searched = {row.key: tuned for row in rows if (tuned := tuned_name(row.defense))}
    cells: list[Cell] = list(cells_frame(store, rows).itertuples())
    trained = {cell.key: training(cell._replace(lr=None) if cell.key in searched else cell) for cell in cells}
    groups: dict[tuple[object, ...], dict[str, CellRow]] = {}
    for row in rows:
        if row.summary is not None and row.verdict != "invalid" and row.spec["attack"]["family"] != "clean":
            by_search, name = row.key in searched, searched[row.key].plain if row.key in searched else row.defense
            place = (row.dataset, row.model, row.attack, row.norm, row.eps, row.seed, trained[row.key], by_search)
            groups.setdefault(place, {})[name] = row
    pairs = {place: group for place, group in groups.items() if all(name in group for name in _PAPER)}
    if not pairs:
        raise BenchError(
            "no vanilla and tgo network, trained alike and under one attack, is stored: "
            "bench run -d vanilla,tgo -a rfgsm, or name cells with --keys"
        )

    def rank(place: tuple[object, ...]) -> tuple[object, ...]:
        pair = [pairs[place][name] for name in _PAPER]
        return (
            not place[-1],
            place[2] == "rfgsm",
            all(row.verdict == "ok" for row in pair),
            min(row.updated for row in pair),
        )

    best = max(pairs, key=rank)
    return [pairs[best][name] for name in _PAPER]


def subjects(
    rows: Sequence[CellRow],
    store: Store,
    checkpoints: Path,
    data_dir: Path,
    device: torch.device,
    n: int,
    dataset: str | None = None,
    model_name: str | None = None,
) -> list[Subject]:
    """Rebuild the networks of some cells.

    Args:
        rows: from `chosen_rows`.
        store, checkpoints, data_dir: where they are.
        device: where to compute.
        n: the first so many test images.
        dataset: the path of the images, where the cells' own label does not find them.
        model_name: see `stored_network`.

    Raises:
        BenchError: a checkpoint or a dataset is missing or has changed, or the cells are of different images.
    """
    found, names = [], short_names(("", row.defense) for row in rows)
    for row in rows:
        cell = stored_cell(row)
        if cell.test_hash != stored_cell(rows[0]).test_hash:
            raise BenchError("the cells of one figure must be of the same test images")
        images = stored_images(cell, data_dir, dataset)
        model = stored_network(cell, store, checkpoints, device, model_name=model_name)
        if not spiking_layers(model):
            raise BenchError(f"model '{cell.model.name}' has no spiking layers: there are no potentials to look at")
        threat = threat_of(cell.attack)
        x = images.pixels(images.x_test[: min(n, cell.n)], device)
        y = images.y_test[: len(x)].to(device)
        probe = Probe(
            torch.arange(len(x), device=device),
            parse_gradient(threat.surrogate) if threat.surrogate else None,
            derive_key(cell.weights, cell.test_hash, "figure"),
            _DRAWS if is_stochastic(model) else 1,
        )
        found.append(Subject(names["", row.defense], row, cell, model, x, y, probe, threat))
    return found


def about(shown: Sequence[Subject], used: pd.DataFrame, attacked: bool) -> str:
    """What every figure's caption ends with: what was measured, and what of it is not the paper's.

    Args:
        shown: the networks.
        used: their cells, as rows of `cells_frame`.
        attacked: whether the figure shows what the cells' attack does.
    """
    first = shown[0].row
    trainings = ", ".join(map(str, sorted(set(used["epochs"].dropna().astype(int))))) or "unknown"
    budget = f"under {first.attack}, {first.norm} eps {format_eps(Fraction(first.eps))}" if attacked else "no attack"
    facts = (
        f"{first.dataset} / {first.model}, T {shown[0].cell.model.T}, epochs {trainings}, training seed {first.seed}, "
        f"{budget}."
    )
    paper = Paper("cifar100", "CIFAR-100", ("wrn16-4",), "WRN-16", None, (layout.EPS,) if attacked else ())
    tuned = tuned_paragraph(((), each.row.defense, "") for each in shown)
    return " ".join(filter(None, [facts, warning(departures(used, paper)), tuned]))
