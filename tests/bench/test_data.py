"""Datasets in every condition."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bench.data import load_dataset
from bench.data.dataset import pixels, tensor_hash
from bench.errors import BenchError


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    made = {
        "x_train": random.integers(0, 256, (20, 8, 8, 3), dtype=np.uint8),
        "y_train": np.arange(20) % 4,
        "x_test": random.integers(0, 256, (10, 8, 8, 3), dtype=np.uint8),
        "y_test": np.arange(10) % 4,
    }
    return made | changes


def saved(folder: Path, **changes: np.ndarray) -> str:
    path = folder / "mine.npz"
    np.savez(path, **arrays(**changes))
    return str(path)


def test_digits_are_whole_and_always_split_alike() -> None:
    data = load_dataset("digits", Path())
    assert data.x_train.shape == (1297, 1, 8, 8)
    assert data.x_test.shape == (500, 1, 8, 8)
    assert data.test_hash == "f5541abfd8e4d17bc252aeed7187b29325067a18283bb7df843e350d180c485c"
    assert float(data.x_train.max()) == 1
    assert torch.bincount(data.y_test, minlength=10).min() >= 35


def test_digits_are_scikit_learn_s() -> None:
    data, bunch = load_dataset("digits", Path()), load_digits()
    order = np.random.RandomState(0).permutation(1797)
    x, y = torch.cat([data.x_train, data.x_test]), torch.cat([data.y_train, data.y_test])
    assert np.array_equal(x[:, 0].numpy(), (bunch.images[order] / 16).astype(np.float32))
    assert np.array_equal(y.numpy(), bunch.target[order])


def test_digits_normalisation_matches_the_training_images() -> None:
    data = load_dataset("digits", Path())
    assert data.mean[0] == pytest.approx(float(data.x_train.mean()), abs=2e-3)
    assert data.std[0] == pytest.approx(float(data.x_train.std()), abs=2e-3)


def test_uint8_nhwc_and_float_nchw_give_the_same_pixels(tmp_path: Path) -> None:
    integers = load_dataset(saved(tmp_path), Path())
    floats = {name: arrays()[name].transpose(0, 3, 1, 2) / 255.0 for name in ("x_train", "x_test")}
    other = load_dataset(saved(tmp_path, **floats), Path())
    assert integers.x_test.dtype == torch.uint8
    assert torch.allclose(pixels(integers.x_test), pixels(other.x_test))
    assert integers.mean == other.mean
    assert integers.class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": np.arange(10) % 4 - 1}, "range over"),
        ({"y_test": np.arange(9) % 4}, r"10 images but labels of shape \[9\]"),
        ({"y_test": np.linspace(0, 1, 10)}, "labels must be integers"),
        ({"x_test": np.zeros((10, 8, 8))}, r"four dimensions.*x\[:, None\]"),
        ({"y_train": np.arange(20) // 19 * 10**9}, "label 1000000000 with 20 training images"),
        ({"y_test": np.arange(10)}, "y_test holds label 9, y_train none above 3"),
        ({"y_train": np.zeros(20, int), "y_test": np.zeros(10, int)}, "at least two classes, got 1"),
        ({"x_test": np.zeros((10, 3, 8, 8)) + 2}, r"must lie in \[0, 1\]"),
        ({"x_test": np.full((10, 3, 8, 8), np.nan)}, "NaN"),
        ({"x_test": np.zeros((10, 3, 9, 9))}, "train images are"),
        ({"x_test": np.zeros((10, 8, 8, 3), np.int64)}, "must be uint8 or float"),
        ({"x_test": np.zeros((10, 3, 8, 8), np.uint8)}, r"\[N, H, W, C\].*transpose"),
        ({"x_train": np.zeros((0, 3, 8, 8)), "y_train": np.zeros(0, int)}, "there are no labels"),
        ({"class_names": np.array(["a", "b"])}, "with 2 classes"),
        ({"x_train": np.array([{"a": 1}], dtype=object)}, "damaged or not"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        load_dataset(saved(tmp_path, **changes), Path())
    assert "\n" not in str(caught.value)


def test_a_missing_array_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.npz"
    np.savez(path, x_train=arrays()["x_train"], y_train=arrays()["y_train"])
    with pytest.raises(BenchError, match="lacks x_test, y_test"):
        load_dataset(str(path), Path())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="no dataset file"):
        load_dataset(str(tmp_path / "none.npz"), Path())
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(BenchError, match="is a folder"):
        load_dataset(str(tmp_path / "folder.npz"), Path())


def test_small_images_get_the_network_that_shrinks_them_less(tmp_path: Path) -> None:
    assert load_dataset(saved(tmp_path), Path()).protocol.model == "cnn-small"
    large = {name: np.zeros((len(arrays()[name]), 3, 16, 16)) for name in ("x_train", "x_test")}
    assert load_dataset(saved(tmp_path, **large), Path()).protocol.model == "cnn-medium"


def test_every_flipped_byte_of_an_image_is_noticed(tmp_path: Path) -> None:
    path = Path(saved(tmp_path))
    whole = path.read_bytes()
    start = whole.index(arrays()["x_test"].tobytes())
    for offset in (0, 1000, 1919):
        damaged = bytearray(whole)
        damaged[start + offset] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(BenchError, match="damaged"):
            load_dataset(str(path), Path())


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"PK\x03\x04half"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "mine.npz"
    path.write_bytes(content)
    with pytest.raises(BenchError, match="damaged or not"):
        load_dataset(str(path), Path())


def test_the_hash_sees_order_labels_and_type() -> None:
    x, y = torch.arange(24.0).view(2, 3, 4), torch.tensor([0, 1])
    assert tensor_hash(x, y) == tensor_hash(x.clone(), y.clone())
    variants = ((x, y), (x.flip(0), y), (x, y.flip(0)), (x.double(), y))
    assert len({tensor_hash(*variant) for variant in variants}) == 4


def test_cifar_comes_from_a_prepared_file_with_the_usual_normalisation(tmp_path: Path) -> None:
    np.savez(tmp_path / "cifar10.npz", **arrays())
    data = load_dataset("cifar10", tmp_path)
    assert data.name == "cifar10"
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert data.protocol.recipe.epochs == 300
    assert data.protocol.recipe.augment


def test_real_cifar10_if_it_is_at_hand() -> None:
    folder = os.environ.get("BENCH_TEST_DATA")
    if not folder or not (Path(folder) / "cifar10.npz").exists():
        pytest.skip("BENCH_TEST_DATA names no folder with cifar10.npz")
    data = load_dataset("cifar10", Path(folder))
    assert data.x_train.shape == (50000, 3, 32, 32)
    assert torch.bincount(data.y_train).tolist() == [5000] * 10
    assert data.class_names[3] == "cat"
    assert data.y_test[:5].tolist() == [3, 8, 8, 0, 6]
    mean = pixels(data.x_train[:2000]).mean((0, 2, 3))
    assert torch.allclose(mean, torch.tensor(data.mean), atol=0.02)
