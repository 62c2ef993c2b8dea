"""The assertion, and the plug-in as a user's pytest finds it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support import environment
from torch import nn

import bench
from bench.pytest_plugin import assert_robustness


def fitted(noise: float = 0.0) -> tuple[nn.Module, tuple[np.ndarray, np.ndarray]]:
    """A linear model that is right about separable images, disturbed by some noise on its weights."""
    random = np.random.default_rng(0)
    y = np.arange(200) % 2
    x = random.uniform(0.3, 0.7, (200, 1, 4, 4)).astype(np.float32)
    x[:, 0, 0, 0] = 0.5 + 0.4 * (y - 0.5)
    layer = nn.Linear(16, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[1, 0], layer.bias[1] = 1.0, -0.5
        layer.weight += noise * torch.from_numpy(random.normal(0, 1, (2, 16)).astype(np.float32))
    return nn.Sequential(nn.Flatten(), layer), (x, y)


@pytest.fixture(scope="module")
def good() -> "bench.Evaluation":
    return bench.evaluate(*fitted(), ["fgsm", "pgd3"], eps=0.05)


@pytest.fixture(scope="module")
def worse() -> "bench.Evaluation":
    return bench.evaluate(*fitted(1.0), ["fgsm", "pgd3"], eps=0.05)


def test_floors_count_the_lower_end_of_the_interval(good: "bench.Evaluation") -> None:
    assert_robustness(good, at_least={"pgd3": 0.95, "clean": 0.95})
    with pytest.raises(AssertionError, match=r"under pgd3: 100.0% \[98.1, 100.0\] on 200 images; at least 99%"):
        assert_robustness(good, at_least={"pgd3": 0.99})
    with pytest.raises(AssertionError, match="apgd5: not measured; there are fgsm, pgd3"):
        assert_robustness(good, at_least={"apgd5": 0.1})
    with pytest.raises(ValueError, match="give a baseline"):
        assert_robustness(good)


def test_a_fall_against_a_baseline_is_told_with_its_numbers(
    good: "bench.Evaluation", worse: "bench.Evaluation", tmp_path: Path
) -> None:
    good.save(tmp_path / "good.json.gz")
    worse.save(tmp_path / "worse.json.gz")
    with pytest.raises(AssertionError, match=r"Robustness fell(.|\n)*REGRESSION"):
        assert_robustness(worse, tmp_path / "good.json.gz")
    assert_robustness(good, tmp_path / "worse.json.gz")
    again = bench.evaluate(*fitted(), ["fgsm", "pgd3"], eps=0.05)
    assert_robustness(again, tmp_path / "good.json.gz", new_weights=False)
    # Less than what the baseline holds was measured: no pass.
    with pytest.raises(AssertionError, match="no such cell is stored"):
        assert_robustness(bench.evaluate(*fitted(), ["fgsm"], eps=0.05), tmp_path / "good.json.gz")
    with pytest.raises(AssertionError, match="other weights"):
        assert_robustness(worse, tmp_path / "good.json.gz", new_weights=False)


def test_a_results_folder_will_do(measured: Path) -> None:
    assert_robustness(measured, at_least={"clean": 0.5})
    with pytest.raises(AssertionError, match="under fgsm"):
        assert_robustness(measured, at_least={"fgsm": 0.5})


def test_users_find_the_fixture_and_pytest_stays_light(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import sys\n"
        "def test_light(robustness):\n"
        "    heavy = {'torch', 'pandas', 'sqlalchemy'} & set(sys.modules)\n"
        "    assert callable(robustness) and not heavy\n"
    )
    plugin = ["-p", "bench.pytest_plugin"]
    installed = "import importlib.metadata as m; print(*(e.value for e in m.entry_points(group='pytest11')))"
    found = subprocess.run([sys.executable, "-c", installed], capture_output=True, text=True, check=True).stdout
    arguments = [] if "bench.pytest_plugin" in found else plugin
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, "test_mine.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
