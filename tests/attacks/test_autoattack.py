"""The bridge to official AutoAttack: what the authors' code finds is handed on whole, and nothing is left behind."""

import inspect
import random
import sys
from collections.abc import Callable
from fractions import Fraction
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from foreign import inside, linear_net, predicted, smooth_net, surroundings
from support import images, spiking_net
from test_purity import assert_same, oddly_set_up
from torch import Tensor, nn

from attacks import Threat, margin
from attacks.external import autoattack as bridge
from attacks.external.autoattack import AUTOATTACK, autoattack, backend
from attacks.external.hosting import View
from attacks.gradients import estimating
from attacks.gradients.conversion import Conversion
from attacks.threat import Norm
from models.random import CounterRNG

# Not on every machine that has a GPU to test.
pyautoattack = pytest.importorskip("pyautoattack")
RNG = Callable[..., CounterRNG]
LINF, L2 = Threat(Fraction(1, 20)), Threat(Fraction(1, 2), "l2")
MEMBERS = ("apgd-ce", "apgd-t", "fab-t", "square")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The official attacks, each with a tenth of its steps or less."""
    original = pyautoattack.AutoAttack.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        for attack in (self.apgd, self.apgd_targeted, self.fab):
            attack.n_iter = 10
        self.apgd.n_restarts = self.fab.n_restarts = 1
        self.square.n_queries = 50

    monkeypatch.setattr(pyautoattack.AutoAttack, "__init__", init)


@pytest.mark.parametrize(("norm", "eps", "dual"), [("linf", "1/50", 1), ("l2", "3/25", 2)])
def test_it_finds_every_example_that_there_is_on_a_linear_network(norm: Norm, eps: str, dual: int, rng: RNG) -> None:
    model, x, threat = linear_net(), 0.15 + 0.7 * images(80), Threat(Fraction(eps), norm)
    y = predicted(model, x)
    weight, logits = model[1].weight.detach().double(), model(x).detach().double()  # type: ignore[index]
    gain = float(threat.eps) * (weight[None] - weight[:, None]).norm(p=dual, dim=2)[y]
    largest = margin(logits + gain, y)
    decided = largest.abs() > 0.02
    assert decided.sum() > 70 and 20 < (largest < 0).sum() < 60
    fooled = predicted(model, autoattack(model, x, y, threat, rng=rng(80))) != y
    assert torch.equal(fooled[decided], (largest > 0)[decided])


@pytest.mark.parametrize("threat", [LINF, L2], ids=["linf", "l2"])
def test_no_member_alone_is_stronger_and_every_example_is_in_the_ball(threat: Threat, rng: RNG) -> None:
    model, x = smooth_net(), images(40)
    y = predicted(model, x)
    x_adv = autoattack(model, x, y, threat, rng=rng(40))
    together = (predicted(model, x_adv) == y).sum()
    assert 0 < together < 40
    assert inside(x, x_adv, threat)
    standing = predicted(model, x_adv) == y
    assert torch.equal(x_adv[standing], x[standing])
    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    for name in MEMBERS:
        official = pyautoattack.AutoAttack(
            model, norm=norm, eps=float(threat.eps), seed=1, version="custom", attacks=[name]
        )
        official.apgd_targeted.n_target_classes = official.fab.n_target_classes = 3
        with torch.random.fork_rng():
            found, _ = official.run_standard_evaluation(x, y, batch_size=40)
        assert together <= (predicted(model, found) == y).sum(), name


def test_plus_runs_the_untargeted_attacks_too_on_a_spiking_network(rng: RNG, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    original = pyautoattack.AutoAttack.run_standard_evaluation

    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        ran.append(self.attacks_to_run)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", run)
    model, x = spiking_net(), images(6)
    y = predicted(model, x)
    threat = Threat(Fraction(1, 4))
    x_adv = autoattack(model, x, y, threat, rng=rng(6), version="plus")
    autoattack(model, x, y, threat, rng=rng(6))
    assert ran == [["apgd-ce", "apgd-dlr", "fab", "square", "apgd-t", "fab-t"], list(MEMBERS)]
    assert inside(x, x_adv, threat)
    assert (predicted(model, x_adv) != y).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_of_any_dtype_come_back_in_the_ball_in_theirs(dtype: torch.dtype, rng: RNG) -> None:
    model, x = smooth_net(dtype=dtype), images(20, dtype=dtype) * 0.9 + 0.01
    y = predicted(model, x)
    x_adv = autoattack(model, x, y, LINF, rng=rng(20))
    assert x_adv.dtype == dtype
    assert inside(x, x_adv, LINF)
    standing = predicted(model, x_adv) == y
    assert standing.any() and not standing.all()
    assert torch.equal(x_adv[standing], x[standing])


def test_it_repeats_itself_and_its_key_selects_its_random_numbers(rng: RNG) -> None:
    model, x = smooth_net(), images(20)
    y = predicted(model, x)
    first = autoattack(model, x, y, LINF, rng=rng(20))
    torch.manual_seed(99)
    assert torch.equal(first, autoattack(model, x, y, LINF, rng=rng(20)))
    assert not torch.equal(first, autoattack(model, x, y, LINF, rng=rng(20, key=8)))


def test_nothing_is_touched(rng: RNG) -> None:
    model, x = oddly_set_up(), images(5)
    y = predicted(smooth_net(), x)
    np.random.seed(4)
    random.seed(4)
    before = surroundings(model), x.clone(), y.clone()
    x_adv = autoattack(model, x, y, LINF, rng=rng(5))
    assert_same(before, (surroundings(model), x, y))
    assert not x_adv.requires_grad and x_adv.data_ptr() != x.data_ptr()


def test_a_debugger_or_a_coverage_tool_stays_on(rng: RNG) -> None:
    def trace(*_: object) -> None:
        return None

    outer = sys.gettrace()
    sys.settrace(trace)
    try:
        autoattack(smooth_net(), images(2), torch.zeros(2).long(), LINF, rng=rng(2))
        assert sys.gettrace() is trace
    finally:
        sys.settrace(outer)


@pytest.mark.parametrize("call", [1, 2, 6, 12])
def test_nothing_is_touched_after_an_error_either(call: int, rng: RNG) -> None:
    model, x = smooth_net().train(), images(5)
    y = predicted(model, x)
    calls = []

    def fail(*_: object) -> None:
        calls.append(1)
        if len(calls) == call:
            raise RuntimeError("in the middle")

    model.register_forward_hook(fail)
    before = surroundings(model)
    with pytest.raises(RuntimeError, match="in the middle"):
        autoattack(model, x, y, LINF, rng=rng(5))
    assert_same(before, surroundings(model))


def test_a_budget_of_zero_does_nothing(rng: RNG) -> None:
    x = images(3)
    assert torch.equal(autoattack(smooth_net(), x, torch.zeros(3).long(), Threat(Fraction(0)), rng=rng(3)), x)


@pytest.mark.parametrize("classes", [2, 3])
def test_too_few_classes_for_its_loss_are_refused_with_what_to_use_instead(classes: int, rng: RNG) -> None:
    with pytest.raises(ValueError, match=rf"4 classes .* has {classes}; use apgd100:loss=margin"):
        autoattack(smooth_net(classes), images(3), torch.zeros(3).long(), LINF, rng=rng(3))


@pytest.mark.parametrize(("version", "mend"), [("rand", "autoattack-rand"), ("custom", "standard, plus")])
def test_other_versions_are_refused(version: str, mend: str, rng: RNG) -> None:
    with pytest.raises(ValueError, match=mend):
        autoattack(smooth_net(), images(3), torch.zeros(3).long(), LINF, rng=rng(3), version=version)


def test_another_box_is_refused(rng: RNG) -> None:
    with pytest.raises(ValueError, match=r"images in \[0, 1\] only"):
        autoattack(smooth_net(), images(3), torch.zeros(3).long(), Threat(LINF.eps, high=2.0), rng=rng(3))


def test_the_interface_of_the_release_on_pypi_is_what_the_bridge_expects() -> None:
    monkeypatched = pyautoattack.AutoAttack.__init__.__closure__[0].cell_contents  # type: ignore[index]
    constructor = inspect.signature(monkeypatched).parameters
    assert {"norm", "eps", "seed", "version", "device"} <= set(constructor)
    assert "verbose" not in constructor
    assert "batch_size" in inspect.signature(pyautoattack.AutoAttack.run_standard_evaluation).parameters


class _Member:
    n_target_classes = 9


class _FromGitHub:
    """The constructor and the one method that the bridge calls, with the arguments that the repository's have."""

    def __init__(
        self,
        model: nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        seed: int | None = None,
        verbose: bool = True,
        attacks_to_run: tuple[str, ...] = (),
        version: str = "standard",
        is_tf_model: bool = False,
        device: str = "cuda",
        log_path: str | None = None,
    ) -> None:
        self.made = (norm, eps, verbose, version, str(device), isinstance(seed, int))
        self.apgd_targeted, self.fab, self.model = _Member(), _Member(), model
        made.append(self)

    def run_standard_evaluation(
        self, x_orig: Tensor, y_orig: Tensor, bs: int = 250, return_labels: bool = False
    ) -> Tensor:
        print("using standard version")
        self.bs = bs
        return x_orig + 1


made: list[_FromGitHub] = []


def test_the_repository_s_interface_works_where_the_release_is_missing(
    rng: RNG, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = ModuleType("autoattack")
    module.__spec__ = ModuleSpec("autoattack", None)
    module.AutoAttack = _FromGitHub  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "autoattack", module)
    assert backend() == f"pyautoattack {pyautoattack.__version__}"
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    x = images(7)
    x_adv = autoattack(smooth_net(), x, torch.zeros(7).long(), LINF, rng=rng(7))
    assert made[-1].made == ("Linf", 0.05, False, "standard", "cpu", True)
    assert made[-1].bs == 7
    assert made[-1].fab.n_target_classes == made[-1].apgd_targeted.n_target_classes == 3
    assert inside(x, x_adv, LINF)
    assert (x_adv >= x).all() and (x_adv > x).any()
    assert capsys.readouterr().out == ""
    assert backend() == "autoattack of unknown version"


def test_without_either_the_mend_is_named(rng: RNG, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in bridge.MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match="pip install pyautoattack"):
        backend()
    with pytest.raises(ValueError, match="pip install pyautoattack"):
        autoattack(smooth_net(), images(2), torch.zeros(2).long(), LINF, rng=rng(2))


def test_the_harness_is_told_what_it_must_know() -> None:
    assert AUTOATTACK.deterministic_only and AUTOATTACK.own_batches
    assert AUTOATTACK.backend is backend
    assert AUTOATTACK.norms == ("linf", "l2")


def test_writing_into_the_logits_does_not_reach_the_network() -> None:
    buffer = torch.ones(2, 4)

    class Static(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return buffer

    View(Static(), buffer)(buffer)[:, 0] = -torch.inf
    assert torch.equal(buffer, torch.ones(2, 4))


def test_a_foreign_gradient_comes_with_the_network_s_own_logits() -> None:
    model, x = spiking_net(), images(4)
    own = model(x).detach()
    point = x.clone().requires_grad_()
    with estimating(model, Conversion()):
        twin = model(point)
        shown = View(model, x)(point)
        assert not torch.allclose(twin, own, atol=1e-3)
        assert torch.allclose(shown, own, atol=1e-5)
        seen, expected = (torch.autograd.grad(logits[:, 1].sum(), point)[0] for logits in (shown, twin))
    assert torch.equal(seen, expected) and seen.abs().sum() > 0
