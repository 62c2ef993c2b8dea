"""What is learned of time: counts of passes against real runs, speeds and shares against stores made to order."""

import json
import math
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from measuring import measure, tiny_request
from support import Run

from bench.cli.matrix import matrix_of
from bench.costs import Costs, Load, makespan
from bench.costs.fit import Speed, fitted
from bench.costs.history import history
from bench.costs.passes import Settings, Work, planned, settings_of
from bench.estimate import estimate
from bench.outcome import Outcome
from bench.plan import Plan, make_plan
from bench.provenance import device_name
from bench.spec import CellSpec, identity_of
from bench.store import Store

CPU = torch.device("cpu")
HERE = device_name(CPU)
TRUE = Speed(2e-4, 5e-4, 1e-3, 4e-3)
Took = Callable[[Settings], tuple[float, float]]
"""From an attack run to the share of its passes that it took and how slow they were."""


def usual(_: Settings) -> tuple[float, float]:
    return 1.0, 1.0


def plan_of(options: str) -> Plan:
    return matrix_of(f"bench run {options}").plan()


def work_of(settings: Settings, share: float) -> Work:
    """Counted anew, for attacks without restarts and means."""
    work = planned(settings, share)
    return work if settings.stops else work._replace(calls=planned(settings).calls * share)


def pretend(
    store: Store, options: str, took: Took = usual, *, speed: Speed = TRUE, trained: float | None = None,
    threads: int = 1, robust: float = 1.0, **recorded: Any,
) -> Plan:  # fmt: skip
    """Store the cells of a command as if they had been measured, at a given speed."""
    plan = plan_of(options)
    run = store.begin_run({"device": HERE, "threads": threads, **recorded})
    for job in plan.jobs:
        store.record_weights(job.weights_key, "0" * 64, identity_of(job.spec), [], trained, run)
        for group in job.trajectories:
            settings = settings_of(group)
            share, slow = took(settings)
            work = work_of(settings, share)
            for cell in group:
                store.begin_cell(cell, run)
            starts = range(0, settings.n, 128)
            for start in starts:
                seconds = slow * speed.seconds(work) / len(starts)
                outcomes = dict.fromkeys(group, some(group[0], min(128, settings.n - start), robust))
                parts = (round(value / len(starts)) for value in work[:2])
                store.add_chunks(start, outcomes, *parts, seconds)
            for cell in group:
                store.finish_cell(cell)
    with sqlite3.connect(store.target) as connection:
        # Long enough ago for whatever was trained, and two seconds.
        ago = "strftime('%Y-%m-%d %H:%M:%f', created, ?) || '000'"
        since = f"-{(trained or 0) + 2 if (trained or 0) < 1e9 else 2} seconds"
        connection.execute(f"UPDATE runs SET created = {ago} WHERE id = ?", (since, run))
    return plan


def some(cell: CellSpec, n: int, robust: float) -> Outcome:
    seen, zeros = np.ones((n, cell.draws), bool), np.zeros(n, np.float32)
    stands = np.arange(n)[:, None] < robust * n
    return Outcome(seen, seen & stands, seen & stands, zeros, zeros, zeros.astype(np.uint8))


def costs(store: Store | None, options: str, threads: int = 1) -> tuple[Costs, Plan]:
    plan = plan_of(options)
    return Costs(plan, store, CPU, threads), plan


def attacks(store: Store, options: str, threads: int = 1) -> list[float]:
    """What attacks are thought to take, writing left out."""
    learned, plan = costs(store, options, threads)
    return [
        learned.attack(job, group) - (2 * len(group) + math.ceil(group[0].n / 128)) * learned.write
        for job in plan.jobs for group in job.trajectories
    ]  # fmt: skip


def truth(options: str, took: Took = usual, speed: Speed = TRUE) -> list[float]:
    found = []
    for job in plan_of(options).jobs:
        for group in job.trajectories:
            share, slow = took(settings_of(group))
            found.append(slow * speed.seconds(work_of(settings_of(group), share)))
    return found


def within(found: Sequence[float], wanted: Sequence[float], factor: float) -> bool:
    return len(found) == len(wanted) and all(b / factor <= a <= b * factor for a, b in zip(found, wanted, strict=True))


# Several workers


def test_work_is_shared_as_a_list_is() -> None:
    loads = [Load(4.0, (1.0, 5.0)), Load(0.0, (2.0, 3.0)), Load(6.0, (1.0,))]
    assert makespan(loads, 1) == 22
    # 0: attacks 2 and 3; 2: training 4; 3: training 6; 6: attacks 1 and, at 7, 5; 9: attack 1; 12: the end.
    assert makespan(loads, 2) == 12
    # 0: 2, 3 and 4; 2: 6; 4: 1 and, at 4, 5; 8: 1; 9: the end.
    assert makespan(loads, 3) == 9
    assert makespan(loads, 99) == 9
    assert makespan([], 3) == 0
    with pytest.raises(ValueError, match="at least 1 worker"):
        makespan(loads, 0)


@given(
    st.lists(st.builds(Load, st.integers(0, 9), st.lists(st.integers(0, 9), max_size=5).map(tuple)), max_size=6),
    st.integers(1, 5),
)
def test_no_worker_rests_while_there_is_work(loads: list[Load], workers: int) -> None:
    total = sum(load.training + sum(load.attacks) for load in loads)
    chain = max((load.training + max(load.attacks, default=0) for load in loads), default=0)
    longest = makespan(loads, workers)
    assert max(total / workers, chain) <= longest + 1e-9
    # Graham's bound for list scheduling with precedence.
    assert longest <= total / workers + chain * (workers - 1) / workers + 1e-9


# Counting


@pytest.mark.parametrize(
    ("defense", "attack", "params"),
    [
        ("nlif", ("pgd3", "pgd6"), {}),
        ("nlif", ("fgsm", "clean", "rfgsm"), {}),
        ("nlif", ("pgd3", "pgd6"), {"restarts": "3"}),
        ("nlif", ("pgd3", "fgsm"), {"eot": "5"}),
        ("vanilla", ("fgsm", "rfgsm", "pgd1"), {}),
    ],
)
def test_passes_are_counted_as_they_are_made(
    tiny_npz: Path, tmp_path: Path, defense: str, attack: tuple[str, ...], params: dict[str, str]
) -> None:
    request = tiny_request(tiny_npz, defenses=(defense,), attacks=attack, params=params, n=140)
    measure(tmp_path, replace(request, recipe={"epochs": 1, "train_size": 96}))
    store = Store(tmp_path / "bench.sqlite")
    runs = history(store, HERE).ran
    assert sum(len(run.settings.steps) for run in runs) == len(attack)
    for run in runs:
        work = planned(run.settings)
        assert (run.forwards, run.backwards) == (work.forwards, work.backwards)
        assert work.chunks == 2
        assert run.seconds > 0
        assert run.overhead is not None and 0 <= run.overhead < 5
    store.close()


def test_what_is_read_from_the_store(store: Store) -> None:
    plan = pretend(store, "-a pgd4,pgd8,fgsm -n 200 --epochs 1", robust=0.25, trained=7.0, threads=3)
    pretend(store, "-a pgd4 -n 100 --epochs 2", trained=1e12)
    pretend(store, "-a apgd4 -n 100 --epochs 3", device="another")
    pretend(store, "-a apgd4 -n 100 --epochs 4", imported={"file": "theirs.json"})
    found = history(store, HERE, [plan.jobs[0].weights_key])
    assert [(run.settings.family, run.settings.steps, run.threads) for run in found.ran] == [
        ("pgd", (4,), 1), ("pgd", (4, 8), 3), ("fgsm", (0,), 3),
    ]  # fmt: skip
    (group,) = (group for group in plan.jobs[0].trajectories if len(group) == 2)
    both = found.ran[1]
    assert both.settings == settings_of(group)
    assert both.seconds == pytest.approx(TRUE.seconds(planned(both.settings)))
    assert (both.forwards, both.backwards, both.robust) == (200 * (8 + 2 + 4), 200 * 8, 0.25)
    # No run can have taken longer than since it began: it found its network trained.
    assert [(one.defense, one.seconds, one.threads) for one in found.learned] == [("vanilla", 7.0, 3)]


# Speeds


def some_works(seed: int, count: int) -> list[Work]:
    random = np.random.default_rng(seed)
    n, steps = random.integers(8, 500, count), random.integers(1, 60, count)
    return [
        Work(float(n * (k + 4)), float(n * k), float(math.ceil(n / 128) * (2 * k + 4)), float(math.ceil(n / 128)))
        for n, k in zip(n, steps, strict=True)
    ]


@pytest.mark.parametrize("speed", [TRUE, Speed(1e-5, 1e-5, 2e-3, 0.0), Speed(3e-3, 9e-3, 0.0, 0.1)])
def test_speeds_are_found_again(speed: Speed) -> None:
    works = some_works(0, 40)
    found = fitted(works, [speed.seconds(work) for work in works])
    assert min(found.forward, found.backward, found.call, found.chunk) >= 0
    others = some_works(1, 40)
    assert within([found.seconds(work) for work in others], [speed.seconds(work) for work in others], 1.15)


def test_what_was_slow_once_does_not_count() -> None:
    works = some_works(0, 30)
    times = [TRUE.seconds(work) * (8 if number % 5 == 0 else 1) for number, work in enumerate(works)]
    found = fitted(works, times)
    others = some_works(1, 30)
    assert within([found.seconds(work) for work in others], [TRUE.seconds(work) for work in others], 1.35)


@given(
    st.floats(1e-6, 1e-2), st.integers(1, 1000), st.integers(0, 100), st.floats(0.2, 5),
)  # fmt: skip
def test_one_run_is_explained(unit: float, n: int, steps: int, slow: float) -> None:
    chunks = math.ceil(n / 128)
    work = Work(n * (steps + 4.0), float(n * steps), chunks * (2.0 * steps + 4), chunks)
    seconds = slow * (unit * (work.forwards + 2 * work.backwards) + 5e-4 * work.calls + 5e-3 * chunks)
    assert fitted([work], [seconds]).seconds(work) == pytest.approx(seconds, rel=0.1)


# Learning from a store


def test_other_attacks_budgets_and_sizes(store: Store) -> None:
    pretend(store, "-a fgsm,pgd10 --epochs 1 -n 500")
    pretend(store, "-a pgd5 --epochs 1 -n 40 --eps 0.2")
    for options in (
        "-a pgd40 --eps 0.03",
        "-a apgd20,rfgsm",
        "-a pgd20 -n 30 --seed 3",
        "-a pgd10 -n 300 --norm l2 --eps 1",
    ):
        assert within(attacks(store, f"{options} --epochs 1"), truth(f"{options} --epochs 1"), 1.2), options


def test_a_noisy_network_and_its_draws(store: Store) -> None:
    pretend(store, "-d nlif -a pgd10,fgsm --epochs 1 -n 200")
    for options in ("-a pgd10 --draws 20", "-a pgd7 --eot 3", "-a pgd7 --restarts 3", "-a pgd20 -n 500 --draws 1"):
        wanted = truth(f"-d nlif {options} --epochs 1")
        assert within(attacks(store, f"-d nlif {options} --epochs 1"), wanted, 1.25), options


def test_what_an_attack_stays_below_its_passes(store: Store) -> None:
    def took(settings: Settings) -> tuple[float, float]:
        return {"mtpgd": 0.12, "sweep": 0.4, "autoattack": 0.05}.get(settings.family, 1.0), 1.0

    pretend(store, "-a pgd10,mtpgd5,sweep4,autoattack --epochs 1 -n 300", took)
    options = "-a mtpgd10,sweep8,autoattack --epochs 1 -n 400 --eps 0.09"
    assert within(attacks(store, options), truth(options, took), 1.35)
    # On another network of the same architecture they are still the best that is known.
    options = options + " -d at"
    assert within(attacks(store, options), truth(options, took), 1.5)


def test_stopping_early_saves_what_it_saved_at_such_a_budget(store: Store) -> None:
    def took(settings: Settings) -> tuple[float, float]:
        return max(0.05, 1 - 4 * settings.eps) if settings.early else 1.0, 1.0

    pretend(store, "-a pgd20 --iterate any --epochs 1 --eps 0.02,0.05,0.1,0.2 -n 256", took)
    pretend(store, "-a pgd20 --epochs 1 --eps 0.2 -n 256", took)
    options = "-a pgd20 --iterate any --epochs 1 --eps 0.03,0.15 -n 256"
    assert within(attacks(store, options), truth(options, took), 1.35)
    options = "-a pgd20 --epochs 1 --eps 0.15 -n 256"
    assert within(attacks(store, options), truth(options, took), 1.1)


def test_slower_gradients_and_faster_arithmetic(store: Store) -> None:
    def took(settings: Settings) -> tuple[float, float]:
        return 1.0, (3.0 if (settings.surrogate or "").startswith("rga") else 1.0) * {"bf16": 0.5}.get(
            settings.arithmetic, 1.0
        )

    pretend(store, "-a pgd10,pgd10@rga,pgd10:arithmetic=bf16,fgsm --epochs 1 -n 300", took)
    options = "-a pgd20@rga,apgd20@rga,pgd20:arithmetic=bf16,pgd20,pgd20@arctan --epochs 1"
    assert within(attacks(store, options), truth(options, took), 1.35)


def test_other_threads_time_steps_and_machines(store: Store) -> None:
    pretend(store, "-a pgd10,fgsm --epochs 1 -n 500", threads=4)
    pretend(store, "-a pgd10,fgsm --epochs 1 -n 500 -T 8", threads=2)
    twice = Speed(2 * TRUE.forward, 2 * TRUE.backward, TRUE.call, TRUE.chunk)
    assert within(attacks(store, "-a pgd20 --epochs 1", threads=4), truth("-a pgd20 --epochs 1"), 1.1)
    # A network's own speed with other threads is nearer than another's.
    (fewer,) = attacks(store, "-a pgd20 --epochs 1", threads=2)
    assert truth("-a pgd20 --epochs 1")[0] < fewer < 2 * truth("-a pgd20 --epochs 1")[0]
    longer = "-a pgd20 --epochs 1 -T 16"
    assert within(attacks(store, longer, threads=2), truth(longer, speed=twice), 1.15)
    learned, plan = costs(store, "-a pgd20 --epochs 1 --model cnn-medium", threads=2)
    assert learned.attack(plan.jobs[0], plan.jobs[0].trajectories[0]) > 0
    assert learned.bases == {"a short trial"}


def seconds_of_training(options: str, rate: float) -> float:
    """At so many times a vanilla pass, by a formula of its own."""
    (job,) = plan_of(options).jobs
    recipe = job.spec.recipe
    images = (recipe.train_size or 1297) - recipe.holdout
    passes = images * recipe.epochs * rate
    calls = recipe.epochs * math.ceil(images / recipe.batch_size) * (2 * rate + 1)
    return passes * (TRUE.forward + TRUE.backward) + calls * TRUE.call


def learning(store: Store | None, options: str) -> float:
    """What training is thought to take, its log and its checkpoints left out."""
    learned, plan = costs(store, options)
    (job,) = plan.jobs
    epochs, log = job.spec.recipe.epochs, Work(97 * 9, 97 * 7, 16, 0)
    return learned.training(job) - epochs * (TRUE.seconds(log) + learned.write)


def test_training_takes_what_it_took(store: Store) -> None:
    known = "-a pgd10,fgsm --epochs 3"
    pretend(store, known, trained=1.5 * seconds_of_training(known, 1.0))
    at = f"-d at {known}"
    pretend(store, at, trained=2.0 * seconds_of_training(at, 2.4))
    for options, wanted in (
        ("-a pgd5 --epochs 30 --seed 4", 1.5 * seconds_of_training("--epochs 30", 1.0)),
        ("-a pgd5 --epochs 2 --train-size 500", 1.5 * seconds_of_training("--epochs 2 --train-size 500", 1.0)),
        ("-d at -a pgd5 --epochs 9", 2.0 * seconds_of_training("--epochs 9", 2.4)),
        # Unknown: between the two that are known, by its passes.
        ("-d sr -a pgd5 --epochs 9", 1.7 * seconds_of_training("--epochs 9", 2.0)),
    ):
        assert within([learning(store, options)], [wanted], 1.25), options
    learned, plan = costs(store, known)
    assert learned.training(replace(plan.jobs[0], trained=True)) == 0.0


def test_a_whole_plan(store: Store, tmp_path: Path) -> None:
    options = f"-d vanilla,at -a fgsm,pgd10 --epochs 2 --results {tmp_path}"
    plan = pretend(store, options, trained=3.0)
    more = plan_of(options.replace("pgd10", "pgd10,apgd5") + " --seed 0,1").known_to(store)
    found = estimate(more, store, CPU, threads=1)
    assert found.basis == "stored runs"
    assert found.seconds == pytest.approx(found.training + found.attacking + Costs(more, store, CPU, 1).first)
    learned = Costs(more, store, CPU, 1)
    # Of the two seconds beside training its log took a part.
    assert 0.5 < learned.first < 1.5
    assert found.training == pytest.approx(sum(learned.training(job) for job in more.jobs))
    shared = estimate(more, store, CPU, workers=2, threads=1)
    assert found.seconds / 2 <= shared.seconds < 0.9 * found.seconds
    assert estimate(more, store, CPU, threads=1, start=5.0).seconds == pytest.approx(found.seconds + 5)
    assert estimate(plan.known_to(store), store, CPU, threads=1, start=5.0).seconds == 0
    with pytest.raises(ValueError, match="worker"):
        estimate(more, store, CPU, workers=0)


def test_without_a_store_a_trial_decides(tiny_npz: Path, tmp_path: Path) -> None:
    plan = make_plan(tiny_request(tiny_npz, defenses=("vanilla", "tgo")), tmp_path, tmp_path)
    found = estimate(plan, None, CPU)
    assert found.basis == "a short trial"
    assert found.training > 0
    assert 0 < found.attacking < 3600


def test_a_plugin_that_is_not_loaded_is_no_obstacle(store: Store) -> None:
    pretend(store, "-a pgd10 --epochs 1 -n 300", trained=1.0)
    with sqlite3.connect(store.target) as connection:
        connection.execute("UPDATE cells SET spec = json_set(spec, '$.attack.family', 'theirs'), defense = 'theirs'")
    learned, plan = costs(store, "-a pgd10 --epochs 1")
    assert learned.training(plan.jobs[0]) > 0
    assert learned.bases == {"a short trial"}


def test_the_second_run_takes_what_the_plan_says(bench: Run, tmp_path: Path) -> None:
    """Generous, and given three tries, since tests run on busy machines; docs/scheduling.md has what it is really."""
    ratios = []
    for seed in range(3):
        common = ["--model", "cnn-small", "--epochs", "2", "-n", "256", "--threads", "1", "--results", f"of {seed}"]
        assert bench("run", *common, "-a", "pgd10").returncode == 0
        second = [*common, "-d", "vanilla,at", "-a", "pgd20,fgsm", "--eps", "0.05", "--seed", "1"]
        expected = json.loads(bench("plan", *second, "--json").stdout)
        assert expected["basis"] == "stored runs"
        began = time.perf_counter()
        bench("run", *second)
        ratios.append(expected["seconds"] / (time.perf_counter() - began))
        if 1 / 3 < ratios[-1] < 3:
            return
    pytest.fail(f"estimated over measured: {ratios}")
