"""Datasets of event recordings: what is read from where, in which order, and which frames go with which recording."""

import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support import Run

from bench.data import Dataset, DatasetSource, load_dataset
from bench.data.cifar10_dvs import CLASSES, TEST_LIST_SHA256, listed_for_test
from bench.data.events import EventDataset, Labelled, Recordings, frames_dataset
from bench.data.nmnist import PROTOCOL
from bench.errors import BenchError
from bench.registry import DATASETS
from events import Framing, Recording, Sensor
from events.formats.aedat2 import DVS128
from events.formats.gesture import GESTURES
from events.formats.nmnist import NMNIST_SENSOR, write_nmnist


def recording(sensor: Sensor, seed: int, n: int = 40) -> Recording:
    random = np.random.RandomState(seed)
    x, y = random.randint(0, sensor.width, n), random.randint(0, sensor.height, n)
    return Recording(x, y, np.sort(random.randint(0, 10**5, n)), random.randint(0, 2, n), sensor)


def nmnist(data_dir: Path) -> Path:
    """Three training recordings and two for test, which the digits' folders do not hold in order."""
    for part, files in (("Train", ((7, 12), (0, 9), (3, 100))), ("Test", ((5, 2), (1, 3)))):
        for digit, number in files:
            path = data_dir / "NMNIST" / part / str(digit) / f"{number:05d}.bin"
            path.parent.mkdir(parents=True)
            write_nmnist(path, recording(NMNIST_SENSOR, number))
    return data_dir


def cifar10_dvs(data_dir: Path, numbers: tuple[int, ...] = (5, 10, 899, 900, 999)) -> Path:
    """Some files of each class; event 0 of each is at column `label`, row `number` // 10."""
    for label, name in enumerate(CLASSES):
        folder = data_dir / "CIFAR10DVS" / name
        folder.mkdir(parents=True)
        for number in numbers:
            stored = (127 - label) << 8 | (127 - number // 10) << 1
            body = struct.pack(">IIII", stored, 5, stored, 6)
            (folder / f"cifar10_{name}_{number}.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + body)
    return data_dir


def gestures(data_dir: Path) -> Path:
    """One trial for training and one for test, each with two gestures of two events and one event between."""
    folder = data_dir / "DvsGesture"
    folder.mkdir(parents=True)
    for part, user in (("train", 1), ("test", 24)):
        times = (100, 101, 200, 300, 301)
        body = b"".join(struct.pack("<II", user << 17 | index << 2 | 3, t) for index, t in enumerate(times))
        header = struct.pack("<hhiiiiii", 1, 0, 8, 4, 0, 5, 5, 5)
        name = f"user{user:02d}_led"
        (folder / f"{name}.aedat").write_bytes(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n" + header + body)
        (folder / f"{name}_labels.csv").write_text("class,start,end\n11,100,200\n4,300,400\n")
        (folder / f"trials_to_{part}.txt").write_text(f"{name}.aedat\n")
    return data_dir


MAKERS: dict[str, Callable[[Path], Path]] = {
    "n-mnist": nmnist,
    "cifar10-dvs": cifar10_dvs,
    "dvs128-gesture": gestures,
    "digits-dvs": lambda data_dir: data_dir,
}


def loaded(name: str, data_dir: Path) -> EventDataset:
    data = load_dataset(name, data_dir)
    assert isinstance(data, EventDataset)
    return data


@pytest.mark.parametrize("name", MAKERS)
def test_frames_are_those_of_the_recordings(name: str, tmp_path: Path) -> None:
    data = loaded(name, MAKERS[name](tmp_path))
    assert DATASETS.get(name).frames
    assert DATASETS.get(name).at_hand(tmp_path)
    for part in ("train", "test"):
        x, recordings = getattr(data, f"x_{part}"), getattr(data, f"recordings_{part}")
        assert len(x) == len(recordings) == len(getattr(data, f"y_{part}"))
        assert x.dtype == torch.uint8
        for index in {0, len(x) // 2, len(x) - 1}:
            assert np.array_equal(x[index].numpy(), data.framing.frames(recordings[index]))
            assert int(x[index].sum()) == len(recordings[index])
    assert data.scale == int(data.x_train.max()), "the largest count of training is 1.0"
    assert data.frames == data.framing.T
    assert data.protocol.recipe.holdout <= len(data.x_train) // 10
    assert data.protocol.n <= len(data.x_test)
    assert not data.protocol.recipe.augment


def test_nmnist_is_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    data = loaded("n-mnist", nmnist(tmp_path))
    assert (data.y_train.tolist(), data.y_test.tolist()) == ([0, 7, 3], [5, 1])
    assert data.recordings_train[1] == recording(NMNIST_SENSOR, 12)
    assert data.x_test.shape == (2, 10, 2, 34, 34)
    assert data.note == "3 recordings for training and 2 for test, of 60,000 and 10,000 official ones."
    before = data.test_hash
    write_nmnist(tmp_path / "NMNIST" / "Test" / "5" / "00001.bin", recording(NMNIST_SENSOR, 1))
    more = loaded("n-mnist", tmp_path)
    assert more.y_test.tolist() == [5, 5, 1]
    assert more.test_hash != before, "another part of the test set is another test set"


def test_cifar10_dvs_is_split_by_the_files_numbers(tmp_path: Path) -> None:
    data = loaded("cifar10-dvs", cifar10_dvs(tmp_path))
    assert data.y_train.tolist() == [*range(10)] * 3, "by number and then by class, and 10 comes after 5"
    assert [int(item.y[0]) for item in data.recordings_test] == [90] * 10 + [99] * 10
    assert [int(item.x[0]) for item in data.recordings_test] == [*range(10)] * 2
    assert all(item.p.all() for item in data.recordings_test)
    assert data.x_test.shape == (20, 10, 2, 64, 64)
    assert data.note == "30 recordings for training and 20 for test, of 9,000 and 1,000 official ones."
    assert hashlib.sha256("\n".join(listed_for_test()).encode()).hexdigest() == TEST_LIST_SHA256
    assert len(set(listed_for_test())) == 1000
    listed = [str(path.relative_to(tmp_path / "CIFAR10DVS")) for path in data.recordings_test.sources]  # type: ignore[attr-defined]
    assert listed == [name for name in listed_for_test() if name.split("_")[-1] in ("900.aedat", "999.aedat")]


def test_gestures_are_split_by_the_lists_and_cut_by_the_tables(tmp_path: Path) -> None:
    data = loaded("dvs128-gesture", gestures(tmp_path))
    assert data.y_train.tolist() == data.y_test.tolist() == [10, 3]
    assert data.class_names == GESTURES
    assert [item.t.tolist() for item in data.recordings_test] == [[100, 101], [300, 301]]
    assert set(data.recordings_test[0].x) == {24}
    assert set(data.recordings_train[0].x) == {1}


def test_the_simulated_digits_are_those_of_digits_and_always_the_same() -> None:
    data, still = loaded("digits-dvs", Path()), load_dataset("digits", Path())
    assert data.x_train.shape == (1297, 6, 2, 8, 8)
    assert torch.equal(data.y_train, still.y_train)
    assert torch.equal(data.y_test, still.y_test)
    assert "simulated" in data.note
    # Where a digit has edges there are events.
    events = data.x_test.sum((1, 2)).float().flatten(1)
    light = still.x_test.flatten(1)
    assert float(torch.corrcoef(torch.stack([events.mean(0), light.std(0)]))[0, 1]) > 0.7
    assert data.test_hash == "db030f5c632b6025b8c12b25ca90d39fe9989510b66327c2bf174ce00aa76867"


def test_options_are_in_the_name_without_defaults_and_in_one_order(tmp_path: Path) -> None:
    nmnist(tmp_path)
    data = loaded("n-mnist:scale=1, size=17,T=4,by=number", tmp_path)
    assert data.name == "n-mnist:T=4,size=17,scale=1"
    assert data.framing == Framing(4, "number", 17, 17)
    assert data.x_test.shape == (2, 4, 2, 17, 17)
    assert (data.scale, data.high) == (1, float(max(data.x_train.max(), data.x_test.max())))
    again = loaded(data.name, tmp_path)
    assert (again.name, again.test_hash) == (data.name, data.test_hash)
    assert loaded("n-mnist:T=10,scale=max", tmp_path).name == "n-mnist"
    hashes = {loaded(f"n-mnist:{o}", tmp_path).test_hash for o in ("T=10", "T=4", "by=time", "size=17", "scale=3")}
    assert len(hashes) == 5, "what frames or their unit depend on is another test set"
    assert "n-mnist:T=4" in DATASETS
    assert "n-mnits:T=4" not in DATASETS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("n-mnist:frames=4", "dataset 'n-mnist' has no parameter 'frames'.*it has T, by, size, scale"),
        ("n-mnist:t=4", "has no parameter 't'"),
        ("n-mnist:T=four", "dataset 'n-mnist': T=four is not an integer"),
        ("n-mnist:T=0", "dataset 'n-mnist': T must be at least 1, got 0"),
        ("n-mnist:by=count", "dataset 'n-mnist': by must be number or time, got 'count'"),
        ("n-mnist:size=16", "frames of 16x16 do not divide a sensor of 34x34 .*choose from 34, 17, 2, 1"),
        ("cifar10-dvs:size=48", "do not divide a sensor of 128x128"),
        ("n-mnist:scale=0", "scale must be max or a count of at least 1, got '0'"),
        ("n-mnist:scale=half", "scale must be max or"),
        ("n-mnist:size=17,scale=01", "at least 1, got '01'; write 1 and not 01"),
        ("n-mnist:T=3,T=4", "'n-mnist:T=3,T=4': T is given twice"),
        ("n-mnist:T", "write parameters as name:key=value"),
        ("digits:T=4", "dataset 'digits' has no parameter 'T'; it has none"),
        ("n-mnits:T=4", "unknown dataset 'n-mnits', did you mean 'n-mnist'"),
    ],
)
def test_a_bad_option_is_one_line_with_the_choices(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(BenchError, match=message) as caught:
        load_dataset(name, nmnist(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "folder", "where"),
    [
        ("n-mnist", "NMNIST", "Train.zip and Test.zip from https://www.garrickorchard.com"),
        ("cifar10-dvs", "CIFAR10DVS", "airplane.zip to truck.zip from https://figshare.com"),
        ("dvs128-gesture", "DvsGesture", "DvsGesture.tar.gz from https://"),
    ],
)
def test_what_is_missing_is_named_with_where_to_get_it(tmp_path: Path, name: str, folder: str, where: str) -> None:
    assert not DATASETS.get(name).at_hand(tmp_path)
    for _ in range(2):
        with pytest.raises(BenchError, match=f"^{name} is not in '{tmp_path / folder}': download {where}.*--data-dir"):
            load_dataset(name, tmp_path)
        (tmp_path / folder).mkdir(exist_ok=True)  # An empty folder is as good as none.


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    bad = nmnist(tmp_path) / "NMNIST" / "Test" / "5" / "00002.bin"
    bad.write_bytes(bad.read_bytes()[:-2])
    with pytest.raises(BenchError, match=f"'{bad}' is cut off"):
        load_dataset("n-mnist", tmp_path)
    bad.rename(bad.with_name("two.bin"))
    with pytest.raises(BenchError, match=r"two.bin' is none of N-MNIST's files"):
        load_dataset("n-mnist", tmp_path)
    stray = cifar10_dvs(tmp_path) / "CIFAR10DVS" / "cat" / "cifar10_dog_1.aedat"
    stray.touch()
    with pytest.raises(BenchError, match=r"cifar10_dog_1\.aedat' is none of CIFAR10-DVS's files"):
        load_dataset("cifar10-dvs", tmp_path)
    labels = gestures(tmp_path) / "DvsGesture" / "user24_led_labels.csv"
    labels.write_text("class,start,end\nx\n")
    with pytest.raises(BenchError, match=f"'{labels}', line 2"):
        load_dataset("dvs128-gesture", tmp_path)
    labels.unlink()
    with pytest.raises(BenchError, match=r"user24_led_labels\.csv"):
        load_dataset("dvs128-gesture", tmp_path)


def test_recordings_are_read_when_asked_for() -> None:
    seen: list[int] = []

    def read(source: int) -> Recording:
        seen.append(source)
        return recording(DVS128, source)

    recordings = Recordings([3, 4, 5], read)
    assert len(recordings) == 3
    assert seen == []
    assert recordings[-1] == recording(DVS128, 5)
    assert list(recordings[1:]) == [recording(DVS128, 4), recording(DVS128, 5)]
    assert seen == [5, 4, 5]


def framed(*parts: list[Recording], scale: str = "max") -> EventDataset:
    train, test = (Labelled(part, [index % 2 for index in range(len(part))]) for part in parts)
    return frames_dataset("made", train, test, ("a", "b"), Framing(2, "number", 1, 1), scale, PROTOCOL)


@pytest.mark.parametrize(("most", "kind"), [(255, torch.uint8), (256, torch.int16), (40_000, torch.int32)])
def test_counts_have_the_smallest_type_that_holds_them(most: int, kind: torch.dtype) -> None:
    one = Sensor(1, 1)
    zeros = np.zeros(2 * most, int)
    busy = Recording(zeros, zeros, zeros, zeros, one)
    data = framed([Recording.empty(one), busy, recording(one, 0)], [recording(one, 1)])
    assert data.x_train.dtype == kind
    assert data.x_train[:, 0, 0].flatten().tolist()[:2] == [0, most]
    assert data.x_test.dtype == torch.uint8
    assert (data.scale, data.high) == (most, 1.0)


def test_a_test_recording_may_be_busier_than_all_of_training() -> None:
    one = Sensor(1, 1)
    data = framed([recording(one, seed) for seed in range(4)], [recording(one, 9, n=400)])
    assert data.high > 1
    assert data.pixels(data.x_test).max() == data.high


def test_recordings_without_any_event_are_no_dataset() -> None:
    with pytest.raises(BenchError, match="the frames hold no event"):
        framed([Recording.empty(DVS128)] * 2, [Recording.empty(DVS128)])


def test_a_plug_in_s_dataset_has_the_options_of_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_dataset("digits", Path())

    def load(data_dir: Path, *, few: bool = False) -> Dataset:
        return digits

    entries = dict(DATASETS._entries)
    monkeypatch.setattr(DATASETS, "_entries", entries)
    DATASETS.add("mine", DatasetSource(load, "mine", digits.protocol))
    assert load_dataset("mine:few=true", Path()).name == "digits:few=true"
    assert load_dataset("mine:few=false", Path()).name == "digits"


def test_a_run_says_that_its_recordings_are_simulated(bench: Run) -> None:
    done = bench("plan", "--dataset", "digits-dvs:T=2,size=4", "-a", "pgd2")
    assert done.returncode == 0, done.stderr
    assert "digits-dvs:T=2,size=4: 1,297 simulated recordings for training and 500 for test." in done.stdout


def test_real_nmnist_if_it_is_at_hand() -> None:
    folder = os.environ.get("BENCH_TEST_DATA")
    if not folder or not (Path(folder) / "NMNIST").is_dir():
        pytest.skip("BENCH_TEST_DATA names no folder with NMNIST")
    data = loaded("n-mnist", Path(folder))
    numbers = [int(path.stem) for path in data.recordings_test.sources]  # type: ignore[attr-defined]
    assert numbers == sorted(numbers)
    assert int(data.x_test.sum()) == sum(map(len, data.recordings_test))
    # MNIST's first training image is a 5 and its first test image a 7; the pack of a few hundred has only the latter.
    if numbers[0] in (1, 60_001):
        assert data.y_test[:5].tolist() == [7, 2, 1, 0, 4]
