"""The evidence on a stored cell, from its row."""

from fractions import Fraction
from pathlib import Path

import torch

from attacks.losses import LOSSES
from bench.errors import BenchError
from bench.evidence.attacked import at_budget, attacked_images
from bench.evidence.collect import Evidence, collect
from bench.evidence.probe import Probe
from bench.evidence.stored import stored_cell, stored_images, stored_network
from bench.resolve import parse_gradient, threat_of
from bench.spec import CellSpec
from bench.store import CellRow, Store
from models.neurons import is_stochastic, spiking_layers
from models.random import derive_key

STOCHASTIC_DRAWS = 3


def cell_evidence(
    row: CellRow,
    store: Store,
    checkpoints: Path,
    data_dir: Path,
    device: torch.device,
    *,
    n: int = 64,
    eps: Fraction | None = None,
    delta: float = 0.5,
    draws: int | None = None,
    grid: int = 5,
    batch: int = 32,
    dataset: str | None = None,
    weights_file: Path | None = None,
    model_name: str | None = None,
) -> tuple[Evidence, CellSpec]:
    """Rebuild a stored cell's network and attack, and measure.

    Args:
        row: the cell.
        store: where it is stored.
        checkpoints, data_dir: folders of weights and datasets.
        device: where to compute.
        n: the first so many of the cell's images; all of them if it has fewer.
        eps: another budget than the cell's.
        delta, grid: see `collect`.
        draws: realisations of a stochastic network's noise; None is 3, and 1 for a deterministic network.
        batch: images at a time.
        dataset, weights_file: where the images and weights are, if not where the row says.
        model_name: see `stored_network`.

    Returns:
        the evidence, and the cell with the budget that was used.

    Raises:
        BenchError: something that the cell was measured with is missing or has changed.
    """
    cell = stored_cell(row)
    images = stored_images(cell, data_dir, dataset)
    model = stored_network(cell, store, checkpoints, device, weights_file, model_name)
    if not spiking_layers(model):
        raise BenchError(f"model '{cell.model.name}' has no spiking layers: there are no potentials to look at")
    cell = at_budget(cell, cell.attack.eps if eps is None else eps)
    try:
        threat = threat_of(cell.attack)
    except ValueError as error:
        raise BenchError(str(error)) from error
    x = images.pixels(images.x_test[: min(n, cell.n)], device)
    y = images.y_test[: len(x)].to(device)
    probe = Probe(
        torch.arange(len(x), device=device),
        parse_gradient(threat.surrogate) if threat.surrogate else None,
        derive_key(cell.weights, cell.test_hash, "evidence"),
        (draws or STOCHASTIC_DRAWS) if is_stochastic(model) else 1,
        batch,
    )
    x_adv = attacked_images(model, x, y, cell)
    loss = str(dict(cell.attack.params).get("loss", "ce"))
    found = collect(
        model,
        x,
        y,
        None if torch.equal(x_adv, x) else x_adv,
        probe,
        threat,
        delta=delta,
        loss=loss if loss in LOSSES else "ce",
        grid=grid,
        attack=cell.attack.name,
    )
    return found, cell
