"""A search: fair, repeatable, blind to the test set, and honest about what it found."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trying import asked, computing, search_of, tuned

from bench.errors import BenchError, describe, is_out_of_memory, tells_of_memory
from bench.evaluation import Room
from bench.exchange.bundle import collect_bundle
from bench.exchange.files import read_results, write_results
from bench.exchange.merge import merge_bundle
from bench.plan import Plan, make_plan
from bench.report.tuning import winner_commands
from bench.scheduler import Listener, Report, run_plan
from bench.store import Store
from bench.store.studies import Studies, TrialRow
from bench.tuning.chosen import tuned as with_tuned
from bench.tuning.notes import tuning_note
from bench.tuning.result import Found, found
from bench.tuning.run import tune
from bench.tuning.sampler import suggested
from bench.tuning.study import Search, searches

pytest.importorskip("optuna")


def search_for(defense: str) -> str:
    return f"bench tune -d {defense} --budget 20"


def trials_of(found: Found) -> list[dict[str, Any]]:
    """What a search came to, without the times."""
    return [vars(trial.trial) | {"robust": trial.robust, "clean": trial.clean} for trial in found.trials]


def test_every_defense_gets_the_same_number_of_trainings(tiny_npz: Path, tmp_path: Path) -> None:
    request = asked(tiny_npz, defenses=("vanilla,mc:delta=0.5+at",), recipe={"train_size": 40})
    store, trained = Store(tmp_path / "bench.sqlite"), Counter[str]()
    for search in searches(request, tmp_path / "checkpoints", tmp_path):

        def compute(search: Search, numbers: range, plan: Plan) -> Report:
            trained[search.defense] += sum(not job.trained for job in plan.jobs)
            return computing(tmp_path, store)(search, numbers, plan)

        result, stopped = tune(search, 3, store, store.begin_run({}), compute)
        assert not stopped
        assert [trial.trial.number for trial in result.trials] == [0, 1, 2]
        assert result.trials[0].trial.values == {} and result.trials[0].trial.defense == search.defense
        assert result.best is not None and result.best.order >= result.trials[0].order
    assert trained == {"vanilla": 3, "mc:delta=0.5+at": 3}
    assert len(list((tmp_path / "checkpoints").glob("*.safetensors"))) == 6


def test_the_test_set_is_never_seen(tiny_npz: Path, tmp_path: Path) -> None:
    """Another test set changes nothing of a search, and no image of it is in what a search is given."""
    arrays = dict(np.load(tiny_npz))
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "tiny.npz"
    arrays |= {"x_test": 1 - arrays["x_test"], "y_test": 1 - arrays["y_test"]}
    np.savez(other, **arrays)
    one, first = tuned(asked(tiny_npz), tmp_path / "a", 2)
    two, second = tuned(asked(other), tmp_path / "b", 2)
    assert one.key == two.key
    assert trials_of(first) == trials_of(second)
    seen = torch.cat([two.dataset.x_train, two.dataset.x_test])
    assert len(seen) == len(arrays["x_train"])
    assert not (seen[:, None] == torch.from_numpy(arrays["x_test"])[None]).flatten(2).all(2).any()


class _Interrupted(Exception):  # noqa: N818
    pass


def test_an_interrupted_search_ends_as_one_that_was_not(tiny_npz: Path, tmp_path: Path) -> None:
    """Past the first batch, where what is drawn depends on what came before; in the midst of a batch; and continued
    with another budget."""
    request = asked(tiny_npz, recipe={"train_size": 20}, n=4)
    _, whole = tuned(request, tmp_path / "whole", 13)
    broken = tmp_path / "broken"
    # Twice within the first batch, then within the second.
    for cells in (3, 4, 3):
        store = Store(broken / "bench.sqlite")

        class Breaks(Listener):
            left = cells

            def finished(self, row: object) -> None:
                self.left -= 1
                if not self.left:
                    raise _Interrupted

        def compute(search: Search, numbers: range, plan: Plan, store: Store = store, listener: Any = Breaks) -> Report:
            return run_plan(plan, store, broken / "checkpoints", torch.device("cpu"), listener())

        with pytest.raises(_Interrupted):
            tuned(request, broken, 13, compute)
        store.close()
    assert len(tuned(request, broken, 10)[1].trials) == 10
    assert trials_of(tuned(request, broken, 13)[1]) == trials_of(whole)
    assert trials_of(tuned(request, broken, 10)[1]) == trials_of(whole)[:10]


def test_a_setting_that_diverges_is_a_spent_trial_with_its_reason(tiny_npz: Path, tmp_path: Path) -> None:
    search = search_of(asked(tiny_npz), tmp_path)
    store = Store(tmp_path / "bench.sqlite")

    class Cruel(Search):
        def plan(self, values: Mapping[str, str]) -> Plan:
            if values in refused:
                raise BenchError("these values contradict each other")
            return super().plan({**values, "lr": "1e30"} if values else {})

    refused = [suggested(search.space, search.key, 2, [])]
    cruel = Cruel(**vars(search))
    result, _ = tune(cruel, 3, store, store.begin_run({}), computing(tmp_path, store))
    assert result.trials[2].trial.error == "these values contradict each other"
    error = result.trials[1].trial.error
    assert error is not None and "diverged" in error
    assert result.best is result.default and result.says == "no setting tried is better than the default"
    # It is spent: nothing is computed a second time.
    again, _ = tune(cruel, 3, store, store.begin_run({}), lambda *_: pytest.fail("computed again"))
    assert trials_of(again) == trials_of(result)


def test_memory_that_ran_out_spends_no_trial(tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("injected")

    with monkeypatch.context() as patched:
        patched.setattr("bench.scheduler.work.train", full)
        with pytest.raises(BenchError, match=r"trial 0 was not finished: OutOfMemoryError.*smaller --batch-size"):
            tuned(asked(tiny_npz), tmp_path, 1)
    _, result = tuned(asked(tiny_npz), tmp_path, 1)
    assert result.default is not None and result.default.trial.error is None


@pytest.mark.parametrize(
    ("error", "of_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), True),
        (ValueError("training diverged"), False),
    ],
)
def test_an_error_in_words_says_what_it_was(error: Exception, of_memory: bool) -> None:
    assert tells_of_memory(describe(error)) == is_out_of_memory(error) == of_memory


def test_an_attack_that_finds_no_room_says_so_in_words() -> None:
    room = Room()
    room.batch = 1
    with pytest.raises(BenchError) as error:
        room.shrink("attack 'pgd2'")
    assert tells_of_memory(str(error.value))


def test_where_everything_fails_it_says_so(tiny_npz: Path, tmp_path: Path) -> None:
    request = asked(tiny_npz, recipe={"lr": 1e30})
    _, result = tuned(request, tmp_path, 2)
    assert result.best is None and result.says == "every trial failed"
    assert all("diverged" in str(trial.trial.error) for trial in result.trials)
    with pytest.raises(BenchError, match="every trial of study"):
        with_tuned(request, Store(tmp_path / "bench.sqlite"), tmp_path / "checkpoints", tmp_path, search_for)


def test_the_winner_runs_by_name_and_by_hand_as_the_same_cells(tiny_npz: Path, tmp_path: Path) -> None:
    request = asked(tiny_npz, defenses=("mc",), recipe={"train_size": 60})
    search, result = tuned(request, tmp_path, 2)
    last = result.trials[-1]
    by_hand = winner_commands(replace(result, trials=(last,)), " --model tiny", ["fgsm"])[1]
    values = f"--lr {last.trial.values['lr']} --weight-decay {last.trial.values['weight_decay']}"
    assert by_hand == f"bench run -d {last.trial.defense} {values} -a fgsm --model tiny"
    store = Store(tmp_path / "bench.sqlite")
    (one,) = with_tuned(request, store, tmp_path / "checkpoints", tmp_path, search_for)
    (study,) = Studies(store).all()
    winner = found(store, study).best
    assert winner is not None
    recipe = dict(request.recipe) | {k: float(v) for k, v in winner.trial.values.items() if "." not in k}
    typed = replace(request, defenses=(winner.trial.defense,), recipe=recipe)
    plans = [make_plan(each, tmp_path / "checkpoints", tmp_path) for each in (one, typed)]
    assert plans[0].cells[0].test_hash != search.dataset.test_hash
    assert [cell.attack for cell in plans[0].cells] == [cell.attack for cell in plans[1].cells]
    assert plans[0].jobs[0].weights_key == plans[1].jobs[0].weights_key
    assert "(tuned: best of 2 trials; " in plans[0].cells[0].defense_name
    # By hand, and marked all the same.
    run_plan(plans[1], store, tmp_path / "checkpoints", torch.device("cpu"), Listener())
    rows = store.cells(dataset="tiny")
    note = tuning_note(store, rows)
    assert note.startswith(f"Tuned: {winner.trial.defense}, best of 2 trials; ") and study.key[:12] in note
    fewer = make_plan(replace(typed, recipe=recipe | {"train_size": 50}), tmp_path / "checkpoints", tmp_path)
    run_plan(fewer, store, tmp_path / "checkpoints", torch.device("cpu"), Listener())
    others = [row for row in store.cells() if row.key not in {row.key for row in rows}]
    assert others and tuning_note(store, others) == ""


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"epochs": 2}}, {"recipe": {"batch_size": 32}}, {"recipe": {"train_size": 90}}, {"T": 3},
        {"decay": 0.75}, {"model": "tiny"}, {"recipe": {"lr": 0.1}}, {"defenses": ("vanilla",)},
        {"defenses": ("mc:delta=0.5",)}, {"surrogate": "arctan"},
    ],
    ids=str,
)  # fmt: skip
def test_a_search_is_for_exactly_what_was_searched(searched: tuple[Path, Path], changes: dict[str, Any]) -> None:
    folder, data = searched
    store = Store(folder / "bench.sqlite")
    request = asked(data, defenses=("mc",))
    assert with_tuned(request, store, folder / "checkpoints", folder, search_for)[0].note
    assert with_tuned(replace(request, seeds=(5, 6), attacks=("pgd3",)), store, folder, folder, search_for)[0].note
    with pytest.raises(BenchError, match=r"first: bench tune -d \S+ --budget 20"):
        with_tuned(asked(data, **({"defenses": ("mc",)} | changes)), store, folder / "checkpoints", folder, search_for)


def test_other_training_images_need_a_search_of_their_own(searched: tuple[Path, Path], tmp_path: Path) -> None:
    folder, data = searched
    arrays = dict(np.load(data))
    np.savez(tmp_path / "tiny.npz", **(arrays | {"x_train": arrays["x_train"][::-1]}))
    request = asked(tmp_path / "tiny.npz", defenses=("mc",))
    with pytest.raises(BenchError, match="tuned, but not for these images and conditions"):
        with_tuned(request, Store(folder / "bench.sqlite"), folder, folder, search_for)


@pytest.fixture(scope="module")
def searched(tiny_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with a search of `mc`, and its data."""
    folder = tmp_path_factory.mktemp("searched")
    tuned(asked(tiny_npz, defenses=("mc",)), folder, 2)
    return folder, tiny_npz


def test_trials_are_no_results(searched: tuple[Path, Path]) -> None:
    store = Store(searched[0] / "bench.sqlite")
    assert store.cells() == [] and store.names() == [] and store.kinds(None) == []
    (study,) = Studies(store).all()
    name = "held-out:19-of-96:tiny"
    assert {row.dataset for row in store.cells(dataset=name)} == {name}
    assert (
        len(store.cells(dataset=name)) == 2 == sum(kind.cells for kind in store.kinds(None, study.trials[0].cells)) + 1
    )
    assert store.cell(study.trials[1].cells[0][:12]).dataset == name


@pytest.mark.parametrize("ending", [".json", ".parquet"])
def test_trials_that_were_carried_elsewhere_answer_there(
    ending: str, searched: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, npz = searched
    here = Store(folder / "bench.sqlite")
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    write_results(tmp_path / f"x{ending}", collect_bundle(here, here.cells(dataset="held-out:19-of-96:tiny")))
    elsewhere = Store(tmp_path / "bench.sqlite")
    merge_bundle(elsewhere, read_results(tmp_path / f"x{ending}"), note={})
    search = search_of(asked(npz, defenses=("mc",)), folder)
    reports = []

    def compute(search: Search, numbers: range, plan: Plan) -> Report:
        reports.append(computing(tmp_path, elsewhere)(search, numbers, plan))
        return reports[-1]

    result, _ = tune(search, 2, elsewhere, elsewhere.begin_run({}), compute)
    assert [report.computed for report in reports] == [0]
    assert trials_of(result) == trials_of(found(here, Studies(here).all()[0]))
    for row in elsewhere.cells(dataset="held-out:19-of-96:tiny"):
        known = elsewhere.weights(row.weights_key)
        assert known is not None and np.isnan(known["log"][0]["clean"])


def test_a_trial_is_kept_once(searched: tuple[Path, Path]) -> None:
    studies = Studies(Store(searched[0] / "bench.sqlite"))
    (study,) = studies.all()
    studies.add(study.key, TrialRow(0, {"lr": "9"}, "other", (), "an error"))
    studies.begin(study.key, {}, {}, 1)
    assert studies.all() == [study]
    assert json.loads(json.dumps(dict(study.settings))) == study.settings


@pytest.mark.parametrize(
    ("changes", "count", "says"),
    [
        ({"seeds": (0, 1)}, None, "give one --seed"),
        ({"weights": Path("x.safetensors")}, None, "--weights is trained already"),
        ({"dataset": "held-out:digits"}, None, "holds images out itself: give --dataset digits"),
        ({}, 0, "--held-out must be at least 1"),
        ({}, 95, "1 to 94 can be held out"),
        ({"recipe": {"train_size": 2}}, None, "are too few"),
        ({"recipe": {"train_size": 500}}, None, "has 96 training images"),
        ({"n": 20}, None, r"-n must lie in \[1, 19\]"),
        ({"defenses": ("nothing",)}, None, "unknown defense 'nothing'"),
        ({"attacks": ("frame",)}, None, "edits recordings of events"),
    ],
    ids=str,
)
def test_mistakes_are_named(
    tiny_npz: Path, tmp_path: Path, changes: dict[str, Any], count: int | None, says: str
) -> None:
    with pytest.raises(BenchError, match=says):
        searches(asked(tiny_npz, **changes), tmp_path, tmp_path, count)


def test_attacks_on_events_judge_recordings(tmp_path: Path) -> None:
    request = asked(Path(), dataset="digits-dvs:T=2", attacks=("frame",), eps=(), recipe={"train_size": 20}, n=2)
    search, result = tuned(request, tmp_path, 1)
    assert search.settings["budgets"] == ["events 1/20"]
    assert result.best is not None and result.best.robust is not None and result.best.robust.n == 2
