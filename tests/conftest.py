"""What several test folders share: a tiny dataset and the command line as a user runs it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import Run, environment

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_npz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two easily told classes of 1x8x8 images: 96 for training, 160 for test."""
    random = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 96), ("test", 160)):
        y = np.arange(count) % 2
        x = random.uniform(0, 0.4, (count, 1, 8, 8)).astype(np.float32)
        x[y == 1, :, 2:6, 2:6] += 0.4
        x[y == 0, :, :2, :] += 0.4
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x, y
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    np.savez(path, **arrays, class_names=np.array(["edge", "middle"]))
    return path


@pytest.fixture
def bench(tmp_path: Path) -> Run:
    """Run `bench ARGUMENTS` in a subprocess, in an empty folder."""

    def run(*arguments: str | Path, cwd: Path = tmp_path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bench", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture
def tiny_run(tiny_npz: Path) -> list[str]:
    """Arguments of a run that takes seconds."""
    return ["run", "--dataset", str(tiny_npz), "--model", "cnn-small", "--epochs", "1", "--train-size", "96"]
