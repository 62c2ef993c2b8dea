"""Who works: one process for each GPU, or as many as were asked for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench.cli.matrix import Matrix
from bench.errors import BenchError

CPU, CUDA, SECOND = torch.device("cpu"), torch.device("cuda"), torch.device("cuda:1")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("options", "device", "devices", "threads"),
    [
        ({}, CPU, ("cpu",), None),
        ({"workers": 4}, CPU, ("cpu",) * 4, 2),
        ({"workers": 4, "threads": 3}, CPU, ("cpu",) * 4, 3),
        ({"workers": 99}, CPU, ("cpu",) * 99, 1),
        ({}, CUDA, ("cuda:0", "cuda:1"), 4),
        ({}, SECOND, ("cuda:1",), None),
        ({"workers": 1}, CUDA, ("cuda:0",), None),
        ({"workers": 3}, CUDA, ("cuda:0", "cuda:1", "cuda:0"), 2),
    ],
)
def test_there_is_a_worker_for_each_gpu_or_as_many_as_were_asked_for(
    two_gpus: None, options: dict[str, int], device: torch.device, devices: tuple[str, ...], threads: int | None
) -> None:
    crew = replace(Matrix(), **options).crew(device)
    assert (tuple(crew.devices), crew.threads, crew.cluster) == (devices, threads, None)


def test_a_cluster_decides_itself_who_works(two_gpus: None) -> None:
    crew = Matrix(executor="ray", address="head:6379", gpus=0.5, workers=7, plugins=[Path("parts.py")]).crew(CPU)
    assert (crew.devices, crew.cluster, crew.gpus, crew.workers) == ((), "head:6379", 0.5, 7)
    assert crew.plugins == (Path("parts.py").resolve(),)


@pytest.mark.parametrize("options", [{"gpus": -1.0, "executor": "ray"}, {"workers": 0}, {"executor": "pbs"}])
def test_a_mistake_is_an_error(options: dict[str, object]) -> None:
    with pytest.raises(BenchError):
        replace(Matrix(), **options).crew(CPU)
