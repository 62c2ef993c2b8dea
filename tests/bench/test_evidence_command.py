"""`bench evidence` on a tiny trained network: the stored weights, the stored attack, the stored budget."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from attacks.losses import margin
from bench.cli.evidence import evidence
from bench.errors import BenchError
from bench.evidence.attacked import at_budget, attacked_images
from bench.evidence.run import cell_evidence
from bench.evidence.stored import stored_cell, stored_images, stored_network
from bench.plan import Request, make_plan
from bench.report.evidence import WIDTH, tables
from bench.report.text import fits
from bench.scheduler import Listener, run_plan
from bench.spec import key_of, randomness_key
from bench.store import CellRow, Store
from models.random import derive_key, noise_stream

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Results:
    folder: Path
    data: Path
    rows: tuple[CellRow, ...]


@pytest.fixture(scope="module")
def measured(tiny_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("results")
    request = Request(
        defenses=("vanilla", "nlif"),
        attacks=("pgd3", "fgsm"),
        eps=("0.15",),
        dataset=str(tiny_npz),
        model="cnn-small",
        T=2,
        n=40,
        recipe={"epochs": 2, "batch_size": 16, "train_size": 96},
    )
    plan = make_plan(replace(request, recipe=request.recipe), folder / "checkpoints", folder)
    store = Store(folder / "bench.sqlite")
    report = run_plan(plan, store, folder / "checkpoints", CPU, Listener())
    store.close()
    assert not report.failures
    return Results(folder, tiny_npz, tuple(report.rows))


@pytest.fixture
def command(measured: Results) -> Callable[..., Result]:
    app = typer.Typer()
    app.command()(evidence)

    def call(*arguments: str) -> Result:
        where = ["--results", str(measured.folder), "--dataset", str(measured.data), "--device", "cpu"]
        return CliRunner().invoke(app, [*arguments, *where])

    return call


def row_of(measured: Results, defense: str, attack: str) -> CellRow:
    return next(row for row in measured.rows if (row.defense, row.attack) == (defense, attack))


@pytest.mark.parametrize("defense", ["vanilla", "nlif"])
def test_the_attack_is_the_one_that_was_scored(measured: Results, defense: str) -> None:
    row = row_of(measured, defense, "pgd3")
    cell, store = stored_cell(row), Store(measured.folder / "bench.sqlite")
    assert key_of(cell) == row.key
    model = stored_network(cell, store, measured.folder / "checkpoints", CPU)
    images = stored_images(cell, measured.folder, str(measured.data))
    x, y = images.x_test[:40], images.y_test[:40]
    x_adv = attacked_images(model, x, y, cell)
    score_key = derive_key(cell.weights, cell.test_hash, "scoring noise")
    with torch.no_grad(), noise_stream(model, score_key, torch.arange(40)):
        margins = torch.stack([-margin(model(x_adv), y) for _ in range(cell.draws)]).mean(0)
    outcome = store.outcome(row.key)
    store.close()
    assert outcome is not None
    assert np.allclose(margins.numpy(), outcome.margin_last, atol=1e-5)
    assert float((x_adv - x).abs().max()) == pytest.approx(0.15, rel=1e-5)


def test_the_command_gives_json_under_the_cell_s_threat_model(
    measured: Results, command: Callable[..., Result]
) -> None:
    row = row_of(measured, "nlif", "pgd3")
    before = torch.get_rng_state()
    result = command(row.key[:12], "-n", "12", "--json", "--grid", "3")
    assert result.exit_code == 0, result.output
    assert torch.equal(before, torch.get_rng_state())
    found = json.loads(result.stdout)
    assert (found["key"], found["eps"], found["norm"], found["n"], found["draws"]) == (row.key, "3/20", "linf", 12, 3)
    assert found["jacobian"]["eps"] == 0.15
    assert [flips["perturbation"] for flips in found["flips"]] == ["random noise", "pgd3"]
    assert found["flips"][1]["flipped"] > 0
    assert [plane["space"] for plane in found["landscape"]["planes"]] == ["input", "weights"]
    assert {layer["name"] for layer in found["membranes"]} == {layer["name"] for layer in found["gradients"]}
    assert len(found["membranes"][0]["near"]) == 2
    assert command(row.key[:12], "-n", "12", "--json", "--grid", "3").stdout == result.stdout


def test_the_tables_fit_80_columns(measured: Results, command: Callable[..., Result]) -> None:
    row = row_of(measured, "vanilla", "fgsm")
    result = command(row.key, "-n", "10", "--delta", "0.25")
    assert result.exit_code == 0, result.output
    for expected in ("no gradient", "< 0.25", "Eq. 10 as printed", "Spikes flipped by fgsm", "plane of weights"):
        assert expected in result.stdout
    store = Store(measured.folder / "bench.sqlite")
    found, _ = cell_evidence(
        row, store, measured.folder / "checkpoints", measured.folder, CPU, n=10, dataset=str(measured.data)
    )
    store.close()
    console = Console(width=WIDTH)
    assert all(fits(console, part) for part in tables(found) if not isinstance(part, str))
    assert max(map(len, result.stdout.splitlines()[1:])) <= WIDTH


def test_another_budget_scales_the_step_and_nothing_moves_at_zero(
    measured: Results, command: Callable[..., Result]
) -> None:
    row = row_of(measured, "vanilla", "pgd3")
    found = json.loads(command(row.key, "-n", "8", "--eps", "0", "--json", "--grid", "0").stdout)
    assert found["eps"] == "0"
    assert found["jacobian"]["unmoved"] == 1
    assert [flips["flipped"] for flips in found["flips"]] == [0]
    cell = stored_cell(row)
    other = at_budget(cell, Fraction(3, 10))
    assert dict(other.attack.params)["alpha"] == 2 * dict(cell.attack.params)["alpha"]
    assert randomness_key(other) != randomness_key(cell)
    assert at_budget(cell, cell.attack.eps) is cell


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-n", "0"), "-n must be at least 1"),
        (("--draws", "0"), "--draws must be at least 1"),
        (("--delta", "-1"), "--delta must not be negative"),
        (("--grid", "4"), "--grid must be odd"),
        (("--eps", "x"), "is not a number"),
        (("--eps", "7"), "larger than the whole pixel range"),
        (("--weights", "none.safetensors"), "are not there"),
    ],
)
def test_mistakes_are_one_line(
    measured: Results, command: Callable[..., Result], arguments: tuple[str, ...], message: str
) -> None:
    result = command(measured.rows[0].key, *arguments)
    assert isinstance(result.exception, BenchError)
    assert message in str(result.exception)


def test_other_weights_other_images_and_lost_files_are_refused(measured: Results, tmp_path: Path) -> None:
    store = Store(measured.folder / "bench.sqlite")
    vanilla, noisy = (stored_cell(row_of(measured, name, "fgsm")) for name in ("vanilla", "nlif"))
    checkpoints = measured.folder / "checkpoints"
    wrong = next(checkpoints.glob(f"{noisy.weights.removeprefix('train:')[:16]}*.safetensors"))
    with pytest.raises(BenchError, match="holds other weights"):
        stored_network(vanilla, store, checkpoints, CPU, wrong)
    with pytest.raises(BenchError, match="run the cell again"):
        stored_network(vanilla, store, tmp_path, CPU)
    with pytest.raises(BenchError, match="no record of the weights"):
        stored_network(replace(vanilla, weights="train:0"), store, checkpoints, CPU)
    changed: dict[str, Any] = {"fingerprint": "another"}
    with pytest.raises(BenchError, match="not what the cell was measured with"):
        stored_network(replace(vanilla, model=replace(vanilla.model, **changed)), store, checkpoints, CPU)
    store.close()
    with pytest.raises(BenchError, match=r"give --dataset FILE\.npz"):
        stored_images(vanilla, tmp_path)
    with pytest.raises(BenchError, match="not those that the cell was measured on"):
        stored_images(replace(vanilla, test_hash="x"), tmp_path, str(measured.data))


def test_without_a_store_it_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="bench run"):
        evidence("abc", results=tmp_path)
