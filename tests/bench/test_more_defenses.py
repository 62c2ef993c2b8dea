"""Sums of encodings, losses and gradient rules train, resume bit for bit, and meet every network and kind of input."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from bench.data import Dataset, load_dataset
from bench.errors import BenchError
from bench.plan import setting_of
from bench.registry import DEFENSES, MODELS
from bench.resolve import build_model, parse_defense
from bench.spec import ModelSpec, Recipe, TrainSpec
from bench.training import Progress, train
from bench.truth.network import network_of
from defenses.base import Defense
from models.neurons import NeuronSpec, is_stochastic

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=32, holdout=9)


@pytest.fixture(scope="module")
def data(tiny_npz: Path) -> Dataset:
    return load_dataset(str(tiny_npz), Path())


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Recordings of two classes, three frames of counts each."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 64), ("test", 16)):
        y = np.arange(count) % 2
        x = random.poisson(0.5, (count, 3, 2, 8, 8)).astype(np.uint8)
        x[y == 1, :, 0, 2:6, 2:6] += 3
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x, y
    path = tmp_path_factory.mktemp("frames") / "frames.npz"
    np.savez(path, **arrays)
    return load_dataset(str(path), Path())


def job(data: Dataset, name: str, recipe: Recipe = RECIPE, model: str = "cnn-small") -> tuple[TrainSpec, Defense]:
    T = data.frames or 2
    defense = parse_defense(name).settled(setting_of(data, model, T))
    network = ModelSpec(
        model, data.num_classes, data.in_shape, T, defense.neuron(NeuronSpec()), data.mean, data.std,
        frames=data.frames is not None, encoder=defense.encoder,
    )  # fmt: skip
    parts = tuple(defense.identity())
    return TrainSpec(network, recipe, parts, data.train_hash, 0, data.protocol.eps, name, data.name), defense


class StopAfter(Progress):
    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def batch(self, epoch: int, done: int, total: int) -> None:
        if epoch > self.epochs and done == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    "name", ["fe+at", "poisson+hire", "sqe+nlif+trades", "signed-rate+mpd-sgr+at", "dsd+tet+mc+rat", "fe+sr+hire"]
)
def test_sums_train_and_continue_to_the_same_bits(data: Dataset, tmp_path: Path, name: str) -> None:
    spec, defense = job(data, name)
    whole = train(spec, defense, data, tmp_path / "whole", device=CPU)
    with pytest.raises(KeyboardInterrupt):
        train(spec, defense, data, tmp_path / "cut", device=CPU, progress=StopAfter(1))
    torch.manual_seed(5)
    continued = train(spec, defense, data, tmp_path / "cut", device=CPU)
    assert continued.weights_sha256 == whole.weights_sha256
    assert [line.loss for line in continued.log] == [line.loss for line in whole.log]
    assert is_stochastic(whole.model) == any(part in name for part in ("poisson", "signed", "sqe", "nlif"))


@pytest.mark.parametrize("name", ["fe", "poisson", "trades", "mpd-sgr", "dsd", "hire", "tet"])
def test_each_trains_in_bfloat16(data: Dataset, tmp_path: Path, name: str) -> None:
    spec, defense = job(data, name, replace(RECIPE, epochs=1, arithmetic="bf16"))
    plain, none = job(data, "vanilla", replace(RECIPE, epochs=1, arithmetic="bf16"))
    trained = train(spec, defense, data, tmp_path, device=CPU)
    assert trained.weights_sha256 != train(plain, none, data, tmp_path, device=CPU).weights_sha256


@pytest.mark.parametrize("name", ["fe+mpd-sgr+at", "sqe+trades", "dsd+hire", "tet"])
def test_frames_are_trained_on_too(frames: Dataset, tmp_path: Path, name: str) -> None:
    trained = train(*job(frames, name, replace(RECIPE, epochs=1)), frames, tmp_path, device=CPU)
    assert trained.log[0].loss > 0


def test_counts_are_refused_by_encodings_that_need_probabilities(frames: Dataset) -> None:
    assert job(frames, "poisson")[0].model.encoder == "poisson"
    with pytest.raises(ValueError, match="give the frames a scale of at least their largest count"):
        job(replace(frames, scale=1), "poisson")


@pytest.mark.parametrize("name", MODELS.names())
def test_every_network_takes_an_encoding(name: str) -> None:
    side = 32 if name in ("vgg11", "wrn16-4") else 8
    plain = ModelSpec(name, 5, (1, side, side), 2, NeuronSpec(), (0.3,), (0.4,))
    x = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    for encoder in ("", "frequency:step=0.5", "poisson"):
        torch.manual_seed(0)
        net = build_model(replace(plain, encoder=encoder))
        firsts = []
        first = next(module for module in net.modules() if isinstance(module, nn.Conv2d | nn.Linear))
        first.register_forward_pre_hook(lambda _, inputs, firsts=firsts: firsts.append(inputs[0]))
        with torch.no_grad():
            assert net(x).shape == (2, 5)
        # What the first layer is shown: one image, or a frame for each of the two steps.
        assert len(firsts[0]) == (4 if encoder else 2)


def test_exact_truth_knows_the_direct_encoding_alone() -> None:
    spec = ModelSpec("tiny", 2, (1, 2, 2), 2, NeuronSpec(), (0.3,), (0.4,))
    network_of(build_model(spec).eval())
    with pytest.raises(BenchError, match="only for the direct encoding"):
        network_of(build_model(replace(spec, encoder="poisson")).eval())


def test_names_with_a_dash_are_found() -> None:
    for name in ("signed-rate", "mpd-sgr"):
        assert name in DEFENSES.names()
        assert parse_defense(f"{name}+at").name == f"{name}+at"
