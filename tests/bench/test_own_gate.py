"""The project's own gate: fixed networks against their baseline show faults in the code, and no other rounding."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import torch
from planted import FAULTS, rounds_otherwise
from support import ROOT

from bench.checkpoint import load_tensors, save_tensors
from bench.errors import BenchError
from bench.exchange.bundle import Bundle
from bench.exchange.files import read_results
from bench.gate.check import LEVEL, NOT_MEASURED, OK, REGRESSION, Check, run_check
from bench.plan import Request, make_plan
from bench.scheduler import Listener, run_plan
from bench.store import Store

GATE = ROOT / "results" / "gate"
BASELINE = read_results(GATE / "baseline.json.gz")
SCRIPT = importlib.util.spec_from_file_location("renew", GATE / "renew.py")
assert SCRIPT is not None
assert SCRIPT.loader is not None
renew = importlib.util.module_from_spec(SCRIPT)
SCRIPT.loader.exec_module(renew)
LIMIT = float(re.findall(r"--max-moved (\S+)", (GATE / "check.sh").read_text())[0])


def checked(network: str, attack: str, norm: str, folder: Path) -> Check:
    """What the gate says of one of its cells, measured now, at the level that the whole gate leaves it."""
    wanted = [
        cell
        for cell in BASELINE.cells
        if cell.labels["defense"].partition(" ")[0] == network and cell.labels["norm"] == norm
    ]
    assert wanted
    eps, n = str(wanted[0].labels["eps"]), wanted[0].outcome.n
    weights = GATE / f"{network}.safetensors"
    store = Store(folder / "bench.sqlite")
    try:
        request = Request(attacks=(attack,), weights=weights, n=n, norm=norm, eps=(eps,))
        plan = make_plan(request, folder / "checkpoints", folder / "data").known_to(store)
        run_plan(plan, store, folder / "checkpoints", torch.device("cpu"), Listener())
        cells = tuple(cell for cell in wanted if cell.labels["attack"] == plan.cells[0].attack.name)
        assert len(cells) == 1
        lines = len(BASELINE.cells) + len(BASELINE.weights)
        return run_check(
            store, Bundle(cells, BASELINE.weights, {}), level=LEVEL * 2 / lines, both_ways=True, max_moved=LIMIT
        )
    finally:
        store.close()


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_fails_it(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fault = FAULTS[name]
    fault.plant(monkeypatch.setattr)
    check = checked(fault.network, fault.attack, fault.norm, tmp_path)
    assert check.status == (REGRESSION if fault.says else NOT_MEASURED), check.headline
    if fault.says:
        assert check.lines[1].says == fault.says, check.lines


@pytest.mark.parametrize(("network", "attack"), [("vanilla", "pgd10:eot=4"), ("hosnn+at", "fgsm"), ("tgo+at", "fgsm")])
def test_other_rounding_passes_it(network: str, attack: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rounds_otherwise(monkeypatch.setattr)
    check = checked(network, attack, "linf", tmp_path)
    assert check.status == OK, check.headline
    # It did something.
    assert any(line.moved for line in check.lines)


def test_the_networks_are_those_of_the_baseline() -> None:
    from bench.given import given_weights

    files = {given_weights(path).sha256 for path in GATE.glob("*.safetensors")}
    assert files == {weights["sha256"] for weights in BASELINE.weights.values()}
    assert {fault.network for fault in FAULTS.values()} == {path.stem for path in GATE.glob("*.safetensors")}


def test_ci_runs_the_command_of_the_page() -> None:
    page = (GATE / "README.md").read_text()
    command = page.split("<!-- command: gate -->\n```sh\n")[1].split("\n```")[0]
    assert command in (ROOT / ".ci" / "run").read_text()
    assert f"{len(FAULTS)} planted faults" in page
    assert f"over {len(BASELINE.cells) + len(BASELINE.weights)} comparisons" in page


def test_new_networks_are_taken_from_a_results_folder(tmp_path: Path) -> None:
    """By their defense, whatever the values of its parameters; one must be named where there are several."""
    (tmp_path / "checkpoints").mkdir()
    for path in GATE.glob("*.safetensors"):
        shutil.copy(path, tmp_path / "checkpoints" / f"{path.stem.replace('+', '')}1.safetensors")
    assert {name: path.stem for name, path in renew.chosen(tmp_path, {}).items()} == {
        name: f"{name.replace('+', '')}1" for name in renew.NETWORKS
    }
    tensors, metadata = load_tensors(GATE / "at.safetensors")
    other = tmp_path / "checkpoints" / "at2.safetensors"
    save_tensors(other, tensors, metadata | {"defense": "at:steps=3"})
    with pytest.raises(BenchError, match=r"it holds at1 \(at\), at2 \(at:steps=3\): name one: at=KEY"):
        renew.chosen(tmp_path, {})
    assert renew.chosen(tmp_path, {"at": "at2"})["at"] == other
    with pytest.raises(BenchError, match="train it with: bench run -d vanilla"):
        renew.chosen(tmp_path / "checkpoints", {})
