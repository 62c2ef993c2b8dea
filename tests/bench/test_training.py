"""The training loop: resumable bit for bit, fair between defenses, honest when it diverges."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from bench.data import Dataset, load_dataset
from bench.data.augmentation import crop_and_flip
from bench.errors import BenchError
from bench.resolve import parse_defense
from bench.spec import ModelSpec, Recipe, TrainSpec, key_of
from bench.training import EpochLog, Progress, cosine_lr, load_trained, train
from defenses.base import Defense, Part, Setting, Step
from models.neurons import NeuronSpec

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=3, batch_size=16, holdout=9)


@pytest.fixture(scope="module")
def data(tiny_npz: Path) -> Dataset:
    return load_dataset(str(tiny_npz), Path())


def job(data: Dataset, name: str, recipe: Recipe = RECIPE, seed: int = 0) -> tuple[TrainSpec, Defense]:
    defense = parse_defense(name).settled(Setting("cnn-small", data.protocol.train_eps))
    model = ModelSpec(
        "cnn-small", data.num_classes, data.in_shape, 2, defense.neuron(NeuronSpec()), data.mean, data.std
    )
    defenses = tuple(defense.identity())
    return TrainSpec(model, recipe, defenses, data.train_hash, seed, data.protocol.eps, name, data.name), defense


class StopAfter(Progress):
    def __init__(self, epochs: int) -> None:
        self.epochs, self.seen = epochs, 0

    def batch(self, epoch: int, done: int, total: int) -> None:
        if epoch > self.epochs and done == 2:
            raise KeyboardInterrupt


OWN_NEURONS = ("stog+mc+sr", "dlif+mppd+rat", "el+mppd", "hosnn+at")


@pytest.mark.parametrize("name", ["vanilla", "tgo+at", "sr+at", "tgo+rat", *OWN_NEURONS])
def test_an_interrupted_run_continues_to_the_same_bits(data: Dataset, tmp_path: Path, name: str) -> None:
    recipe = replace(RECIPE, augment=name == "tgo+rat")
    spec, defense = job(data, name, recipe)
    whole = train(spec, defense, data, tmp_path / "whole", device=CPU)
    folder = tmp_path / "cut"
    for epochs in (0, 1, 2):
        with pytest.raises(KeyboardInterrupt):
            train(spec, defense, data, folder, device=CPU, progress=StopAfter(epochs))
        torch.manual_seed(epochs)
    continued = train(spec, defense, data, folder, device=CPU)
    assert continued.weights_sha256 == whole.weights_sha256
    assert [line.loss for line in continued.log] == [line.loss for line in whole.log]
    assert not list(folder.glob("*.resume*"))


def test_a_finished_run_is_loaded_with_its_log(data: Dataset, tmp_path: Path) -> None:
    spec, defense = job(data, "vanilla")
    made = train(spec, defense, data, tmp_path, device=CPU)
    loaded = load_trained(spec, tmp_path, CPU)
    assert loaded is not None
    assert (loaded.weights_sha256, loaded.log) == (made.weights_sha256, made.log)
    assert load_trained(replace(spec, seed=1), tmp_path, CPU) is None


def test_training_leaves_the_global_generator_alone(data: Dataset, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    train(*job(data, "tgo+at"), data, tmp_path, device=CPU)
    assert torch.equal(torch.get_rng_state(), state)


def test_defenses_of_one_seed_start_from_the_same_weights(data: Dataset, tmp_path: Path) -> None:
    still = replace(RECIPE, epochs=1, lr=1e-30, weight_decay=0.0)

    def start(name: str, seed: int = 0) -> torch.Tensor:
        model = train(*job(data, name, still, seed), data, tmp_path, device=CPU).model
        return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])

    vanilla = start("vanilla")
    assert torch.allclose(start("mc"), vanilla, rtol=0, atol=1e-20)
    assert torch.allclose(start("at"), vanilla, rtol=0, atol=1e-20)
    assert not torch.allclose(start("vanilla", seed=1), vanilla, rtol=0, atol=1e-3)


def test_held_out_images_are_never_trained_on(data: Dataset, tmp_path: Path) -> None:
    spec, defense = job(data, "vanilla")
    x = data.x_train.clone()
    x[-9:] = 1 - x[-9:]
    changed = replace(data, x_train=x)
    a = train(spec, defense, data, tmp_path / "a", device=CPU)
    b = train(spec, defense, changed, tmp_path / "b", device=CPU)
    assert a.weights_sha256 == b.weights_sha256


@pytest.mark.parametrize("name", ["vanilla", "dsd"])
def test_a_diverged_run_says_so_and_leaves_no_checkpoint(data: Dataset, tmp_path: Path, name: str) -> None:
    spec, defense = job(data, name, replace(RECIPE, lr=1e30))
    with pytest.raises(BenchError, match=r"diverged.*lower --lr"):
        train(spec, defense, data, tmp_path, device=CPU)
    assert load_trained(spec, tmp_path, CPU) is None


def test_a_penalty_can_meet_the_step_s_own_noise_again(data: Dataset, tmp_path: Path) -> None:
    seen: list[tuple[bool, bool, bool]] = []

    class Compare(Part):
        name = "compare"

        def penalty(self, step: Step) -> None:
            with torch.no_grad():
                with step.same_noise():
                    again, more = step.model(step.x), step.model(step.x)
                after = step.model(step.x)
            seen.append((torch.equal(again, step.logits), torch.equal(more, step.logits), torch.equal(after, more)))

    spec, defense = job(data, "nlif", replace(RECIPE, epochs=1))
    train(spec, Defense("compare", (*defense.parts, Compare())), data, tmp_path, device=CPU)
    assert seen
    assert set(seen) == {(True, False, True)}


def test_sparse_gradients_of_noisy_neurons_do_not_explode(data: Dataset, tmp_path: Path) -> None:
    logs = {}
    for name in ("sr", "sr+nlif"):
        spec, defense = job(data, name)
        logs[name] = train(spec, defense, data, tmp_path, device=CPU).log[0].penalty
    assert 0 < logs["sr+nlif"] < 10 * logs["sr"]


def test_a_damaged_resume_state_names_the_mend(data: Dataset, tmp_path: Path) -> None:
    spec, defense = job(data, "vanilla")
    path = tmp_path / f"{key_of(spec)[:16]}.resume.safetensors"
    path.write_bytes(b"{half")
    with pytest.raises(BenchError, match=r"Delete .* to train from the start"):
        train(spec, defense, data, tmp_path, device=CPU)


def test_the_log_has_a_line_for_each_epoch(data: Dataset, tmp_path: Path) -> None:
    lines: list[EpochLog] = []

    class Listen(Progress):
        def epoch(self, log: EpochLog) -> None:
            lines.append(log)

    train(*job(data, "mc"), data, tmp_path, device=CPU, progress=Listen())
    assert [line.epoch for line in lines] == [1, 2, 3]
    assert lines[0].penalty == 0
    assert lines[-1].penalty > 0
    assert all(0 <= line.robust <= line.clean <= 1 for line in lines)


def test_too_few_images_for_the_holdout_is_refused(data: Dataset, tmp_path: Path) -> None:
    spec, defense = job(data, "vanilla", replace(RECIPE, train_size=9))
    with pytest.raises(BenchError, match="leave none after holding out 9"):
        train(spec, defense, data, tmp_path, device=CPU)


def test_learning_rate_is_half_a_cosine() -> None:
    rates = [cosine_lr(RECIPE, update, 100) for update in range(100)]
    assert rates[0] == RECIPE.lr
    assert rates[50] == pytest.approx(RECIPE.lr / 2)
    assert all(a > b > 0 for a, b in pairwise(rates))
    assert rates[99] == pytest.approx(0.5 * RECIPE.lr * (1 + math.cos(0.99 * math.pi)))


def test_crop_and_flip_agrees_with_slicing_each_image() -> None:
    x = torch.rand(200, 3, 6, 5, generator=torch.Generator().manual_seed(0))
    out = crop_and_flip(x, torch.Generator().manual_seed(1), padding=2)
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    for image, result in zip(padded, out, strict=True):
        crops = [image[:, i : i + 6, j : j + 5] for i in range(5) for j in range(5)]
        assert any(torch.equal(result, c) or torch.equal(result, c.flip(2)) for c in crops)
    unmoved = sum(bool(torch.equal(a, b)) for a, b in zip(x, out, strict=True))
    assert unmoved < 20


def test_a_training_goes_on_with_the_threads_it_began_with(data: Dataset, tmp_path: Path) -> None:
    """It rounds by their number; whoever continues it may have others."""
    spec, defense = job(data, "vanilla")
    torch.set_num_threads(2)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(spec, defense, data, tmp_path, device=CPU, progress=StopAfter(1))
        torch.set_num_threads(1)
        train(spec, defense, data, tmp_path, device=CPU)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(1)
    [sidecar] = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    assert sidecar["provenance"]["threads"] == 2
    assert len(sidecar["places"]) == 1
