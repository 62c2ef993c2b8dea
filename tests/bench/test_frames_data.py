"""Frames of event counts as datasets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data import load_dataset
from bench.data.dataset import Dataset, pixels, tensor_hash
from bench.data.statistics import channel_statistics
from bench.errors import BenchError


def counts(n: int, seed: int = 0, largest: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, largest + 1, (n, 3, 2, 8, 9), dtype=np.uint8)


def arrays(**changes: np.ndarray) -> dict[str, np.ndarray]:
    x_train, x_test = counts(20), counts(10, 1)
    x_train[0, 0, 0, 0, 0], x_test[0, 0, 0, 0, 0] = 6, 7
    made = {"x_train": x_train, "y_train": np.arange(20) % 4, "x_test": x_test, "y_test": np.arange(10) % 4}
    return made | changes


def loaded(folder: Path, **changes: np.ndarray) -> Dataset:
    path = folder / "frames.npz"
    np.savez(path, **arrays(**changes))
    return load_dataset(str(path), Path())


def test_integers_of_five_dimensions_are_frames(tmp_path: Path) -> None:
    data = loaded(tmp_path)
    assert (data.frames, data.in_shape, data.scale, data.num_classes) == (3, (2, 8, 9), 6, 4)
    assert data.x_test.dtype == torch.uint8
    assert np.array_equal(data.x_test.numpy(), arrays()["x_test"])
    assert (data.box.low, data.box.scale) == (0.0, 6)
    assert data.high == float(np.float32(7) / np.float32(6))
    assert torch.equal(data.pixels(data.x_test), torch.from_numpy(arrays()["x_test"]).float() / 6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint16, np.uint32])
def test_every_integer_type_gives_the_same_frames(tmp_path: Path, dtype: type) -> None:
    same = {name: arrays()[name].astype(dtype) for name in ("x_train", "x_test")}
    data, plain = loaded(tmp_path, **same), loaded(tmp_path)
    assert torch.equal(data.pixels(data.x_train), plain.pixels(plain.x_train))
    assert (data.mean, data.std, data.high, data.scale) == (plain.mean, plain.std, plain.high, plain.scale)


@pytest.mark.parametrize("scale", [1, 3, 6, 7, 49, 255])
def test_the_largest_count_lies_in_the_box(tmp_path: Path, scale: int) -> None:
    data = loaded(tmp_path, scale=np.array(scale))
    x = data.pixels(data.x_test).double()
    assert float(x.max()) == data.high and float(x.min()) == data.low == 0
    assert data.high == pytest.approx(7 / scale, rel=1e-7)


def test_a_scale_makes_other_data(tmp_path: Path) -> None:
    one, two = (loaded(tmp_path, scale=np.array(scale)) for scale in (1, 2))
    assert one.test_hash != two.test_hash and one.train_hash != two.train_hash
    assert one.test_hash == loaded(tmp_path, scale=np.array([1])).test_hash


def test_images_are_hashed_boxed_and_divided_as_ever() -> None:
    data = load_dataset("digits", Path())
    assert (data.frames, data.high, data.scale, data.box.scale) == (None, 1.0, 255, 0)
    assert data.test_hash == tensor_hash(data.x_test, data.y_test)
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(pixels(image), image.float().div(255))


def test_the_statistics_are_those_of_the_scaled_frames() -> None:
    x = torch.from_numpy(counts(150, largest=40))
    mean, std = channel_statistics(x, 40)
    values = x.transpose(0, 2).flatten(1).double() / 40
    assert mean == pytest.approx(values.mean(1).tolist(), abs=5.1e-5)
    assert std == pytest.approx(values.std(1).tolist(), abs=5.1e-5)
    assert channel_statistics(torch.zeros_like(x), 40) == ((0.0, 0.0), (0.001, 0.001))


def test_the_statistics_of_many_recordings_do_not_overflow() -> None:
    x = torch.full((3, 2, 1, 64, 64), 4_000_000, dtype=torch.int32)
    assert channel_statistics(x, 4_000_000) == ((1.0,), (0.001,))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": -arrays()["x_test"].astype(np.int16)}, "must not be negative, got -7.*channel each"),
        ({"x_test": arrays()["x_test"] / 6}, "whole event counts, got float64.*astype"),
        ({"x_test": np.full((10, 3, 2, 8, 9), np.nan, np.float32)}, "whole event counts, got float32"),
        ({"x_test": counts(10)[:, :2]}, r"train frames are \[3, 2, 8, 9\], test frames \[2, 2, 8, 9\]"),
        ({"x_test": counts(10)[:, 0].transpose(0, 2, 3, 1)}, "train frames are|train images are"),
        ({"x_test": counts(10).repeat(3, axis=2)}, r"\[N, T, C, H, W\] with 1 to 4 channels, got \[10, 3, 6, 8, 9\]"),
        ({"x_test": counts(10)[:, :0]}, r"\[N, T, C, H, W\]"),
        ({"x_test": counts(10)[None]}, "four dimensions"),
        ({"x_test": np.full((10, 3, 2, 8, 9), 1 << 25)}, r"below 2\^24"),
        ({"x_test": np.full((10, 3, 2, 8, 9), 1 << 40)}, "no counts of events"),
        ({"x_train": np.zeros_like(arrays()["x_train"]), "x_test": np.zeros_like(arrays()["x_test"])}, "no event"),
        ({"scale": np.array(0)}, "scale must be at least 1, got 0"),
        ({"scale": np.array(1 << 24)}, r"scale must lie in \[1, 2\^24\), got 16777216"),
        ({"scale": np.array(1.5)}, "scale must be one whole number, got float64"),
        ({"scale": np.array([1, 2])}, "scale must be one whole number"),
        ({"y_test": np.arange(9) % 4}, r"10 recordings but labels of shape \[9\]"),
        ({"x_test": counts(0), "y_test": np.zeros(0, int)}, "there are no labels"),
    ],
)
def test_bad_frames_are_refused_in_one_line(tmp_path: Path, changes: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        loaded(tmp_path, **changes)
    assert "\n" not in str(caught.value)


def test_images_have_no_scale_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="scale is for frames"):
        replace(load_dataset("digits", tmp_path), scale=16)
