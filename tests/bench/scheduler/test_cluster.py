"""Ray for real: two nodes, results on a PostgreSQL server, workers and a node that are killed."""

import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from measuring import tiny_request
from postgres import NewDatabase
from support import Run, environment

from bench.errors import BenchError
from bench.plan import make_plan
from bench.scheduler.remote import Setup
from bench.scheduler.task import Task, tasks_of
from bench.spec import key_of
from bench.store import Store
from bench.store.roster import Roster

ray = pytest.importorskip("ray")

PLUGIN = """
import os
import signal
import time
from pathlib import Path

from bench import register

HERE = Path(__file__).parent


@register.attack("deadly")
def deadly(model, x, y, threat, *, rng):
    \"\"\"Kills its process the first time.\"\"\"
    if not (HERE / "killed").exists():
        (HERE / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return x


@register.attack("slow")
def slow(model, x, y, threat, *, rng):
    \"\"\"Waits until it may go on.\"\"\"
    (HERE / f"slow-{os.getpid()}").touch()
    while not (HERE / "go").exists():
        time.sleep(0.1)
    return x
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one processor each, on this machine."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
            patch.setenv(name, environment()[name])
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    path = tmp_path / "parts.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def on_cluster(cluster: Any, postgres: NewDatabase) -> list[str]:
    return ["--executor", "ray", "--address", cluster.address, "--store", postgres(), "--json"]


def outcomes(store: str | Path) -> dict[str, bytes]:
    opened = Store(store)
    held = {row.key: opened.outcome(row.key) for row in opened.cells(status="done")}
    opened.close()
    return {key: outcome.pack() for key, outcome in held.items() if outcome is not None}


def start(arguments: list[str], folder: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "bench", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=pipe, stderr=pipe, text=True)


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.05)


def test_a_cluster_gives_the_outcomes_of_one_process(
    on_cluster: list[str], tiny_run: list[str], bench: Run, tmp_path: Path
) -> None:
    matrix = [*tiny_run, "-d", "vanilla,at,nlif", "-a", "fgsm,pgd3,pgd5,apgd3"]
    there = bench(*matrix, *on_cluster)
    assert there.returncode == 0, there.stderr
    here = bench(*matrix, "--results", "here", "--json")
    assert here.returncode == 0, here.stderr
    database = on_cluster[5]
    assert outcomes(database) == outcomes(tmp_path / "here" / "bench.sqlite")
    assert len(json.loads(there.stdout)["cells"]) == 12
    assert there.stderr.count("trained ") == 3
    roster = Roster(Store(database))
    status = json.loads(bench("status", "--all", "--store", database, "--json").stdout)["campaigns"]
    assert [(c["state"], c["cells"], c["done"]) for c in status] == [("done", 12, 12)]
    with roster.store.reading() as session:
        from sqlalchemy import text

        assert session.scalar(text("SELECT count(DISTINCT run_id) FROM chunks")) == 2, "both nodes worked"
        assert session.scalar(text("SELECT count(*) FROM leases")) == 0
    again = bench(*matrix, *on_cluster)
    assert json.loads(again.stdout)["computed"] == 0


def test_a_task_whose_process_is_killed_is_tried_again_by_ray(
    on_cluster: list[str], tiny_run: list[str], bench: Run, plugin: Path
) -> None:
    done = bench(*tiny_run, "--plugin", plugin, "-a", "deadly,fgsm", *on_cluster)
    assert done.returncode == 0, done.stderr
    assert (plugin.parent / "killed").exists()
    assert len(json.loads(done.stdout)["cells"]) == 2


def test_a_node_that_is_lost_takes_nothing_with_it(
    cluster: Any, on_cluster: list[str], tiny_run: list[str], plugin: Path, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1)
    arguments = [*tiny_run, "--plugin", str(plugin), "-d", "vanilla,at,rat", "-a", "slow", *on_cluster]
    process = start(arguments, tmp_path)
    wait_for(lambda: len(list(tmp_path.glob("slow-*"))) == 3, process)
    cluster.remove_node(node, allow_graceful=False)
    (tmp_path / "go").touch()
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert len(json.loads(output)["cells"]) == 3


def test_cancel_ends_what_runs_on_the_cluster(
    on_cluster: list[str], tiny_run: list[str], bench: Run, plugin: Path, tmp_path: Path
) -> None:
    process = start([*tiny_run, "--plugin", str(plugin), "-a", "slow,fgsm", *on_cluster], tmp_path)
    wait_for(lambda: list(tmp_path.glob("slow-*")), process)
    database = on_cluster[5]
    # Another worker may still be at it.
    wait_for(lambda: Store(database).cells(status="done"), process)
    shown = json.loads(bench("status", "--store", database, "--json").stdout)["campaigns"]
    assert [(c["state"], c["running"]) for c in shown] == [("running", 1)]
    assert bench("cancel", "--store", database).returncode == 0
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "cancelled with bench cancel" in errors
    assert Store(database).cells(status="done")[0].attack == "fgsm"


def test_a_file_is_no_store_for_two_machines(cluster: Any, tiny_run: list[str], bench: Run) -> None:
    refused = bench(*tiny_run, "-a", "fgsm", "--executor", "ray", "--address", cluster.address)
    assert refused.returncode == 2
    assert "--store postgresql+psycopg://" in refused.stderr


def test_more_than_the_cluster_has_is_refused(
    cluster: Any, on_cluster: list[str], tiny_run: list[str], bench: Run
) -> None:
    refused = bench(*tiny_run, "-a", "fgsm", *on_cluster, "--gpus-per-worker", "0.5")
    assert refused.returncode == 2
    assert "lower --gpus-per-worker" in refused.stderr


def test_no_cluster_is_one_line(tiny_run: list[str], bench: Run) -> None:
    refused = bench(*tiny_run, "-a", "fgsm", "--executor", "ray", "--address", "127.0.0.1:1")
    assert refused.returncode == 2
    assert "ray start --head" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_machine_without_the_files_is_sent_them(tiny_npz: Path, tmp_path: Path) -> None:
    """What a worker does that shares no folder with the command: the weights travel, both ways."""
    from bench.scheduler import cluster as module

    plan = make_plan(tiny_request(tiny_npz, attacks=("fgsm",)), tmp_path / "none", tmp_path)
    training, attack = tasks_of(plan, lambda job: 1.0, lambda job, cells: 1.0)
    store = Store(tmp_path / "bench.sqlite")
    roster = Roster(store)
    campaign = roster.open_campaign(store.begin_run({"command": ""}), 1, 0)
    setups = [
        Setup(str(tmp_path / "bench.sqlite"), tmp_path / name, "", tmp_path, (), campaign, "")
        for name in ("one", "two")
    ]

    def on_a_fresh_machine(setup: Setup, task: Task, files: dict[str, bytes]) -> tuple[Any, dict[str, bytes]]:
        module._worker = None
        result, made = module._job(setup, plan.dataset, files, pickle.dumps(task))
        assert module._worker is not None
        module._worker[1].end()
        return result, made

    result, files = on_a_fresh_machine(setups[0], training, {})
    assert sorted(files) == sorted(path.name for path in (tmp_path / "one").iterdir() if path.name[0] != ".")
    assert len(files) == 2
    result, _ = on_a_fresh_machine(setups[1], attack, files)
    assert result.done == {key_of(attack.cells[0])}
    assert {path.name: path.read_bytes() for path in (tmp_path / "two").iterdir() if path.name[0] != "."} == files
    other, _ = on_a_fresh_machine(replace(setups[1], dataset="gone.npz"), attack, files)
    assert other.done == result.done, "the dataset came along"


def test_another_version_elsewhere_is_refused(tmp_path: Path) -> None:
    from bench.scheduler import cluster as module

    module._worker = None
    setup = Setup(str(tmp_path / "x.sqlite"), tmp_path, "", tmp_path, (), 1, "", code=("0.0", None))
    said, files = module._job(setup, None, {}, b"")  # type: ignore[arg-type]
    assert isinstance(said, str)
    assert "install the same on all machines" in said.replace("\n", " ")
    assert files == {}
    assert torch.get_num_threads()
    with pytest.raises(BenchError):
        module._check_version(setup)
