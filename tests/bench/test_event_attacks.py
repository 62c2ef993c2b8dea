"""Attacks on events propose, the harness recounts, frames again, scores and keeps."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import Run
from torch import Tensor, nn

from attacks.base import Attack
from attacks.events.base import EventCandidate
from attacks.events.edits import Edits
from attacks.events.lens import Lens
from attacks.events.threat import EventThreat
from bench.audit.cell import judge_cell
from bench.budgets import Budgets
from bench.data.dataset import Protocol
from bench.data.events import EventDataset, Labelled, Recordings, frames_dataset
from bench.edited import Pool
from bench.errors import BenchError
from bench.evaluation import Room, evaluate
from bench.outcome import Flag, Outcome
from bench.plan import Request, make_plan, recordings_hash
from bench.registry import ATTACKS, Entry
from bench.resolve import build_model, event_threat_of, parse_attack
from bench.respec import attack_from_json
from bench.spec import CellSpec, ModelSpec, Recipe, identity_of, key_of
from bench.statistics.edits import edit_summary
from events import Framing, Recording, Sensor
from models.neurons import NeuronSpec
from models.random import CounterRNG

CPU = torch.device("cpu")
SENSOR = Sensor(8, 8)
N = 24


def recording(seed: int) -> Recording:
    random = np.random.RandomState(seed)
    n = random.randint(60, 120)
    x, y = random.randint(0, 8, n), random.randint(0, 8, n)
    return Recording(x, y, np.sort(random.randint(0, 5000, n)), random.randint(0, 2, n), SENSOR)


@pytest.fixture(scope="module")
def data() -> EventDataset:
    labels = [number % 4 for number in range(N)]
    part = Labelled(Recordings(range(N), recording), labels)
    protocol = Protocol("cnn-small", Fraction(1, 10), Fraction(1, 10), Recipe(1, 8), N)
    return frames_dataset("made", part, part, tuple("abcd"), Framing(2, "number", 8, 8), "max", protocol)


def network(data: EventDataset, noisy: bool = False) -> tuple[nn.Module, ModelSpec]:
    neuron = NeuronSpec("nlif", params=(("noise_var", 0.4),)) if noisy else NeuronSpec()
    spec = ModelSpec("cnn-small", 4, data.in_shape, 2, neuron, data.mean, data.std, frames=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(spec).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.weight, 4.0)
    return model, spec


def cell(data: EventDataset, spec: ModelSpec, attack: str, eps: str, draws: int = 1) -> CellSpec:
    resolved = parse_attack(attack, eps)
    return CellSpec(
        "train:x", spec, data.test_hash, N, resolved, draws, 0, data.name, "vanilla", 0,
        recordings=recordings_hash(resolved, data),
    )  # fmt: skip


def measure(
    data: EventDataset, attack: str, eps: str, noisy: bool = False, batch: int = 128, draws: int = 1
) -> Outcome:
    model, spec = network(data, noisy)
    asked = cell(data, spec, attack, eps, draws)
    results = evaluate(model, data, [asked], device=CPU, room=Room(batch))
    return Outcome.concatenate([result.outcomes[asked] for result in results])


def stub(monkeypatch: pytest.MonkeyPatch, run: Any, **options: Any) -> None:
    """An attack of the name `stub` that does what it likes."""
    attack = Attack(run, "stub", domain="events", **options)
    monkeypatch.setitem(ATTACKS._entries, "stub", Entry("stub", attack, True))


def test_a_budget_of_nothing_is_no_attack(data: EventDataset) -> None:
    found = measure(data, "random-edits", "0")
    assert np.array_equal(found.last, found.clean)
    assert not (found.flags & (Flag.OUTSIDE | Flag.PLACEBO)).any()
    assert found.edits is not None
    assert found.edits[:, 0].tolist() == [len(recording(number)) for number in range(N)]
    assert not found.edits[:, 1:].any()


@pytest.mark.parametrize("noisy", [False, True])
def test_neither_memory_nor_a_second_time_changes_an_outcome(data: EventDataset, noisy: bool) -> None:
    name, draws = "random-edits:tries=2,max_shift=300", 3 if noisy else 1
    found = [measure(data, name, "0.5", noisy, batch, draws) for batch in (128, 128, 8)]
    assert found[0].pack() == found[1].pack() == found[2].pack()
    edits = found[0].edits
    assert edits is not None
    budget = edits[:, 0] // 2
    assert (edits[:, 1:].sum(1) <= budget).all()
    assert (edits[:, 1:].sum(1) >= budget - 3).all()
    assert (edits[:, 1:].sum(0) > 0).all()
    assert not np.array_equal(found[0].margin_last, found[0].margin_clean)


def test_edits_over_the_budget_make_a_cell_invalid(data: EventDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(
        model: nn.Module,
        recordings: Sequence[Recording],
        y: Tensor,
        threat: EventThreat,
        lens: Lens,
        *,
        rng: CounterRNG,
    ) -> EventCandidate:
        """One removal more than allowed, in every second recording."""
        made = []
        for number, one in enumerate(recordings):
            edits = Edits.none(one)
            edits.removed[: threat.edits(len(one)) + number % 2] = True
            made.append(edits.apply(one))
        return EventCandidate(tuple(made))

    stub(monkeypatch, greedy)
    found = measure(data, "stub", "0.1")
    assert (found.flags & Flag.OUTSIDE != 0).tolist() == [bool(number % 2) for number in range(N)]
    judged = judge_cell(found, 4, gradients=False)
    assert judged.verdict == "invalid"
    assert any(f.check == "edits" and f.verdict == "invalid" for f in judged.findings)


def test_what_an_attack_believes_of_its_frames_is_kept_apart(
    data: EventDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dreaming(
        model: nn.Module,
        recordings: Sequence[Recording],
        y: Tensor,
        threat: EventThreat,
        lens: Lens,
        *,
        rng: CounterRNG,
    ) -> EventCandidate:
        """Hands back the originals, and says that the network saw those of another class."""
        return EventCandidate(tuple(recordings), lens.frames(recordings).roll(1, 0) * 3)

    stub(monkeypatch, dreaming)
    found = measure(data, "stub", "0.1")
    assert np.array_equal(found.last, found.clean)
    assert not np.array_equal(found.best, found.clean)
    assert np.array_equal(found.robust_any, found.robust_last)
    summary = edit_summary(found)
    assert summary is not None
    assert summary.broken == 0
    assert math.isnan(summary.mean)
    assert summary.believed.value == pytest.approx(1 - (found.clean & found.best).sum() / found.clean.sum())
    assert summary.believed.value > 0


def test_the_network_is_scored_on_the_frames_of_the_edited_list(
    data: EventDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halving(
        model: nn.Module,
        recordings: Sequence[Recording],
        y: Tensor,
        threat: EventThreat,
        lens: Lens,
        *,
        rng: CounterRNG,
    ) -> EventCandidate:
        return EventCandidate(tuple(one.between(0, 2500) for one in recordings))

    stub(monkeypatch, halving)
    found, (model, _) = measure(data, "stub", "1"), network(data)
    frames = np.stack([data.framing.frames(recording(number).between(0, 2500)) for number in range(N)])
    with torch.no_grad():
        right = model(data.pixels(torch.from_numpy(frames))).argmax(1) == data.y_test
    assert np.array_equal(found.last[:, 0], right.numpy())
    assert found.edits is not None
    assert found.edits[:, 2].tolist() == [int((recording(k).t >= 2500).sum()) for k in range(N)]


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (lambda r, lens: r, "must return an EventCandidate of 24 recordings"),
        (lambda r, lens: EventCandidate(tuple(r[1:])), "EventCandidate of 24"),
        (lambda r, lens: EventCandidate(tuple(r), lens.frames(r)[:, :1]), "its frames were"),
        (lambda r, lens: 1 / 0, "failed: "),
    ],
)
def test_what_is_no_proposal_is_an_error(
    data: EventDataset, monkeypatch: pytest.MonkeyPatch, result: Any, words: str
) -> None:
    stub(monkeypatch, lambda model, recordings, y, threat, lens, *, rng: result(recordings, lens))
    with pytest.raises(BenchError, match=words):
        measure(data, "stub", "0.1")


def _widened(recordings: Sequence[Recording], threat: EventThreat, lens: Lens) -> Sequence[Recording]:
    object.__setattr__(threat, "eps", Fraction(10))
    return [Recording.empty(one.sensor) for one in recordings]


def _rescaled(recordings: Sequence[Recording], threat: EventThreat, lens: Lens) -> Sequence[Recording]:
    object.__setattr__(lens, "scale", 1)
    object.__setattr__(lens.framing, "T", 1)
    return recordings


def _overwritten(recordings: Sequence[Recording], threat: EventThreat, lens: Lens) -> Sequence[Recording]:
    for one in recordings:
        one.p.setflags(write=True)
        one.p[:] = 1 - one.p
    return recordings


def _broken(recordings: Sequence[Recording], threat: EventThreat, lens: Lens) -> Sequence[Recording]:
    for one in recordings:
        object.__setattr__(one, "p", one.p.astype(np.int16) - 1)
    return recordings


def _larger(recordings: Sequence[Recording], threat: EventThreat, lens: Lens) -> Sequence[Recording]:
    return [Recording(one.x, one.y, one.t, one.p, Sensor(16, 16)) for one in recordings]


@pytest.mark.parametrize("cheat", [_widened, _rescaled, _overwritten, _broken, _larger])
def test_what_an_attack_does_to_what_it_is_given_helps_it_nothing(
    data: EventDataset, monkeypatch: pytest.MonkeyPatch, cheat: Any
) -> None:
    def run(
        model: nn.Module, recordings: Any, y: Tensor, threat: EventThreat, lens: Lens, *, rng: CounterRNG
    ) -> EventCandidate:
        return EventCandidate(tuple(cheat(recordings, threat, lens)))

    honest = measure(data, "random-edits", "0")
    in_memory = replace(data, recordings_test=[recording(number) for number in range(N)])
    stub(monkeypatch, run)
    found = measure(in_memory, "stub", "0.05")
    legal = (found.flags & Flag.OUTSIDE) == 0
    assert np.array_equal(found.last[legal], honest.clean[legal])
    assert legal.all() == (cheat is _rescaled)
    # Nor does the next attack meet what this one left.
    assert measure(in_memory, "random-edits", "0").pack() == honest.pack()


def test_a_recording_that_changed_since_it_was_framed_is_an_error(data: EventDataset) -> None:
    changed = replace(data, recordings_test=[recording(max(number, 1)) for number in range(N)])
    with pytest.raises(BenchError, match="test recording 0 of 'made' is not what its frames were made of"):
        measure(changed, "random-edits", "0.1")


def test_an_attack_on_events_has_no_shared_trajectory() -> None:
    with pytest.raises(ValueError, match="once for each step count"):
        Attack(lambda: None, "stub", domain="events", takes_steps=True, shares_trajectory=True)


def test_a_model_that_the_attack_changed_is_put_back(data: EventDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def vandal(model: nn.Module, recordings: Sequence[Recording], *_: object, rng: CounterRNG) -> EventCandidate:
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return EventCandidate(tuple(recordings))

    stub(monkeypatch, vandal)
    with pytest.raises(BenchError, match="changed the model it attacks"):
        measure(data, "stub", "0.1")


def test_an_attack_that_asks_for_the_training_recordings_gets_them(
    data: EventDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []

    def looking(
        model: nn.Module,
        recordings: Sequence[Recording],
        y: Tensor,
        threat: EventThreat,
        lens: Lens,
        *,
        rng: CounterRNG,
    ) -> EventCandidate:
        seen.append(lens.pool)
        seen.append(list(lens.labels))
        return EventCandidate(tuple(recordings))

    stub(monkeypatch, looking, pool=True)
    measure(data, "stub", "0.1")
    assert isinstance(seen[0], Pool)
    assert seen[0][5] == (recording(5), 1)
    assert [label for _, label in seen[0][:5]] == [0, 1, 2, 3, 0]
    assert seen[1] == [label for _, label in seen[0]]
    assert recordings_hash(parse_attack("stub", "0.1"), data).endswith(f"+{data.train_recordings_hash}")


def test_keys_know_recordings_and_rules_and_nothing_of_others_changes(data: EventDataset) -> None:
    _, spec = network(data)
    plain = cell(data, spec, "random-edits", "0.1")
    assert "rules" not in identity_of(plain.attack)
    assert identity_of(plain)["recordings"] == data.test_recordings_hash
    assert "recordings" not in identity_of(cell(data, spec, "fgsm", "0.1"))
    ruled = cell(data, spec, "random-edits:max_shift=5", "0.1")
    assert identity_of(ruled.attack)["rules"] == "max_shift=5"
    other = replace(data, framing=Framing(2, "time", 8, 8))
    assert other.test_hash == data.test_hash
    assert len({key_of(one) for one in (plain, ruled, cell(other, spec, "random-edits", "0.1"))}) == 3


@pytest.mark.parametrize(
    "name",
    ["random-edits", "random-edits:tries=3", "random-edits:added=0.02,max_shift=500", "random-edits:tries=2,min_gap=0"],
)
def test_a_name_leads_back_to_its_attack(name: str) -> None:
    spec = parse_attack(name, "0.05")
    assert spec.name == name
    assert spec.norm == "events"
    assert attack_from_json(json.loads(json.dumps(identity_of(spec))), name=spec.name) == spec
    assert parse_attack(spec.name, "0.05", "events") == spec
    rules = "max_shift=500,added=0.02" if "shift" in name else ""
    if rules:
        assert parse_attack("random-edits", "0.05", overrides={"event_rules": rules}) == spec
        assert event_threat_of(spec) == EventThreat(Fraction("0.05"), added=Fraction("0.02"), max_shift=500)


def test_a_rule_of_one_attack_beats_the_rule_for_all() -> None:
    spec = parse_attack("random-edits:min_gap=7", "0.05", overrides={"event_rules": "min_gap=3,max_shift=2"})
    assert spec.rules == "max_shift=2,min_gap=7"


MIXED = ["fgsm", "random-edits"]
IDLE = ["clean", "random-edits"]


@pytest.mark.parametrize(
    ("attacks", "norm", "eps", "event_eps", "found"),
    [
        (MIXED, "linf", [], [], [("fgsm", "1/9", "linf"), ("random-edits", "0.05", "events")]),
        (MIXED, "l2", ["2"], ["3"], [("fgsm", "2", "l2"), ("random-edits", "3", "events")]),
        (["random-edits"], "linf", ["1", "2"], [], [("random-edits", "1", "events"), ("random-edits", "2", "events")]),
        (["random-edits"], "events", [], ["4"], [("random-edits", "4", "events")]),
        (["fgsm"], "linf", ["1"], [], [("fgsm", "1", "linf")]),
        (IDLE, "linf", ["1"], [], [("clean", "1/9", "linf"), ("random-edits", "1", "events")]),
        (IDLE, "events", [], ["4"], [("clean", "1/9", "linf"), ("random-edits", "4", "events")]),
        (IDLE, "linf", ["1"], ["4"], [("clean", "1", "linf"), ("random-edits", "4", "events")]),
        (["clean"], "l2", ["1"], [], [("clean", "1", "l2")]),
    ],
)
def test_each_kind_of_attack_has_its_own_budgets(
    attacks: list[str], norm: str, eps: list[str], event_eps: list[str], found: list[tuple[str, ...]]
) -> None:
    assert list(Budgets(norm, eps, event_eps).of(attacks, "1/9")) == found


@pytest.mark.parametrize(
    ("attacks", "norm", "eps", "event_eps", "words"),
    [
        (MIXED, "linf", ["0.1"], [], "give the latter its own, --event-eps"),
        (MIXED, "events", [], [], "'fgsm' does not edit events"),
        (["clean", *MIXED], "linf", ["0.1"], [], "of the frames for 'fgsm'"),
        (IDLE, "l2", ["1"], [], "--norm l2 has no effect on random-edits"),
        (MIXED, "l2", [], ["1"], "--norm l2 needs --eps"),
        (["fgsm"], "linf", [], ["1"], "--event-eps has no effect on fgsm"),
        (["random-edits"], "l2", ["1"], [], "--norm l2 has no effect on random-edits"),
        (["random-edits"], "linf", ["1"], ["1"], "--eps or --event-eps"),
    ],
)
def test_budgets_that_no_attack_can_have_are_refused(
    attacks: list[str], norm: str, eps: list[str], event_eps: list[str], words: str
) -> None:
    with pytest.raises(BenchError, match=words):
        list(Budgets(norm, eps, event_eps).of(attacks, "0.1"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dataset": "digits"}, "'digits' has none; give a dataset of event cameras"),
        ({"eps": ("11",)}, r"must lie in \[0, 10\], got 11"),
        ({"params": {"event_rules": "speed=1"}}, "event rule 'speed=1' must be one of"),
        ({"attacks": ("fgsm",), "params": {"event_rules": "min_gap=0"}}, "--event-rules min_gap=0 has no effect"),
    ],
)
def test_requests_that_cannot_be_met_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=words):
        make_plan(Request(**({"dataset": "digits-dvs", "attacks": ("random-edits",)} | change)), tmp_path, tmp_path)


def test_frames_without_recordings_have_nothing_to_edit(tmp_path: Path) -> None:
    counts = np.random.RandomState(0).randint(0, 3, (20, 2, 2, 8, 8)).astype(np.uint8)
    labels = np.arange(20) % 4
    np.savez(tmp_path / "mine.npz", x_train=counts, y_train=labels, x_test=counts, y_test=labels)
    request = Request(dataset=str(tmp_path / "mine.npz"), model="cnn-small", attacks=("random-edits",))
    with pytest.raises(BenchError, match="edits recordings of events, and 'mine' has none"):
        make_plan(request, tmp_path, tmp_path)


TINY = ("--dataset", "digits-dvs:T=2", "--epochs", "2", "--train-size", "300", "-n", "24")


def test_the_command_line_from_a_mixed_run_to_an_imported_cell(bench: Run, tmp_path: Path) -> None:
    attacks = ("-a", "fgsm,random-edits,random-edits:tries=2,max_shift=9000", "--event-eps", "0,0.3", "--workers", "2")
    run = bench("run", *TINY, *attacks, "--json")
    assert run.returncode == 0, run.stderr
    cells = {(c["attack"], c["eps"]): c for c in json.loads(run.stdout)["cells"]}
    assert len(cells) == 5
    assert cells["random-edits", "0"]["robust"] == cells["random-edits", "0"]["clean"]
    strong = cells["random-edits:tries=2,max_shift=9000", "3/10"]
    # So small a network may be at chance, which is suspect.
    assert strong["norm"] == "events"
    assert strong["verdict"] in ("ok", "suspect")
    assert strong["robust_any"] == strong["robust"]

    again = bench("run", *TINY, *attacks)
    assert "5 cells, all answered from the store" in " ".join(again.stdout.split())
    assert "linf and events" in again.stdout
    assert "framed again" in " ".join(again.stdout.split())

    shown = json.loads(bench("show", strong["key"], "--samples", "--json").stdout)
    assert all(0 < s["added"] + s["removed"] + s["moved"] <= 0.3 * s["events"] for s in shown["samples"])
    broken = [s for s in shown["samples"] if s["clean"] and not s["robust"]]
    assert shown["edits"]["broken"] == len(broken)
    assert shown["spec"]["attack"]["rules"] == "max_shift=9000"
    text = bench("show", strong["key"]).stdout
    assert "floor(0.3 n) edits" in text
    assert "own frames" in text
    assert "any iterate" not in text

    assert "eps is edits for each event" in " ".join(bench("table").stdout.split())
    table = bench("table", "--format", "csv").stdout.splitlines()
    assert "changed_share" in table[0]
    events = json.loads(bench("table", "events", "--json").stdout)
    assert {row["attack"] for row in events} == {"random-edits", "random-edits:tries=2,max_shift=9000"}
    lines = [line.split("|") for line in bench("table", "events", "--format", "md").stdout.splitlines() if "|" in line]
    assert len(lines) == 2 + 4
    line = {a.strip(): b.strip().replace("\\", "") for a, b in zip(lines[0], lines[-1], strict=True)}
    assert (line["attack"], line["eps"]) == (strong["attack"], "0.3")
    assert line["success"].split()[0] == f"{100 * len(broken) / sum(s['clean'] for s in shown['samples']):.1f}"
    share = np.mean([(s["added"] + s["removed"] + s["moved"]) / s["events"] for s in broken]) if broken else None
    assert line["changed, %"] == ("-" if share is None else f"{100 * share:.2f}")
    empty = bench("table", "events", "-a", "fgsm")
    assert (empty.returncode, "no finished cell of an attack on events" in empty.stderr) == (2, True)
    success = json.loads(bench("curve", "eps", "--success", "-a", "random-edits", "--json").stdout)
    assert {point["value"] for point in success if not point["x"]} == {0}
    curve = json.loads(bench("curve", "eps", "-a", "random-edits", "--json").stdout)
    assert [point["x"] for point in curve] == [0, 0, 0.3]
    assert curve[0]["value"] == curve[1]["value"] >= curve[2]["value"]
    exported = tmp_path / "all.json"
    assert bench("export", str(exported)).returncode == 0
    imported = bench("import", str(exported), "--store", str(tmp_path / "other.sqlite"))
    assert imported.returncode == 0, imported.stderr
    there = json.loads(bench("show", strong["key"], "--json", "--store", str(tmp_path / "other.sqlite")).stdout)
    assert there["edits"] == shown["edits"]

    repeat = bench("show", strong["key"], "--repeat").stdout
    assert "--norm events" in repeat
    assert "random-edits:tries=2,max_shift=9000" in repeat
    assert "--eps 0.3" in repeat


@pytest.mark.skipif("BENCH_TEST_DATA" not in os.environ, reason="set BENCH_TEST_DATA to a folder that holds NMNIST")
def test_real_recordings_are_edited_within_their_budget(bench: Run) -> None:
    folder = os.environ["BENCH_TEST_DATA"]
    run = bench(
        "run", "--dataset", "n-mnist:T=3,size=17", "--data-dir", folder, "--model", "cnn-small", "--epochs", "1",
        "-n", "20",
        "-a", "random-edits:max_shift=2000", "--eps", "0.1", "--json",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    (found,) = json.loads(run.stdout)["cells"]
    assert not found["flags"].get("OUTSIDE")
    samples = json.loads(bench("show", found["key"], "--samples", "--json").stdout)["samples"]
    assert all(0.09 * s["events"] <= s["added"] + s["removed"] + s["moved"] <= 0.1 * s["events"] for s in samples)
