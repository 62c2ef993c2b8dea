"""From Python: a model in hand, and stored results as frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import bench
from bench.api import Evaluation
from bench.data import load_dataset
from bench.errors import BenchError
from bench.evidence.stored import stored_cell, stored_network
from bench.frames import cells_frame, samples_frame
from bench.report.formats.html import page
from bench.store import Store
from bench.store.readonly import copied


def linear() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).train()


def images(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.uniform(0, 1, (n, 1, 8, 8)).astype(np.float32), random.integers(0, 3, n)


@pytest.fixture(scope="module")
def evaluated() -> Evaluation:
    return bench.evaluate(linear(), images(), ["fgsm", "pgd3", "pgd10"], eps=0.05)


def test_fgsm_on_a_linear_model_is_the_closed_form(evaluated: Evaluation) -> None:
    """Binary margins of a linear model under linf: the sign step along the loss's gradient is what FGSM does."""
    model, (x, y) = linear().eval(), images()
    point = torch.from_numpy(x).requires_grad_()
    labels = torch.from_numpy(y)
    loss = nn.functional.cross_entropy(model(point), labels, reduction="sum")
    (grad,) = torch.autograd.grad(loss, point)
    moved = (point + 0.05 * grad.sign()).clamp(0, 1)
    clean, attacked = (model(z).argmax(1) == labels for z in (point, moved))
    outcome = evaluated.outcome("fgsm")
    assert outcome.clean[:, 0].tolist() == clean.tolist()
    assert outcome.robust_last.tolist() == (clean & attacked).double().tolist()


def test_the_frame_has_the_columns_of_stored_results(evaluated: Evaluation) -> None:
    frame = evaluated.frame()
    assert list(frame["attack"]) == ["fgsm", "pgd3", "pgd10"]
    assert list(frame.columns) == list(cells_frame(None).columns)
    assert (frame["robust"] <= frame["clean"]).all()
    assert frame["n"].tolist() == [40] * 3
    frame["robust"] = 0
    assert evaluated.frame()["robust"].sum() > 0


def test_it_shows_itself(evaluated: Evaluation) -> None:
    assert "clean accuracy" in repr(evaluated)
    assert "pgd10" in repr(evaluated)
    assert "<table>" in page(evaluated._repr_html_(), "x")
    with pytest.raises(BenchError, match="'apgd5' was not run; there are fgsm, pgd3, pgd10"):
        evaluated.outcome("apgd5")


def test_the_model_and_the_generators_come_back_as_they_were() -> None:
    model = linear()
    model[1].weight.grad = torch.ones_like(model[1].weight)  # type: ignore[union-attr]
    weights = model[1].weight.detach().clone()  # type: ignore[operator,union-attr]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    bench.evaluate(model, images(8), ["pgd3"], eps=0.1)
    assert model.training
    assert torch.equal(model[1].weight, weights)  # type: ignore[arg-type]
    assert torch.equal(model[1].weight.grad, torch.ones_like(weights))  # type: ignore[arg-type,union-attr]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_data_in_any_form_is_the_same_data(evaluated: Evaluation) -> None:
    x, y = images()
    pair = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    for data in ((torch.from_numpy(x), torch.from_numpy(y)), pair, DataLoader(pair, batch_size=7)):
        again = bench.evaluate(linear(), data, ["pgd3"], eps="0.05")
        assert again.outcome("pgd3").pack() == evaluated.outcome("pgd3").pack()


def test_it_agrees_with_a_stored_run_where_the_random_numbers_do_not_matter(measured: Path) -> None:
    store = Store(measured / "bench.sqlite")
    row = next(row for row in store.cells(attack="fgsm", seed=0, eps="1/10") if row.defense == "at")
    cell = stored_cell(row)
    model = stored_network(cell, store, measured / "checkpoints", torch.device("cpu"))
    tiny = load_dataset(str(next(measured.parent.parent.rglob("tiny.npz"))), measured)
    found = bench.evaluate(model, (tiny.x_test, tiny.y_test), ["fgsm"], eps=0.1)
    stored = store.outcome(row.key)
    assert stored is not None
    assert np.array_equal(found.outcome("fgsm").last, stored.last)
    assert found.rows[0].verdict == row.verdict


class Leaky(nn.Module):
    """Remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.v = linear(), 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.v = self.v + float(x.mean())
        logits: Tensor = self.inner(x) + self.v * torch.arange(3.0)
        return logits


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] * float("nan")


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("first\nsecond")


class Ragged(TensorDataset):
    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        x, y = super().__getitem__(index)
        return (x[:, : 7 + index % 2], y)


def pairs() -> TensorDataset:
    x, y = images()
    return TensorDataset(torch.from_numpy(x), torch.from_numpy(y))


with torch.inference_mode():
    UNTRAINABLE = linear()


@pytest.mark.parametrize(
    ("model", "data", "attacks", "complaint"),
    [
        (nn.Sequential(linear(), nn.Softmax(1)), images(), ["fgsm"], "returns probabilities, not logits"),
        (Raises(), images(), ["fgsm"], "the model fails on images .*first second"),
        (linear().double(), images(), ["fgsm"], "computes in torch.float64"),
        (UNTRAINABLE, images(), ["fgsm"], "inference_mode"),
        (len, images(), ["fgsm"], "must be a torch.nn.Module"),
        (linear(), (images()[0], np.array(["a"] * 40)), ["fgsm"], "labels must be an array of numbers"),
        (linear(), (images()[0], images()[1] + 1), ["fgsm"], "labels count from 0"),
        (linear(), Ragged(*pairs().tensors), ["fgsm"], "data must be"),
        (linear(), TensorDataset(*(t[:0] for t in pairs().tensors)), ["fgsm"], "data must be"),
        (linear(), DataLoader(TensorDataset(*(t[:0] for t in pairs().tensors))), ["fgsm"], "data must be"),
        (linear(), images(), [5], "list of names"),
        (Leaky(), images(), ["fgsm"], "leaks state"),
        (Broken(), images(), ["fgsm"], "NaN or infinite"),
        (nn.Identity(), images(), ["fgsm"], "not logits"),
        (linear(), (images()[0] * 3, images()[1]), ["fgsm"], r"must lie in \[0, 1\]"),
        (linear(), (images()[0], images()[1] + 7), ["fgsm"], "labels range over"),
        (linear(), (images()[0], images()[1].astype(float)), ["fgsm"], "labels must be integers"),
        (linear(), (images()[0][:, 0], images()[1]), ["fgsm"], "must be .N, C, H, W."),
        (linear(), (images()[0][:0], images()[1][:0]), ["fgsm"], "must be .N, C, H, W."),
        (linear(), 5, ["fgsm"], "data must be"),
        (linear(), images(), ["pgdd40"], "did you mean"),
        (linear(), images(), "fgsm", "list of names"),
        (linear(), images(), [], "list of names"),
    ],
)
def test_what_cannot_be_right_is_said_in_a_line(
    model: nn.Module, data: object, attacks: list[str], complaint: str
) -> None:
    with pytest.raises(BenchError, match=complaint) as refused:
        bench.evaluate(model, data, attacks, eps=0.1)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"draws": -1}, "draws must be at least 1"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"n": 10.0}, "n must be an integer"),
        ({"n": 0}, "n must lie in"),
        ({"eps": "abc"}, "is not a number"),
        ({"norm": "l1"}, "not in l1"),
    ],
)
def test_options_that_cannot_be_right(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BenchError, match=complaint):
        bench.evaluate(linear(), images(), ["fgsm"], **({"eps": 0.1} | options))


def test_gradients_are_taken_whatever_the_caller_switched_off(evaluated: Evaluation) -> None:
    model = linear()
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            again = bench.evaluate(model, images(), ["pgd3"], eps=0.05)
        assert again.outcome("pgd3").pack() == evaluated.outcome("pgd3").pack()
    assert evaluated.outcome("pgd3:eot=4") is evaluated.outcome("pgd3")


def test_a_loader_that_shuffles_and_other_byte_orders(evaluated: Evaluation) -> None:
    torch.manual_seed(3)
    model, before = linear(), torch.get_rng_state()
    shuffled = bench.evaluate(model, DataLoader(pairs(), batch_size=7, shuffle=True), ["fgsm"], eps=0.05)
    assert torch.equal(torch.get_rng_state(), before)
    assert shuffled.outcome("fgsm").robust_last.mean() == evaluated.outcome("fgsm").robust_last.mean()
    x, y = images()
    swapped = bench.evaluate(model, (x.astype(">f4"), y.astype(">i8")), ["fgsm"], eps=0.05)
    assert swapped.outcome("fgsm").pack() == evaluated.outcome("fgsm").pack()


def test_stored_results_as_frames(measured: Path) -> None:
    frame = bench.load_results(measured)
    assert len(frame) == 36
    assert frame["key"].is_unique
    assert {"vanilla", "at", "nlif"} == set(frame["defense"])
    assert frame["epochs"].tolist() == [6] * len(frame)
    assert str(frame["updated"].dtype).startswith("datetime64")
    some = bench.load_results(measured / "bench.sqlite", defenses=["at"], attacks=["fgsm"], eps="0.1")
    assert len(some) == 2
    samples = bench.load_results(measured, samples=True, defenses=["nlif"], attacks=["pgd3"], eps="0.1", seed=1)
    assert len(samples) == 160
    assert set(np.unique(samples["robust"] * 5).round(6)) <= {0, 1, 2, 3, 4, 5}
    rate = bench.load_results(measured, defenses=["nlif"], attacks=["pgd3"], eps="0.1", seed=1)["robust"].iloc[0]
    assert samples["robust"].mean() == pytest.approx(rate)


def test_reading_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="there is no store"):
        bench.load_results(tmp_path)
    assert not list(tmp_path.iterdir())


def test_names_and_budgets_may_be_given_as_they_come_to_mind(measured: Path) -> None:
    one = bench.load_results(measured, defenses="at", attacks="fgsm", eps=0.1)
    assert one.equals(bench.load_results(measured, defenses=["at"], attacks=["fgsm"], eps="0.1"))
    address = f"sqlite:///{measured / 'bench.sqlite'}"
    assert one.equals(bench.load_results(address, defenses="at", attacks="fgsm", eps=0.1))
    with pytest.raises(BenchError, match="there is no store"):
        bench.load_results(f"sqlite:///{measured / 'absent.sqlite'}")
    assert not (measured / "absent.sqlite").exists()


def test_a_store_that_cannot_be_written_can_be_read(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite writes beside a database to read it; a mounted archive does not let it."""
    import bench.store.engine as engine

    whole, before = bench.load_results(measured), sorted(measured.iterdir())
    copies = []
    monkeypatch.setattr(engine, "needs_copy", lambda file: True)
    monkeypatch.setattr(engine, "copied", lambda file: copies.append(copied(file)) or copies[-1])
    assert bench.load_results(measured).equals(whole)
    assert [copy.name for copy in copies] == ["bench.sqlite"]
    assert not copies[0].parent.exists()
    assert sorted(measured.iterdir()) == before


def test_a_frame_without_a_store_says_what_it_can(full: Store) -> None:
    rows = full.cells()
    bare, whole = cells_frame(None, rows), cells_frame(full, rows)
    assert list(bare.columns) == list(whole.columns)
    assert bare["robust"].equals(whole["robust"])
    assert bare["epochs"].isna().all()
    assert whole["device"].notna().all()
    assert isinstance(samples_frame(full, []), pd.DataFrame)


def test_a_float_budget_is_what_it_was_meant_to_be() -> None:
    from bench.api import _written

    written = [_written(eps) for eps in (8 / 255, 0.1, "8/255", 0.0, 16 / 255)]
    assert written == ["8/255", "0.1", "8/255", "0.0", "16/255"]
