"""The self-tests pass on what ships, and each way to cheat is caught by the check that is meant for it."""

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import typer
from torch import Tensor, nn
from typer.testing import CliRunner

from attacks import Attack, ball, frozen, input_gradient
from attacks.losses import cross_entropy, margin
from bench import register
from bench.cli.doctor import doctor
from bench.doctor import machine
from bench.doctor.attacks import findings_of
from bench.doctor.finding import Finding, examine
from bench.doctor.gradients import findings_of as findings_of_gradient
from bench.doctor.machine import machine_findings
from bench.doctor.oracle import SLACK, problem
from bench.doctor.storage import storage_findings
from bench.registry import ATTACKS, GRADIENTS
from bench.report.doctor import lines_of, verdict
from models.neurons import LIF, Replacement

CPU = torch.device("cpu")
GOOD = """
from attacks import ball, frozen, input_gradient
from attacks.losses import cross_entropy
from bench import register


@register.attack("honest", takes_steps=True)
def honest(model, x, y, threat, *, rng, steps):
    region, x_adv = ball(x, threat), x
    with frozen(model):
        for _ in range(steps):
            grad = input_gradient(model, x_adv, y, cross_entropy).grad
            x_adv = region.project(x_adv + 0.5 * float(threat.eps) * region.steepest(grad))
    return x_adv
"""


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in (ATTACKS, GRADIENTS):
        registry.names()
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))


def failed(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.check: finding.detail for finding in findings if finding.status == "failed"}


def run_doctor(*arguments: str | Path) -> Any:
    app = typer.Typer()
    app.command()(doctor)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_all_that_ships_passes_and_so_does_an_honest_plugin(tmp_path: Path) -> None:
    (tmp_path / "honest.py").write_text(GOOD)
    results = tmp_path / "not" / "there"
    began = time.process_time()
    ran = run_doctor("--device", "cpu", "--results", results, "--plugin", tmp_path / "honest.py", "--json")
    shown = json.loads(ran.stdout)
    assert [finding for finding in shown["findings"] if finding["status"] == "failed"] == []
    assert (ran.exit_code, shown["ok"]) == (0, True)
    # The processor's time: how long a busy machine takes says nothing.
    assert time.process_time() - began < 60 * torch.get_num_threads()
    passed = {(f["name"], f["check"]) for f in shown["findings"] if f["status"] == "ok"}
    for name in ("pgd", "apgd", "mtpgd", "honest"):
        assert {(name, f"optimum {norm}") for norm in ("linf", "l2")} <= passed
    assert {f["name"] for f in shown["findings"]} >= {*ATTACKS.names(), *GRADIENTS.names(), "honest"}
    assert shown["about"]["tested on"] == "cpu"
    assert not results.parent.exists()


def walk(model: nn.Module, x: Tensor, y: Tensor, threat: Any, turn: Callable[[Tensor], Tensor] = lambda g: g) -> Tensor:
    """An honest step of size eps, its gradient turned by `turn`."""
    region = ball(x, threat)
    with frozen(model):
        grad = input_gradient(model, x, y, cross_entropy).grad
    return region.project(x + float(threat.eps) * region.steepest(turn(grad)))


def leaves_ball(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    return (x + 1.001 * (walk(model, x, y, threat) - x)).clamp(0, 1)


def leaves_ball_by_rounding(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    with frozen(model):
        grad = input_gradient(model, x, y, cross_entropy).grad
    return (x + float(threat.eps) * grad.sign()).clamp(0, 1)


def leaves_box(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    with frozen(model):
        grad = input_gradient(model, x, y, cross_entropy).grad
    inside = ball(x.clone().clamp(0.2, 0.8), threat).project(x.clamp(0.2, 0.8) + float(threat.eps) * grad.sign())
    return torch.where((x > 0.2) & (x < 0.8), inside, x + 0.9 * float(threat.eps) * grad.sign())


def touches_weights(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    x_adv = walk(model, x, y, threat)
    with torch.no_grad():
        next(model.parameters()).mul_(1.0001)
    return x_adv


def leaves_gradients(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    cross_entropy(model.eval()(x), y).sum().backward()
    model.train()
    for name, module in model.named_modules():
        module.train(not name.endswith("spiking"))
    return walk(model, x, y, threat)


def stays_in_eval_mode(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    x_adv = walk(model, x, y, threat)
    model.eval()
    return x_adv


def updates_buffers(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    with torch.no_grad():
        model(x)
    return walk(model, x, y, threat)


def forgets_after_errors(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    x_adv = walk(model, x, y, threat)
    for module, mode in modes.items():
        module.training = mode
    return x_adv


def writes_into_its_input(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    return x.copy_(walk(model, x, y, threat))


def seeds_torch(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    torch.manual_seed(0)
    return walk(model, x, y, threat)


def seeds_numpy(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    np.random.seed(0)
    return walk(model, x, y, threat)


def draws_from_python(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    random.random()
    return walk(model, x, y, threat)


CALLS = [0]


def never_the_same(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    CALLS[0] += 1
    x_adv = walk(model, x, y, threat)
    return x_adv - 1e-10 * CALLS[0] * (x_adv - x)


def looks_at_neighbours(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    x_adv = walk(model, x, y, threat)
    return x_adv - 1e-5 * x.mean() * (x_adv - x)


def looks_at_its_place(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    x_adv = walk(model, x, y, threat)
    return x_adv - 1e-5 * torch.arange(len(x)).view(-1, 1, 1, 1) * (x_adv - x)


def goes_nowhere(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    walk(model, x, y, threat)
    return x.clone()


def stops_short(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    return x + 0.97 * (walk(model, x, y, threat) - x)


def descends(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    return walk(model, x, y, threat, lambda grad: -grad)


def is_lazy_where_it_cannot_win(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    x_adv = walk(model, x, y, threat)
    with frozen(model), torch.no_grad():
        lost = (margin(model(x_adv), y) < 0).view(-1, 1, 1, 1)
    return torch.where(lost, x + 0.9 * (x_adv - x), x_adv)


def spends_twice_what_it_says(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    walk(model, x, y, threat)
    return walk(model, x, y, threat)


def returns_half_precision(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
    return x.half()


CHEATS: dict[Callable[..., Tensor], set[str]] = {
    leaves_ball: {"ball"},
    leaves_ball_by_rounding: {"ball"},
    leaves_box: {"ball"},
    touches_weights: {"model"},
    leaves_gradients: {"model", "errors", "cost"},
    stays_in_eval_mode: {"model"},
    updates_buffers: {"model", "cost"},
    forgets_after_errors: {"errors"},
    writes_into_its_input: {"inputs"},
    seeds_torch: {"generators"},
    seeds_numpy: {"generators"},
    draws_from_python: {"generators"},
    never_the_same: {"repeats"},
    looks_at_neighbours: {"neighbours"},
    looks_at_its_place: {"neighbours"},
    goes_nowhere: {"optimum linf"},
    stops_short: {"optimum linf"},
    descends: {"optimum linf"},
    is_lazy_where_it_cannot_win: {"optimum linf", "cost"},
    spends_twice_what_it_says: {"cost"},
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
def test_each_way_to_cheat_is_caught_by_the_check_meant_for_it(cheat: Callable[..., Tensor]) -> None:
    register.attack("cheat", norms=("linf",))(cheat)
    assert set(failed(findings_of("cheat", CPU))) == CHEATS[cheat]


def test_a_result_of_another_type_fails_with_the_reason() -> None:
    register.attack("cheat")(returns_half_precision)
    assert "float16" in failed(findings_of("cheat", CPU))["optimum linf"]


def test_an_attack_that_cannot_be_imported_fails_with_the_reason() -> None:
    ATTACKS.add("absent", "attacks.no_such_file:ABSENT")
    ((check, detail),) = failed(findings_of("absent", CPU)).items()
    assert check == "loads"
    assert "No module named 'attacks.no_such_file'" in detail


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (PackageNotFoundError("some-toolbox"), "not installed: pip install some-toolbox"),
        (ValueError("x is not installed; pip install x"), "x is not installed; pip install x"),
    ],
)
def test_a_library_that_is_not_installed_is_no_failure(error: Exception, expected: str) -> None:
    def backend() -> str:
        raise error

    ATTACKS.add("foreign", Attack(stops_short, "", backend=backend))
    (finding,) = findings_of("foreign", CPU)
    assert (finding.status, finding.detail) == ("skipped", expected)
    assert expected in " ".join(lines_of([finding])[0].split())


def test_an_attack_without_gradients_is_not_held_to_the_optimum() -> None:
    @register.attack("vertex")
    def vertex(model: nn.Module, x: Tensor, y: Tensor, threat: Any, *, rng: Any) -> Tensor:
        return ball(x, threat).project(x + float(threat.eps) * (rng.uniform(x.shape[1:]) - 0.5).sign().to(x.dtype))

    assert failed(findings_of("vertex", CPU)) == {}


@dataclass(frozen=True)
class Bent:
    name: ClassVar[str] = "bent"
    faithful: ClassVar[bool] = True
    version: ClassVar[int] = 1
    how: str = "forward"

    def for_layer(self, layer: LIF) -> Replacement:
        def run(layer: LIF, current: Tensor) -> Tensor:
            if self.how == "layers":
                layer.decay = 0.9
            spikes = layer.differentiated(current, lambda trace: lambda trace, grad: grad * self.factor())
            return spikes * 0.999 if self.how == "forward" else spikes

        return run

    def factor(self) -> float:
        return {"finite": float("nan"), "zero": 0.0}.get(self.how, 1.0)


@pytest.mark.parametrize(
    ("how", "expected"),
    [("forward", {"forward"}), ("finite", {"finite"}), ("zero", {"finite"}), ("layers", {"layers", "forward"})],
)
def test_a_gradient_that_breaks_its_promise_is_caught(how: str, expected: set[str]) -> None:
    GRADIENTS.add("bent", lambda: Bent(how))
    assert set(failed(findings_of_gradient("bent", CPU))) == expected


def test_a_wrong_layer_and_wrong_random_numbers_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def findings() -> dict[tuple[str, str], str]:
        all_of_them = [finding for test in machine_findings() for finding in test(CPU)]
        return {(f.name, f.check): f.detail for f in all_of_them if f.status == "failed"}

    assert findings() == {}
    monkeypatch.setattr(machine, "lif", lambda current, *_: machine.lif_reference(current * 1.01, *_))
    monkeypatch.setattr(machine, "philox4x32", lambda counter, key: (counter[0],) * 4)
    assert set(findings()) == {("fused LIF", "forward"), ("fused LIF", "gradient"), ("Philox", "known answers")}


def test_lost_precision_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine._exact(torch.tensor([machine._FINE]), machine._FINE) == ""
    tf32 = torch.tensor([machine._FINE]).view(torch.int32) >> 13 << 13
    finding = examine("g", "n", "c", lambda: machine._exact(tf32.view(torch.float32), machine._FINE))
    assert (finding.status, "not float32" in finding.detail) == ("failed", True)


def test_a_folder_that_cannot_be_written_is_caught(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (test,) = storage_findings(tmp_path / "file")
    assert set(failed(test(CPU))) == {"writes", "write-ahead log"}
    (test,) = storage_findings(tmp_path)
    assert failed(test(CPU)) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_closed_form_is_the_worst_of_the_ball(norm: Any) -> None:
    task = problem(norm, CPU)
    region = ball(task.x, task.threat)
    uphill = torch.where(task.y.view(-1, 1, 1, 1) == 0, -1, 1) * task.slope.view(task.x.shape[1:])
    worst = region.project(task.x + float(task.threat.eps) * region.steepest(uphill))
    assert torch.allclose(task.margins(worst), task.highest, rtol=0, atol=1e-6)
    assert bool((task.margins(task.x) < 0).all())
    gain = task.highest - task.margins(task.x)
    assert torch.allclose(task.highest[::2], SLACK * gain[::2])
    assert torch.allclose(task.highest[1::2], -SLACK * gain[1::2])
    assert task.threat.eps == {"linf": Fraction(8, 255), "l2": Fraction(1, 4)}[norm]


def test_lines_fit_a_narrow_window_and_name_every_failure() -> None:
    findings = [
        Finding("attacks", "x", "ball", "failed", "5 of 8 images leave the ball " * 5),
        Finding("attacks", "x", "model", "failed", "changes the model: weight"),
        Finding("attacks", "x", "cost", "ok", "1+1"),
    ]
    text = "\n".join(lines_of(findings))
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("FAILED") == 2
    assert "2 of 3 checks FAILED" in verdict(findings, 1.0)


def test_the_exit_status_tells(tmp_path: Path) -> None:
    ran = run_doctor("--device", "cpu", "--results", tmp_path / "r", "--plugin", tmp_path / "missing.py")
    assert ran.exit_code != 0
