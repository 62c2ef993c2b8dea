"""Out of memory: halved, done again, remembered; and nothing of an outcome depends on how many images fit."""

from pathlib import Path

import pytest
import torch
from measuring import tiny_request

from bench import evaluation
from bench.errors import BenchError
from bench.evaluation import CountedModel, Room, evaluate
from bench.plan import Plan, TrainJob, make_plan
from bench.scheduler import Listener, network, run_plan, work
from bench.scheduler.work import Place, measure
from bench.spec import key_of
from bench.store import Store

CPU = torch.device("cpu")
# Random starts, noise, means over noise, ensembles, gradients that observe: whatever could look at its neighbours.
ATTACKS = (
    "fgsm", "rfgsm", "pgd3", "pgd3:restarts=2", "pgd3:early_stop=true", "apgd3", "apgd3:loss=margin", "sapgd3@assg",
    "mtpgd2", "square5", "pgd2@rga", "pgd2@pdsg", "pgd2@hart", "pgd2@bptr", "pgd2@conversion", "sweep2",
)  # fmt: skip
NOISY = (*(name for name in ATTACKS if "early_stop" not in name), "pgd3:eot=3", "pgd2@noiseless")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


def plan_of(tiny_npz: Path, checkpoints: Path, defense: str, attacks: tuple[str, ...]) -> Plan:
    return make_plan(tiny_request(tiny_npz, defenses=(defense,), attacks=attacks, n=150), checkpoints, checkpoints)


def trained(job: TrainJob, plan: Plan, folder: Path) -> torch.nn.Module:
    store = Store(folder / "weights.sqlite")
    return network(job, plan.dataset, store, folder, CPU, store.begin_run({}), Listener())


class Memory:
    """A device with room for so many images: a larger call of the network fails as it does on a GPU."""

    def __init__(self, images: int, error: type[BaseException] = torch.OutOfMemoryError) -> None:
        self.images, self.error, self.failures = images, error, 0

    def put_on(self, patch: pytest.MonkeyPatch) -> None:
        inner = CountedModel.forward

        def forward(model: CountedModel, x: torch.Tensor) -> torch.Tensor:
            if len(model.samples) > self.images:
                self.failures += 1
                raise self.error("out of memory")
            return inner(model, x)

        patch.setattr(CountedModel, "forward", forward)


@pytest.mark.parametrize(
    ("defense", "attack"), [*(("vanilla", name) for name in ATTACKS), *(("nlif", name) for name in NOISY)]
)
def test_how_many_images_fit_changes_no_bit_of_an_outcome(
    tiny_npz: Path, checkpoints: Path, defense: str, attack: str
) -> None:
    plan = plan_of(tiny_npz, checkpoints, defense, (attack,))
    [job] = plan.jobs
    model = trained(job, plan, checkpoints)
    seen = {}
    for batch in (128, 64, 16, 8):
        results = list(evaluate(model, plan.dataset, job.cells, device=CPU, room=Room(batch)))
        seen[batch] = [(r.start, r.forwards, r.backwards, [o.pack() for o in r.outcomes.values()]) for r in results]
    assert seen[64] == seen[16] == seen[8] == seen[128]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError])
def test_a_chunk_that_does_not_fit_is_done_in_halves_and_that_is_remembered(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    plan = plan_of(tiny_npz, tmp_path / "checkpoints", "nlif", ("pgd3", "fgsm"))
    whole = Store(tmp_path / "whole.sqlite")
    run_plan(plan, whole, tmp_path / "checkpoints", CPU, Listener())
    memory = Memory(32, error)
    memory.put_on(monkeypatch)
    small = Store(tmp_path / "small.sqlite")
    report = run_plan(plan, small, tmp_path / "checkpoints", CPU, Listener())
    assert not report.failures
    for cell in plan.cells:
        one, other = whole.outcome(key_of(cell)), small.outcome(key_of(cell))
        assert one is not None
        assert other is not None
        assert one.pack() == other.pack()
    # 128 and 64 failed for each of two attacks; the second chunk of each, and another run, know better.
    assert memory.failures == 4
    assert {row.batch for row in small.cells()} == {32}
    assert {row.batch for row in whole.cells()} == {None}
    again = plan_of(tiny_npz, tmp_path / "checkpoints", "nlif", ("pgd5",)).known_to(small)
    assert not run_plan(again, small, tmp_path / "checkpoints", CPU, Listener()).failures
    assert memory.failures == 4


def test_a_network_that_does_not_fit_at_all_fails_with_the_mend(
    tiny_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tiny_npz, tmp_path, "vanilla", ("pgd3", "fgsm"))
    Memory(4).put_on(monkeypatch)
    store = Store(tmp_path / "bench.sqlite")
    report = run_plan(plan, store, tmp_path, CPU, Listener())
    assert len(report.failures) == 2
    assert "even with 8 images at once; use a smaller network" in report.failures[0]
    assert {row.status for row in store.cells()} == {"failed"}


def test_an_attack_that_draws_for_its_batch_as_a_whole_is_not_halved(
    tiny_npz: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tiny_npz, checkpoints, "vanilla", ("art:FastGradientMethod",))
    [job] = plan.jobs
    model = trained(job, plan, checkpoints)
    Memory(64).put_on(monkeypatch)
    with pytest.raises(BenchError, match="halves would have other outcomes"):
        list(evaluate(model, plan.dataset, job.cells, device=CPU))


def test_another_error_is_not_taken_for_a_lack_of_memory(
    tiny_npz: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tiny_npz, checkpoints, "vanilla", ("fgsm",))
    [job] = plan.jobs
    model = trained(job, plan, checkpoints)
    Memory(64, RuntimeError).put_on(monkeypatch)
    monkeypatch.setattr(evaluation, "_make_room", lambda *_: pytest.fail("nothing to make room for"))
    with pytest.raises((BenchError, RuntimeError), match="out of memory"):
        list(evaluate(model, plan.dataset, job.cells, device=CPU))


@pytest.mark.parametrize(("defense", "attack"), [("vanilla", "pgd3"), ("vanilla", "sweep2"), ("nlif", "pgd2:eot=2")])
def test_chunks_attacked_together_come_out_as_each_alone(
    tiny_npz: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch, defense: str, attack: str
) -> None:
    plan = plan_of(tiny_npz, checkpoints, defense, (attack,))
    [job] = plan.jobs
    model = trained(job, plan, checkpoints)

    def seen(done: frozenset[int] = frozenset(), room: Room | None = None) -> dict[int, list[bytes]]:
        results = list(evaluate(model, plan.dataset, job.cells, device=CPU, done=done, room=room))
        passes.append((sum(r.forwards for r in results), sum(r.backwards for r in results)))
        return {r.start: [o.pack() for o in r.outcomes.values()] for r in results}

    passes: list[tuple[int, int]] = []
    alone = seen()
    monkeypatch.setattr(evaluation, "_chunks_at_once", lambda *_: 8)
    widths = []
    inner = evaluation.propose
    monkeypatch.setattr(evaluation, "propose", lambda m, x, *rest: widths.append(len(x)) or inner(m, x, *rest))  # type: ignore[func-returns-value]
    assert seen() == alone
    assert widths == [150]
    assert passes[0] == passes[1]
    # What is stored is not yielded again, and what is not comes out of the same span.
    assert seen(frozenset({0})) == {128: alone[128]}
    assert widths == [150, 150]
    room = Room()
    memory = Memory(140)
    memory.put_on(monkeypatch)
    assert seen(room=room) == alone
    assert (memory.failures, room.together, room.batch, widths[-2:]) == (1, False, 128, [128, 22])


def test_only_a_small_network_on_a_gpu_is_given_several_chunks(tiny_npz: Path, checkpoints: Path) -> None:
    plan = plan_of(tiny_npz, checkpoints, "vanilla", ("pgd3", "art:FastGradientMethod", "square5000"))
    [job] = plan.jobs
    model = trained(job, plan, checkpoints)
    gpu, at_once = torch.device("cuda"), evaluation._chunks_at_once
    short, art, long = ([cell for cell in job.cells if cell.attack.family == of] for of in ("pgd", "art", "square"))
    assert at_once(model, short, gpu) == 8
    assert at_once(model, short, CPU) == at_once(model, art, gpu) == at_once(model, long, gpu) == 1
    assert at_once(torch.nn.Linear(1000, 1001), short, gpu) == 1


def test_how_many_chunks_are_attacked_together_is_the_same_whatever_is_stored_already(
    tiny_npz: Path, checkpoints: Path
) -> None:
    plan = plan_of(tiny_npz, checkpoints, "nlif", ("pgd3", "pgd40", "pgd3000", "pgd3:eot=40", "pgd7:eot=40"))
    [job] = plan.jobs
    model = trained(job, plan, checkpoints)
    widths = []
    for group in job.trajectories:
        left = [group, *([cell] for cell in group)]
        [width] = {evaluation._chunks_at_once(model, cells, torch.device("cuda")) for cells in left}
        widths.append(width)
    assert sorted(widths) == [1, 8]


def test_where_less_than_a_chunk_fits_chunks_are_not_attacked_together(
    tiny_npz: Path, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(tiny_npz, checkpoints, "vanilla", ("pgd3",))
    [job] = plan.jobs
    model = trained(job, plan, checkpoints)
    monkeypatch.setattr(evaluation, "_chunks_at_once", lambda *_: 8)
    memory = Memory(64)
    memory.put_on(monkeypatch)
    room = Room()
    # As a task is given to the next worker where one was killed.
    room.batch = 64
    assert len(list(evaluate(model, plan.dataset, job.cells, device=CPU, room=room))) == 2
    assert memory.failures == 0


def test_all_that_was_computed_together_is_stored_before_a_run_stops(
    tiny_npz: Path, checkpoints: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(
        tiny_request(tiny_npz, defenses=("vanilla",), attacks=("pgd2", "pgd3"), n=150), checkpoints, checkpoints
    )
    [job] = plan.jobs
    store = Store(tmp_path / "bench.sqlite")
    model = network(job, plan.dataset, store, checkpoints, CPU, store.begin_run({}), Listener())
    monkeypatch.setattr(evaluation, "CHUNK", 32)
    monkeypatch.setattr(work, "CHUNK", 32)
    monkeypatch.setattr(evaluation, "_chunks_at_once", lambda *_: 3)
    seconds: dict[int, float] = {}
    inner = store.add_chunks

    def add_chunks(start: int, outcomes: object, forwards: int, backwards: int, took: float, **more: object) -> None:
        seconds[start] = took
        inner(start, outcomes, forwards, backwards, took, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "add_chunks", add_chunks)
    asked = iter([False, True])
    place = Place(store, CPU, store.begin_run({}), stop=lambda: next(asked))
    assert measure(model, plan.dataset, job.cells, place).stopped
    # Each is said to have taken its part of the time, from which estimates are made.
    assert [*seconds] == [0, 32, 64]
    assert seconds[0] == seconds[32] == seconds[64] > 0
    rest = measure(model, plan.dataset, job.cells, Place(store, CPU, store.begin_run({})))
    assert len(rest.rows) == 2
    assert [*seconds] == [0, 32, 64, 96, 128]
    assert seconds[96] / seconds[128] == pytest.approx(32 / 22)
