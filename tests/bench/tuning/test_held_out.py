"""A held-out part of the training set: nothing of it is trained on, and nothing of the test set is in it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.data import Dataset, load_dataset
from bench.data.events import EventDataset
from bench.data.held_out import held_out
from bench.errors import BenchError
from bench.names import split_held_out

NOWHERE = Path("nowhere")


def numbered(train: int, test: int = 5) -> Dataset:
    """A dataset whose images say which they are, sorted by class."""
    digits = load_dataset("digits", NOWHERE)
    pixels = torch.arange(train + test, dtype=torch.float32)[:, None, None, None].expand(-1, 1, 8, 8) / 4096
    y = torch.arange(train) * 10 // train
    return replace(
        digits, x_train=pixels[:train], y_train=y, x_test=pixels[train:], y_test=torch.zeros(test, dtype=torch.int64)
    )


def ids(x: torch.Tensor) -> list[int]:
    return [round(float(value) * 4096) for value in x[:, 0, 0, 0]]


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_the_two_parts_are_the_training_set_and_nothing_else(data: st.DataObject) -> None:
    total = data.draw(st.integers(3, 200))
    of = data.draw(st.integers(3, total))
    count = data.draw(st.integers(1, of - 2))
    whole = numbered(total)
    view = held_out(whole, count, of)
    train, test = ids(view.x_train), ids(view.x_test)
    assert sorted(train + test) == list(range(of))
    assert len(test) == count == view.protocol.n
    assert train == sorted(train) and test == sorted(test)
    assert view.y_train.tolist() == whole.y_train[train].tolist()
    assert view.y_test.tolist() == whole.y_train[test].tolist()
    assert (view.protocol.recipe.holdout, view.protocol.recipe.train_size) == (0, 0)
    assert split_held_out(view.name) == (f"held-out:{count}-of-{of}:", "digits")


def test_files_that_are_sorted_by_class_are_not_held_out_by_class() -> None:
    assert set(held_out(numbered(200), 60).y_test.tolist()) == set(range(10))


def test_a_name_loads_the_view_and_says_its_numbers() -> None:
    by_default = load_dataset("held-out:digits", NOWHERE)
    assert by_default.name == "held-out:259-of-1297:digits"
    for name in (by_default.name, "held-out:259:digits"):
        assert load_dataset(name, NOWHERE).test_hash == by_default.test_hash
    part = load_dataset("held-out:100-of-300:digits", NOWHERE)
    assert (len(part.x_train), len(part.x_test)) == (200, 100)
    assert len({part.test_hash, by_default.test_hash, load_dataset("digits", NOWHERE).test_hash}) == 3


def test_recordings_of_events_are_divided_with_their_frames() -> None:
    view = load_dataset("held-out:7-of-40:digits-dvs:T=3", NOWHERE)
    assert isinstance(view, EventDataset)
    assert view.name == "held-out:7-of-40:digits-dvs:T=3"
    whole = load_dataset("digits-dvs:T=3", NOWHERE)
    assert isinstance(whole, EventDataset)
    known = {whole.recordings_train[number].sha256: number for number in range(40)}
    for part in ("train", "test"):
        recordings, x, y = (getattr(view, f"{name}_{part}") for name in ("recordings", "x", "y"))
        chosen = [known[recording.sha256] for recording in recordings]
        assert len(recordings[1:3]) == 2
        assert torch.equal(x, whole.x_train[chosen]) and torch.equal(y, whole.y_train[chosen])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("held-out:1296:digits", "1 to 1295 can be held out"),
        ("held-out:0:digits", "1 to 1295 can be held out"),
        ("held-out:5-of-2000:digits", "has 1297 training images"),
        ("held-out:4-of-5:digits", "1 to 3 can be held out"),
        ("held-out:held-out:digits", "held out of a training set already"),
        ("held-out:9:nothing", "unknown dataset 'nothing'"),
    ],
)
def test_numbers_that_leave_nothing_are_refused(name: str, says: str) -> None:
    with pytest.raises(BenchError, match=says):
        load_dataset(name, NOWHERE)


def test_too_small_a_training_set_is_refused() -> None:
    with pytest.raises(BenchError, match="2 training images of 'digits' are too few"):
        held_out(numbered(2))


def test_the_test_set_decides_nothing(tiny_npz: Path, tmp_path: Path) -> None:
    """The same training images beside another test set give the same view."""
    arrays = dict(np.load(tiny_npz))
    other = tmp_path / "tiny.npz"
    np.savez(other, **(arrays | {"x_test": arrays["x_test"][::-1] * 0.5, "y_test": arrays["y_test"][::-1]}))
    one, two = (load_dataset(f"held-out:{path}", NOWHERE) for path in (tiny_npz, other))
    assert (one.train_hash, one.test_hash, one.name) == (two.train_hash, two.test_hash, two.name)
