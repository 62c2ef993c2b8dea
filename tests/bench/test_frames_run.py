"""Frames of event counts from the file to the table, as a user runs them."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support import environment
from torch import Tensor, nn
from typer.testing import CliRunner

from attacks.threat import Box
from bench.api import evaluate, load_results
from bench.audit.checks.gradients import blind_gradient, direction
from bench.audit.checks.orderings import monotone_eps, unbounded
from bench.audit.lab import Lab
from bench.audit.run import audit_specs
from bench.cli import app
from bench.data import Dataset, load_dataset
from bench.data.augmentation import augmented, crop_and_flip, shifted
from bench.data.stills import stills
from bench.errors import BenchError
from bench.plan import Plan, Request, make_plan
from bench.presets import preset
from bench.resolve import parse_defense
from bench.respec import attack_from_json, model_from_json
from bench.spec import identity_of, key_of
from bench.store import Store
from bench.training import EpochLog, Progress, load_trained, train
from defenses import Setting
from defenses.at import AdversarialInputs
from models.cnn import SpikingCNN
from models.neurons import NeuronSpec
from models.random import CounterRNG

T = 3
TRAINING = ("--epochs", "5", "--batch-size", "16", "--model", "cnn-small")


def events(folder: Path, name: str = "frames", **further: object) -> Path:
    """Two easily told classes of recordings with up to a dozen events a pixel."""
    random, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 96), ("test", 140)):
        y = np.arange(count) % 2
        x = random.poisson(0.5, (count, T, 2, 8, 8))
        x[y == 1, :, :, 2:6, 2:6] += random.poisson(2, (int((y == 1).sum()), T, 2, 4, 4))
        x[y == 0, :, :, :2] += random.poisson(2, (int((y == 0).sum()), T, 2, 2, 8))
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x.astype(np.uint8), y
    path = folder / f"{name}.npz"
    np.savez(path, **arrays, **further)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With eps in counts."""
    return events(tmp_path_factory.mktemp("counted"), "counted", scale=np.array(1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With eps as a share of the training frames' range."""
    return events(tmp_path_factory.mktemp("shared"), "shared")


def arguments(path: Path, defenses: str = "vanilla,at:eps=1,tgo,tgo+at:eps=1", attacks: str = "fgsm,pgd7") -> list[str]:
    return ["run", "--dataset", str(path), *TRAINING, "-d", defenses, "-a", attacks, "--eps", "1", "-n", "0"]


def command_line(*typed: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench", *map(str, typed)]
    return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, counted: Path) -> Path:
    """A folder in which `bench run` was run on frames."""
    folder = tmp_path_factory.mktemp("whole")
    done = command_line(*arguments(counted), cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def cells(folder: Path) -> dict[str, dict[str, object]]:
    done = command_line("ls", "runs", "--json", cwd=folder)
    listed = json.loads(done.stdout)
    return {cell["key"]: cell for cell in listed}


def test_networks_are_trained_and_attacked_on_frames(whole: Path, counted: Path) -> None:
    frame = load_results(whole / "results")
    assert len(frame) == 8 and set(frame["T"]) == {T} and set(frame["verdict"]) <= {"ok", "suspect"}
    assert frame["clean"].min() > 0.9
    robust = frame.set_index(["defense", "attack"])["robust"]
    assert robust["vanilla", "pgd7"] < 0.3 < robust["at:eps=1", "pgd7"]
    assert robust["tgo", "pgd7"] < robust["tgo+at:eps=1", "pgd7"]


def test_tables_cells_figures_and_worst_cases_know_them(whole: Path, counted: Path) -> None:
    table = command_line("table", "--format", "md", cwd=whole)
    assert table.returncode == 0 and "T 3" in table.stdout and "tgo+at:eps=1" in table.stdout
    key = next(key for key, cell in cells(whole).items() if cell["defense"] == "vanilla" and cell["attack"] == "pgd7")
    shown = command_line("show", key[:12], cwd=whole)
    assert shown.returncode == 0 and "linf, eps 1, box [0, 1" in shown.stdout
    worst = command_line("worst", "--json", cwd=whole)
    assert worst.returncode == 0 and len(json.loads(worst.stdout)) >= 1
    figure = command_line("figure", "fig5", "--dataset", counted, "-o", "fig5.svg", cwd=whole)
    assert figure.returncode == 0, figure.stderr


def test_an_audit_looks_in_the_box_of_the_counts(whole: Path, counted: Path) -> None:
    checkpoints = whole / "results" / "checkpoints"
    recipe = {"epochs": 5, "batch_size": 16}
    plan = planned(counted, checkpoints, eps=("1",), model="cnn-small", recipe=recipe, norm="linf-int")
    (job,) = plan.jobs
    (spec,) = audit_specs(job, 48)
    assert (spec.norm, spec.high) == ("linf", plan.dataset.high)
    trained = load_trained(job.spec, checkpoints, torch.device("cpu"))
    assert trained is not None
    lab = Lab(trained.model, plan.dataset, spec, torch.device("cpu"))
    assert lab.whole_range == plan.dataset.high
    for check in (unbounded, monotone_eps, blind_gradient, direction):
        assert check(lab).verdict == "ok"


def test_a_killed_run_goes_on_to_the_same_outcomes(whole: Path, counted: Path, tmp_path: Path) -> None:
    few = arguments(counted, "vanilla,tgo+at:eps=1", "pgd7")
    command = [sys.executable, "-m", "bench", *few]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    began = time.monotonic()
    while not list((tmp_path / "results").glob("checkpoints/*.safetensors")):
        assert process.poll() is None and time.monotonic() - began < 120
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    done = command_line(*few, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stores = [Store(folder / "results" / "bench.sqlite", reading=True) for folder in (whole, tmp_path)]
    try:
        keys = [{row.key for row in store.cells(status="done")} for store in stores]
        assert len(keys[1]) == 2 and keys[1] <= keys[0]
        for key in keys[1]:
            one, two = (store.outcome(key) for store in stores)
            assert one is not None and two is not None
            assert np.array_equal(one.margin_last, two.margin_last)
    finally:
        for store in stores:
            store.close()


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [
        (("-T", "8"), "-T 8 with recordings of 3 frames: a network takes one frame a step; leave -T out"),
        (("--eps", "300"), "larger than the whole range of the frames [0, 1"),
        (("-d", "at:eps=300"), "defense 'at:eps=300': eps 300 is larger than the whole range of the frames"),
        (("--norm", "linf-int"), "needs --eps"),
        (("--norm", "linf-int", "--eps", "1/2"), "eps 0.5 is less than one count, so no whole count can change"),
        (("-a", "autoattack"), "attack 'autoattack' knows images only, not frames"),
        (("--norm", "l1"), "choose from linf, l2, linf-int"),
        (("--model", "vgg12"), "did you mean 'vgg11'"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    counted: Path, tmp_path: Path, typed: tuple[str, ...], complaint: str
) -> None:
    options = {"-d": "vanilla", "-a": "fgsm"} | dict(zip(typed[::2], typed[1::2], strict=True))
    words = [word for pair in options.items() for word in pair]
    done = CliRunner().invoke(app, ["plan", "--dataset", str(counted), *words, "--results", str(tmp_path)])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
    assert complaint in done.stderr


def planned(path: Path, folder: Path, **changes: object) -> Plan:
    values: dict[str, object] = {"dataset": str(path), "attacks": ("fgsm",), "eps": ("1/5",), "recipe": {"epochs": 2}}
    return make_plan(Request(**(values | changes)), folder, folder)  # type: ignore[arg-type]


def test_a_plan_takes_steps_box_and_grid_from_the_frames(counted: Path, shared: Path, tmp_path: Path) -> None:
    for path, eps in ((counted, "2"), (shared, "1/5")):
        data = load_dataset(str(path), tmp_path)
        (cell,) = planned(path, tmp_path, eps=(eps,)).cells
        assert (cell.model.T, cell.model.frames, cell.model.in_shape) == (T, True, (2, 8, 8))
        assert (cell.attack.low, cell.attack.high, cell.attack.grid) == (0.0, data.high, 0)
        (whole,) = planned(path, tmp_path, eps=(eps,), norm="linf-int").cells
        assert (whole.attack.norm, whole.attack.grid) == ("linf-int", data.scale)
        assert key_of(whole) != key_of(cell)
        assert planned(path, tmp_path, eps=(eps,), T=T).cells[0] == cell
        assert model_from_json(json.loads(json.dumps(identity_of(whole.model)))) == whole.model
        again = attack_from_json(json.loads(json.dumps(identity_of(whole.attack))), name=whole.attack.name)
        assert key_of(again) == key_of(whole.attack)


def test_keys_know_the_unit_the_box_and_that_there_are_frames(counted: Path, shared: Path, tmp_path: Path) -> None:
    one, two = (planned(path, tmp_path, eps=("1/2",)).jobs[0] for path in (counted, shared))
    assert one.weights_key != two.weights_key and one.cells[0].test_hash != two.cells[0].test_hash
    image = planned(Path("digits"), tmp_path).cells[0]
    assert not {"frames"} & {*identity_of(image.model)} and "grid" not in identity_of(image.attack)
    at = parse_defense("at").settled(Setting("cnn-small", Fraction(1), Box(0.0, 9.0, 1)))
    plain = parse_defense("at").settled(Setting("cnn-small", Fraction(1)))
    assert at.identity()[0]["high"] == 9.0 and "high" not in plain.identity()[0]


def test_eight_bit_images_may_be_kept_whole_too(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "mine.npz", x_train=x, y_train=np.arange(40) % 2, x_test=x, y_test=np.arange(40) % 2)
    cell = planned(tmp_path / "mine.npz", tmp_path, norm="linf-int", eps=("8/255",)).cells[0]
    assert (cell.attack.grid, cell.attack.high) == (255, 1.0)
    with pytest.raises(BenchError, match="frames of events or 8-bit images"):
        planned(Path("digits"), tmp_path, norm="linf-int")


@pytest.mark.parametrize("scale", [1, 12])
def test_adversarial_training_stays_in_the_box_of_the_counts(scale: int, shared: Path) -> None:
    data = replace(load_dataset(str(shared), Path()), scale=scale)
    middle = (2.0 / scale,) * 2
    model = SpikingCNN(2, 2, (8,), (1,), NeuronSpec().build, T=T, mean=middle, std=middle).train()
    (part,) = parse_defense("at").settled(Setting("cnn-small", Fraction(3, scale), data.box)).parts
    assert isinstance(part, AdversarialInputs)
    x, y = data.pixels(data.x_train[:32]), data.y_train[:32]
    x_adv = part.perturb(model, x, y, CounterRNG(0, torch.arange(32)))
    assert float((x_adv.double() - x.double()).abs().max()) <= 3 / scale
    assert float(x_adv.min()) >= 0 and float(x_adv.max()) <= data.high
    # Where counts above 1 were cut to 1, they would have moved by more.
    busy = x > 4 / scale
    assert bool(busy.any()) and float(x_adv[busy].min()) >= 1 / scale - 1e-6


@pytest.mark.parametrize("name", ["vanilla", "at", "rat", "sr", "mc", "nlif", "tgo+at"])
def test_every_defense_trains_on_frames_and_resumes_bit_for_bit(name: str, shared: Path, tmp_path: Path) -> None:
    def run(folder: Path, stop: int | None) -> str | None:
        plan = planned(shared, folder, defenses=(name,), recipe={"epochs": 2, "batch_size": 32, "augment": True})
        job = plan.jobs[0]

        class Stop(Exception):  # noqa: N818
            pass

        class Stopping(Progress):
            def epoch(self, log: EpochLog) -> None:
                if log.epoch == stop:
                    raise Stop

        try:
            cpu = torch.device("cpu")
            return train(job.spec, job.defense, plan.dataset, folder, device=cpu, progress=Stopping()).weights_sha256
        except Stop:
            return None

    whole = run(tmp_path / "whole", None)
    assert run(tmp_path / "cut", 1) is None
    assert run(tmp_path / "cut", None) == whole


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 999))
def test_a_shift_moves_all_frames_of_a_recording_alike(n: int, steps: int, seed: int) -> None:
    x = torch.rand(n, steps, 2, 6, 7, generator=torch.Generator().manual_seed(seed)) + 0.1
    moved = shifted(x, torch.Generator().manual_seed(seed))
    assert moved.shape == x.shape
    padded = nn.functional.pad(x, (4,) * 4)
    for recording in range(n):
        windows = [
            torch.equal(moved[recording], padded[recording, ..., top : top + 6, left : left + 7])
            for top in range(9)
            for left in range(9)
        ]
        assert any(windows)
    assert torch.equal(augmented(x, torch.Generator().manual_seed(seed)), moved)
    image = x[:, 0]
    crop = partial(crop_and_flip, image)
    assert torch.equal(augmented(image, torch.Generator().manual_seed(seed)), crop(torch.Generator().manual_seed(seed)))


def test_presets_run_on_frames_with_the_model_that_fits_them() -> None:
    (matrix,) = preset("table5", "mine.npz")
    assert "model" not in matrix and matrix["dataset"] == "mine.npz"
    assert {"vanilla", "at", "tgo", "tgo+at"} == {*matrix["defenses"]}
    assert [m["model"] for m in preset("table2", "digits")] == ["vgg11", "wrn16-4"]


class Counting(nn.Module):
    """Somebody's network on frames [N, T, 2, 8, 8] of counts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        middle, edge = x[..., 2:6, 2:6].mean((1, 2, 3, 4)), x[..., :2, :].mean((1, 2, 3, 4))
        return self.scale * torch.stack([edge, middle], 1)


def test_a_model_in_hand_is_evaluated_on_frames(shared: Path) -> None:
    data: Dataset = load_dataset(str(shared), Path())
    x, y = data.x_test.numpy().astype(np.int64), data.y_test.numpy()
    found = evaluate(Counting(), (x, y), ["fgsm", "pgd3"], eps="1", scale=1)
    frame = found.frame().set_index("attack")
    assert frame["clean"].min() > 0.9 and frame.loc["fgsm", "robust"] < 0.9
    assert set(frame["T"]) == {T} and set(frame["verdict"]) <= {"ok", "suspect"}
    whole = evaluate(Counting(), (x, y), ["fgsm"], eps="1", scale=1, norm="linf-int").frame()
    assert whole["robust"].iloc[0] == frame.loc["fgsm", "robust"]
    # A step of one count is what the scale makes of it.
    scaled = evaluate(Counting(), (x, y), ["fgsm"], eps=1 / int(x.max())).frame()
    assert scaled["robust"].iloc[0] == pytest.approx(frame.loc["fgsm", "robust"], abs=0.05)
    with pytest.raises(BenchError, match="whole event counts"):
        evaluate(Counting(), (x / 2.0, y), ["fgsm"])
    with pytest.raises(BenchError, match="negative"):
        evaluate(Counting(), (-x, y), ["fgsm"])
    with pytest.raises(BenchError, match="scale is for frames"):
        evaluate(Counting(), "digits", ["fgsm"], scale=3)


def test_peers_that_would_clip_counts_are_not_asked(shared: Path) -> None:
    from attacks.threat import Threat
    from bench.peers.contest import PEERS

    frames, images = torch.zeros(2, T, 2, 8, 8), torch.zeros(2, 1, 8, 8)
    cases = [(images, 1.0, 0), (frames, 1.0, 0), (images, 7.0, 0), (frames, 7.0, 0), (frames, 7.0, 2)]
    takes = {
        peer.name: [not peer.refusal(x, Threat(Fraction(1, 2), high=high, grid=grid)) for x, high, grid in cases]
        for peer in PEERS
    }
    assert takes["ART"] == takes["foolbox"] == [True, True, True, True, False]
    assert takes["torchattacks"] == takes["official"] == [True, False, False, False, False]


def test_pictures_of_recordings_show_both_polarities() -> None:
    x = torch.zeros(1, T, 2, 4, 4)
    x[0, 0, 0, 0, 0], x[0, 1:, 1, 3, 3] = 4, 1
    (picture,) = stills(x)
    assert picture.shape == (3, 4, 4)
    assert picture[:, 0, 0].tolist() == [1, 0, 0] and picture[:, 3, 3].tolist() == [0, 0, 0.5]
    image = torch.rand(2, 1, 4, 4)
    assert stills(image) is image
