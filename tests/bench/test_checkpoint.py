"""Weights from disk: what is believed and what is refused, without running it."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from bench.checkpoint import hash_tensors, load_into, load_tensors, save_tensors, write_atomically
from bench.errors import BenchError
from models.cnn import cnn_small
from models.neurons import NeuronSpec


def network(classes: int = 3) -> torch.nn.Module:
    return cnn_small(classes, (1, 8, 8), NeuronSpec().build, T=2, mean=(0.5,), std=(0.5,))


def test_saved_weights_come_back_bit_for_bit_with_their_metadata(tmp_path: Path) -> None:
    model = network()
    path = tmp_path / "w.safetensors"
    sha256 = save_tensors(path, model.state_dict(), {"key": "k"})
    tensors, metadata = load_tensors(path)
    other = network()
    load_into(other, tensors, path)
    assert metadata == {"key": "k"}
    assert hash_tensors(other.state_dict()) == sha256 == hash_tensors(model.state_dict())


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_refused_without_running_it(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "w.safetensors", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Bomb(trace), protocol=protocol))
    with pytest.raises(BenchError, match="pickle"):
        load_tensors(path)
    assert not trace.exists()


def test_a_torch_save_file_is_refused_without_running_it(tmp_path: Path) -> None:
    path, trace = tmp_path / "w.safetensors", tmp_path / "ran"
    torch.save({"w": Bomb(trace)}, path)
    with pytest.raises(BenchError, match="save_file"):
        load_tensors(path)
    assert not trace.exists()


def test_a_header_length_that_looks_like_a_pickle_is_still_safetensors(tmp_path: Path) -> None:
    for padding in range(1, 300):
        path = tmp_path / "w.safetensors"
        save_file({"w": torch.ones(1)}, path, {"pad": "x" * padding})
        if path.read_bytes()[0] == 0x80:
            assert load_tensors(path)[0]["w"].item() == 1
            return
    pytest.fail("no header of that length was made")


def test_an_html_page_is_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_text("<!DOCTYPE html><html><body>404</body></html>")
    with pytest.raises(BenchError, match="HTML page"):
        load_tensors(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_tensors(path, network().state_dict(), {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(BenchError, match="truncated"):
        load_tensors(path)


def test_another_architecture_is_refused_and_the_model_left_alone(tmp_path: Path) -> None:
    model = network(classes=3)
    before = hash_tensors(model.state_dict())
    with pytest.raises(BenchError, match=r"another architecture.*readout\.weight is \[5, 64\]"):
        load_into(model, network(classes=5).state_dict(), tmp_path)
    assert hash_tensors(model.state_dict()) == before


@pytest.mark.parametrize(("change", "message"), [("drop", "lacks readout.bias"), ("add", "extra more")])
def test_missing_and_extra_tensors_are_errors(tmp_path: Path, change: str, message: str) -> None:
    tensors = dict(network().state_dict())
    if change == "drop":
        del tensors["readout.bias"]
    else:
        tensors["more"] = torch.zeros(1)
    with pytest.raises(BenchError, match=message):
        load_into(network(), tensors, tmp_path)


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    tensors = dict(network().state_dict())
    tensors["readout.bias"] = torch.full_like(tensors["readout.bias"], torch.nan)
    with pytest.raises(BenchError, match=r"readout\.bias contains NaN"):
        load_into(network(), tensors, tmp_path)


def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.json"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BenchError, match="No space left on device"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
