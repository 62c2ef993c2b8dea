"""`bench show CELL --repeat`: the command plans the very cell, its run gives the very bits; else it says why not."""

import json
import shlex
import shutil
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import Run

from bench.again import attack_in_full, typed
from bench.cli.matrix import matrix_of
from bench.exchange.bundle import collect_bundle
from bench.exchange.merge import merge_bundle
from bench.outcome import Outcome
from bench.plan import Plan
from bench.registry import ATTACKS, DEFENSES
from bench.repetition import Repetition, fresh_folder, repetition
from bench.resolve import parse_attack
from bench.spec import CellSpec, identity_of, key_of
from bench.store import CellRow, Store

PLUGIN = """
from bench.registry import register
from defenses.base import Defense, Part
from dataclasses import dataclass, replace
from typing import ClassVar

@dataclass(frozen=True)
class Leaky(Part):
    name: ClassVar[str] = "leaky"
    slot: ClassVar[str] = "neuron"
    by: float = 0.5
    def neuron(self, spec):
        return replace(spec, decay=spec.decay * self.by)

@register.defense("leaky")
def leaky(by: float = 0.5):
    return Defense("leaky", (Leaky(by),))

@register.attack("nudge", takes_steps=True)
def nudge(model, x, y, threat, *, rng, steps, share: float = 0.5, up: bool = True):
    return (x + (1 if up else -1) * share * float(threat.eps)).clamp(0, 1)
"""
SMALL = "--epochs 1 --train-size 200 -n 40"


def plan_of(command: str) -> Plan:
    return matrix_of(command).plan()


def pretend(store: Store, command: str, **recorded: Any) -> list[CellRow]:
    """The cells of a command, stored as if they had been measured by it."""
    plan = plan_of(command)
    provenance = {"command": command, "device": "cpu (a machine)", "threads": 2, **recorded}
    run, rows = store.begin_run(provenance), []
    for job in plan.jobs:
        known = (
            {"file": str(job.weights_file), "model": identity_of(job.spec.model)}
            if job.weights_file else identity_of(job.spec)
        )  # fmt: skip
        store.record_weights(job.weights_key, "0" * 64, known, [], 1.0, run)
        for cell in job.cells:
            store.begin_cell(cell, run)
            for start in range(0, cell.n, 128):
                n = min(128, cell.n - start)
                seen, zeros = np.ones((n, cell.draws), bool), np.zeros(n, np.float32)
                outcome = Outcome(seen, seen, seen, zeros, zeros, zeros.astype(np.uint8))
                store.add_chunks(start, {cell: outcome}, 1, 1, 1.0)
            rows.append(store.finish_cell(cell))
    return rows


def asked(store: Store, row: CellRow) -> Repetition:
    return repetition(store, row, Path("no such folder"), plan_of)


def check_same(store: Store, rows: Sequence[CellRow]) -> None:
    assert rows
    for row in rows:
        found = asked(store, row)
        assert found.exact, found
        (cell,) = plan_of(found.command).cells
        assert key_of(cell) == row.key
        assert "--threads 2" in found.command


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for registry in (DEFENSES, ATTACKS):
        # What it registers is gone after the test.
        monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    path = tmp_path / "my plug-in.py"
    path.write_text(PLUGIN)
    return path


@pytest.mark.parametrize(
    "options",
    [
        "-d vanilla,at,rat,sr,mc,nlif,tgo -a pgd7",
        "-d tgo+at,mc:lam_max=0.6,delta=0.25+rat:beta=2e-3,steps=1,nlif:noise_var=0.16+at:eps=1/30 -a fgsm",
        "-a clean,fgsm,fgsm:loss=dlr,rfgsm,pgd3,pgd10,apgd5,apgd5:loss=dlr,sapgd4@assg,mtpgd3,square20,sweep3",
        "-a snn-standard,autoattack:version=plus,autoattack",
        "-d tgo -a pgd5,pgd5:eot=3,snn-standard,autoattack-rand,autoattack-rand:eot=2,clean,rfgsm",
        "-a pgd5@rga,pgd5@arctan:alpha=4,pgd5@assg:tolerance=0.9,pgd5@conversion,pgd5:alpha=1/7@bptr",
        "-a pgd5,fgsm --attack-surrogate arctan:alpha=3",
        "-a pgd5,pgd7 --alpha 0.013 --restarts 3 --no-random-start --iterate any",
        "-d vanilla,nlif -a pgd5,apgd5 --eot 4 --restarts 2 --iterate any --alpha 2/255",
        "-d vanilla,tgo -a pgd5,fgsm,clean --bf16 --train-bf16",
        "-a pgd5,clean,snn-standard --reference",
        "-a pgd5:arithmetic=fast,pgd5:alpha=0.01,arithmetic=fast@rga --reference",
        "-a pgd5:arithmetic=reference,pgd5:arithmetic=bf16",
        "-a pgd5,apgd5,fgsm --norm l2 --eps 0.5,1,7/3",
        "-a pgd5 --eps 8/255 --eps 0.1234567891 --eps 0 --eps 1/3",
        "-d nlif,vanilla -a pgd5 --draws 3 --attack-seed 11 --seed 5,6",
        "-a pgd5 -T 2 --decay 0.75 --surrogate arctan:alpha=3 --model cnn-medium --lr 0.031 --batch-size 17",
        "-a pgd5 --decay 1 --dataset digits4 --model tiny-wide",
        "--preset table4 --dataset digits --model cnn-small",
    ],
)
def test_the_command_plans_the_very_cell(store: Store, options: str) -> None:
    check_same(store, pretend(store, f"bench run {options} {SMALL}"))


def test_an_attack_of_another_library(store: Store) -> None:
    pytest.importorskip("art")
    attacks = "art:DeepFool:max_iter=7,art:FastGradientMethod,art:ProjectedGradientDescent:max_iter=3,norm=inf"
    check_same(store, pretend(store, f"bench run -d vanilla,nlif -a {attacks} --eot 2 {SMALL}"))


def test_parts_and_images_of_one_s_own(store: Store, plugin: Path, tiny_npz: Path, tmp_path: Path) -> None:
    copy = shutil.copy(tiny_npz, tmp_path / "my images.npz")
    words = ["--dataset", str(copy), "--plugin", str(plugin), "--decay", "0.8"]
    options = "-d leaky:by=0.25+mc,leaky,vanilla -a nudge3:share=0.125,up=false,nudge3,pgd3 --epochs 1"
    # The defense halves the decay that was typed, so that only the command knows it.
    rows = pretend(store, f"bench run {shlex.join(words)} {options}")
    check_same(store, rows)
    assert {row.dataset for row in rows} == {"my images"}


@pytest.mark.parametrize(
    "text",
    [
        "pgd7", "pgd7:alpha=1/3,early_stop=true@rga", "apgd9:loss=dlr,restarts=3", "fgsm@arctan:alpha=4",
        "clean", "mtpgd5:targets=2,eot=3", "snn-standard", "autoattack:version=plus", "square30:arithmetic=reference",
        "pgd5:random_start=false,loss=margin",
    ],
)  # fmt: skip
def test_an_attack_written_in_full_is_the_attack(text: str) -> None:
    spec = parse_attack(text, "1/30")
    if spec.family == "snn-standard":
        spec = replace(spec, eot=3)
    # As it comes back from a store.
    written = attack_in_full(json.loads(json.dumps(identity_of(spec))))
    assert identity_of(parse_attack(written, "1/30")) == identity_of(spec)


def test_a_name_that_means_something_else_today_is_written_out(store: Store) -> None:
    (row,) = pretend(store, f"bench run -a pgd5:alpha=0.02 {SMALL}")
    found = repetition(store, replace(row, attack="pgd5"), Path(), plan_of)
    assert found.exact
    assert "alpha=1/50" in found.command
    assert key_of(plan_of(found.command).cells[0]) == row.key


FRACTIONS = st.fractions(min_value=0, max_value=1, max_denominator=10**6)
SOME_ATTACKS = st.builds(
    lambda head, params, gradient: head + (":" + ",".join(params) if params else "") + gradient,
    st.sampled_from(["pgd1", "pgd13"]),
    st.lists(
        st.one_of(
            st.builds("alpha={}".format, FRACTIONS),
            st.builds("restarts={}".format, st.integers(1, 4)),
            st.builds("eot={}".format, st.integers(1, 4)),
            st.sampled_from(["random_start=false", "early_stop=true", "loss=margin", "loss=ce", "arithmetic=bf16"]),
        ),
        unique_by=lambda param: param.partition("=")[0],
    ),
    st.sampled_from(["", "@rga", "@sigmoid", "@arctan:alpha=2.5", "@assg:tolerance=0.75"]),
)
SOME_DEFENSES = st.sampled_from(
    ["vanilla", "at:steps=3", "nlif", "tgo:penalty=quadratic,noise_var=0.1+rat", "sr:h=0.02", "mc:delta=0.3"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    defense=SOME_DEFENSES,
    attack=SOME_ATTACKS,
    eps=FRACTIONS,
    options=st.fixed_dictionaries(
        {},
        optional={
            "-n": st.integers(1, 50),
            "--draws": st.integers(1, 7),
            "--attack-seed": st.integers(-5, 5),
            "--seed": st.integers(0, 9),
            "--lr": st.floats(1e-9, 9, allow_subnormal=False),
            "--decay": st.floats(0, 1),
            "--surrogate": st.sampled_from(["arctan", "triangular:gamma=0.7", "rectangular"]),
            "-T": st.integers(1, 6),
            "--epochs": st.integers(1, 900),
            "--batch-size": st.integers(2, 900),
            "--train-size": st.sampled_from([0, 98, 1000]),
        },
    ),
)
def test_whatever_is_typed_comes_back(tmp_path_factory: Any, defense: str, attack: str, eps: Any, options: Any) -> None:
    opened = Store(tmp_path_factory.mktemp("any") / "bench.sqlite")
    words = [word for name, value in options.items() for word in (name, str(value))]
    command = shlex.join(["bench", "run", "-d", defense, "-a", attack, "--eps", str(eps), *words])
    try:
        check_same(opened, pretend(opened, command))
    finally:
        opened.close()


def chunks(file: Path) -> dict[tuple[str, int], bytes]:
    with sqlite3.connect(file) as connection:
        rows = connection.execute("SELECT cell_key, start, outcome FROM chunks").fetchall()
        return {(key, start): packed for key, start, packed in rows}


def check_bits(bench: Run, folder: Path, results: str = "results") -> None:
    """Run what `show --repeat` prints for each cell, as it is printed, and compare what is stored."""
    before = chunks(folder / results / "bench.sqlite")
    assert before
    for key in sorted({key for key, _ in before}):
        shown = bench("show", key, "--repeat", "--results", results, cwd=folder)
        assert shown.returncode == 0, shown.stderr + shown.stdout
        assert not shown.stderr
        words = shlex.split(shown.stdout)
        done = bench(*words[1:], cwd=folder)
        # An invalid cell ends with 1; its bits are what counts.
        assert "Stored in" in done.stdout, done.stderr
        after = chunks(folder / words[words.index("--results") + 1] / "bench.sqlite")
        assert after == {place: packed for place, packed in before.items() if place[0] == key}


@pytest.mark.parametrize(
    "options",
    [
        "-d at -a pgd3,pgd6 --iterate any --restarts 2 -n 150",
        "-d tgo+at -a pgd3:eot=2@rga --draws 3 --attack-seed 4 --seed 2 -n 40",
        "-d rat -a apgd3:loss=dlr --norm l2 --eps 1/3 -T 2 --surrogate arctan --train-bf16 -n 40 --threads 1",
    ],
)
def test_running_it_gives_the_very_bits(bench: Run, tmp_path: Path, options: str) -> None:
    done = bench("run", *options.split(), "--epochs", "1", "--train-size", "300")
    assert "Stored in" in done.stdout, done.stderr
    check_bits(bench, tmp_path)


def test_weights_and_parts_from_files_give_the_very_bits(
    bench: Run, tmp_path: Path, tiny_npz: Path, plugin: Path
) -> None:
    own = ["--dataset", tiny_npz, "--model", "cnn-small", "--plugin", plugin, "-a", "nudge2"]
    done = bench("run", *own, "-d", "leaky", "--epochs", "2", "--results", "first")
    assert "Stored in" in done.stdout, done.stderr
    (file,) = (tmp_path / "first" / "checkpoints").glob("*.safetensors")
    shutil.copy(file, tmp_path / "my weights.safetensors")
    assert "Stored in" in bench("run", *own, "--weights", "my weights.safetensors").stdout
    check_bits(bench, tmp_path, "first")
    check_bits(bench, tmp_path)


def older(store: Store, change: Any) -> CellRow:
    """A finished cell that another version stored."""
    (cell,) = plan_of(f"bench run -d nlif -a pgd5 {SMALL}").cells
    run = store.begin_run({"command": f"bench run -d nlif -a pgd5 {SMALL}", "device": "cpu (x)", "threads": 2})
    (job,) = plan_of(f"bench run -d nlif -a pgd5 {SMALL}").jobs
    store.record_weights(cell.weights, "0" * 64, identity_of(job.spec), [], 1.0, run)
    old: CellSpec = change(cell)
    store.begin_cell(old, run)
    seen, zeros = np.ones((old.n, old.draws), bool), np.zeros(old.n, np.float32)
    store.add_chunks(0, {old: Outcome(seen, seen, seen, zeros, zeros, zeros.astype(np.uint8))}, 1, 1, 1.0)
    return store.finish_cell(old)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda cell: replace(cell, version=0), "evaluation version 0 then, 1 now"),
        (lambda cell: replace(cell, noise_version=1), "noise version 1 then, 2 now"),
        (lambda cell: replace(cell, attack=replace(cell.attack, version=0)), "attack pgd5: version 0 then, 1 now"),
        (lambda cell: replace(cell, test_hash="other"), "the test images of 'digits' are not those of then"),
        (lambda cell: replace(cell, model=replace(cell.model, fingerprint="ab")), "the code behind model cnn-small"),
    ],
)
def test_what_an_older_version_stored_is_not_the_same(store: Store, change: Any, said: str) -> None:
    found = asked(store, older(store, change))
    assert not found.exact
    assert said in "; ".join(found.why)
    assert found.command.startswith("bench run -d nlif -a pgd5 ")


def test_another_training_is_said_to_be_one(store: Store) -> None:
    (row,) = pretend(store, f"bench run -a pgd5 {SMALL}")
    with sqlite3.connect(store.target) as connection:
        connection.execute("UPDATE weights SET spec = json_set(spec, '$.version', 0, '$.recipe.momentum', 0.8)")
        connection.execute("UPDATE weights SET key = 'train:0'")
        connection.execute(
            "UPDATE cells SET key = '0', weights_key = 'train:0', spec = json_set(spec, '$.weights', 'train:0')"
        )
    assert row.key != "0"
    found = asked(store, store.cell("0"))
    assert not found.exact
    assert "training: version 0 then, 1 now" in found.why
    assert "training: momentum 0.8 then, 0.9 now" in found.why


def test_what_a_file_says_that_is_gone_or_has_changed(bench: Run, tmp_path: Path, tiny_npz: Path, plugin: Path) -> None:
    data = shutil.copy(tiny_npz, tmp_path / "mine.npz")
    first = ["--dataset", "mine.npz", "--epochs", "1", "--plugin", plugin, "-d", "leaky", "-a", "nudge2"]
    assert "Stored in" in bench("run", *first).stdout
    (file,) = (tmp_path / "results" / "checkpoints").glob("*.safetensors")
    shutil.move(file, tmp_path / "w.safetensors")
    given = ["--dataset", "mine.npz", "--weights", "w.safetensors", "-d", "leaky", "--plugin", plugin, "-a", "clean"]
    assert "Stored in" in bench("run", *given, "--results", "given").stdout

    def why(results: str = "results") -> str:
        key = json.loads(bench("ls", "runs", "--json", "--results", results).stdout)[0]["key"]
        done = bench("show", key, "--repeat", "--results", results)
        assert done.stdout.startswith("bench run -d leaky")
        assert done.stdout.count("\n") == 1
        assert (done.returncode == 0) == (not done.stderr)
        if results == "given":
            told = json.loads(bench("show", key, "--repeat", "--json", "--results", results).stdout)
            assert told["command"] == done.stdout.strip()
            assert told["exact"] == (not told["why"]) == (not done.stderr)
        return done.stderr

    assert why() == why("given") == ""
    source = plugin.read_text()
    plugin.write_text(source + "# changed\n")
    assert "the code behind" in why()
    plugin.rename(tmp_path / "gone.py")
    assert why() == f"this command cannot give the same bits: plug-in file '{plugin}' does not exist\n"
    plugin.write_text(source)
    assert why() == ""
    arrays = dict(np.load(data))
    np.savez(data, **{**arrays, "x_test": arrays["x_test"][::-1]})
    assert "the test images of 'mine' are not those of then" in why()
    Path(data).unlink()
    assert "no dataset file 'mine.npz'" in why()
    np.savez(data, **arrays)
    (tmp_path / "w.safetensors").unlink()
    assert "'w.safetensors'" in why("given")
    assert "Stored in" in bench("run", *first, "--seed", "9", "--results", "other").stdout
    (other,) = (tmp_path / "other" / "checkpoints").glob("*.safetensors")
    shutil.copy(other, tmp_path / "w.safetensors")
    assert "'w.safetensors' holds other weights than then" in why("given")


def test_nothing_of_an_imported_cell_is_run(store: Store, tmp_path: Path) -> None:
    there = Store(tmp_path / "there.sqlite")
    evil = tmp_path / "evil.py"
    evil.write_text("raise SystemExit('was run')")
    (row,) = pretend(there, f"bench run -a pgd5 {SMALL}")
    with sqlite3.connect(there.target) as connection:
        command = f"bench run --plugin {evil} -a pgd5"
        connection.execute("UPDATE runs SET provenance = json_set(provenance, '$.command', ?)", (command,))
    merge_bundle(store, collect_bundle(there, [row]), note={"file": "theirs.json"})
    there.close()
    found = asked(store, store.cell(row.key))
    assert not found.exact
    assert found.why == ("the cell was imported from theirs.json, so its bits are another machine's",)
    assert f"--plugin {evil}" in found.command


def test_a_cell_that_was_not_finished_has_no_bits(store: Store) -> None:
    (cell,) = plan_of(f"bench run -a pgd5 {SMALL}").cells
    run = store.begin_run({"command": f"bench run -a pgd5 {SMALL}", "device": "cpu (x)", "threads": 2})
    (job,) = plan_of(f"bench run -a pgd5 {SMALL}").jobs
    store.record_weights(cell.weights, "0" * 64, identity_of(job.spec), [], 1.0, run)
    store.begin_cell(cell, run)
    found = asked(store, store.cell(key_of(cell)))
    assert not found.exact
    assert found.why == ("the cell is running, so there are no bits to repeat",)


def test_what_is_not_downloaded_is_not_judged(store: Store, tmp_path: Path) -> None:
    (row,) = pretend(store, f"bench run -a pgd5 {SMALL} --data-dir {tmp_path / 'nothing'}")
    found = repetition(store, replace(row, dataset="cifar10"), Path(), lambda _: pytest.fail("it was planned"))
    assert not found.exact
    assert "cifar10 is not in" in found.why[0]
    assert not (tmp_path / "nothing").exists()


def test_circumstances_that_differ_are_noted(store: Store, tmp_path: Path) -> None:
    recorded = {"packages": {"torch": "0.4"}, "commit": "a" * 40, "dirty": False, "threads": 3}
    (row,) = pretend(store, f"bench run -a pgd5 {SMALL}", **recorded)
    job = plan_of(f"bench run -a pgd5 {SMALL}").jobs[0]
    sidecar = tmp_path / "checkpoints" / f"{key_of(job.spec)[:16]}.json"
    sidecar.parent.mkdir()
    elsewhere = {**recorded, "device": "A GPU", "threads": 7}
    sidecar.write_text(json.dumps({"weights_sha256": "0" * 64, "provenance": elsewhere}))
    found = repetition(store, row, tmp_path, plan_of)
    assert found.exact
    said = "\n".join(found.notes)
    assert "device: the network was trained with A GPU and attacked with cpu (a machine)" in said
    assert "threads: the network was trained with 7 threads and attacked with 3 threads" in said
    assert "torch: recorded is 0.4, here is " in said
    assert f"code: recorded is commit {'a' * 12}, here is " in said
    assert "--threads 7" in found.command
    # Another network's file says nothing.
    sidecar.write_text(json.dumps({"weights_sha256": "1" * 64, "provenance": elsewhere}))
    assert "A GPU" not in "\n".join(repetition(store, row, tmp_path, plan_of).notes)


def test_options_as_they_were_typed() -> None:
    origin = {"command": "bench run --plugin a.py --plugin='b c.py' --decay=0.5 --plugin"}
    assert typed(origin, "--plugin") == ["a.py", "b c.py"]
    assert typed(origin, "--decay") == ["0.5"]
    assert typed({"command": "bench 'unclosed"}, "--plugin") == typed({}, "--plugin") == []


def test_a_folder_that_is_not_there_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert fresh_folder("again") == "again"
    (tmp_path / "again").mkdir()
    (tmp_path / "again-2").write_text("")
    assert fresh_folder("again") == "again-3"


def test_samples_and_a_command_are_two_things(bench: Run) -> None:
    done = bench("show", "ab", "--repeat", "--samples")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --samples shows")
