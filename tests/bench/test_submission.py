"""Submissions: an honest one is taken up, and no other."""

import base64
import hashlib
import json
import shlex
import shutil
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from measuring import measure
from support import Run

from bench import evaluation
from bench.audit.finding import Finding
from bench.audit.spec import AuditSpec
from bench.canonical import canonical_json
from bench.data.digits import load
from bench.errors import BenchError
from bench.evidence.stored import stored_cell, stored_network
from bench.exchange.merge import merge_bundle
from bench.leaderboard.claims import cut
from bench.leaderboard.rank import boards
from bench.leaderboard.site.build import write_site
from bench.leaderboard.submission import keep_weights, read_submission, write_submission
from bench.leaderboard.verify import verify
from bench.outcome import Outcome
from bench.plan import Request
from bench.selection import chosen_cells
from bench.store import Store

CPU = torch.device("cpu")
E = dict[str, Any]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another laboratory's results on a dataset that everybody has."""
    results = tmp_path_factory.mktemp("theirs")
    recipe = {"epochs": 1, "train_size": 200}
    attacks = ("clean", "fgsm", "pgd3")
    measure(results, Request(defenses=("vanilla", "nlif"), attacks=attacks, recipe=recipe, n=200))
    return results


@pytest.fixture
def honest(theirs: Path, tmp_path: Path) -> Path:
    store = Store(theirs / "bench.sqlite")
    path = tmp_path / "honest.zip"
    write_submission(path, store, store.cells(), theirs / "checkpoints", {"by": "A Lab", "url": "https://example.org"})
    return path


def rewritten(source: Path, change: Callable[[E, dict[str, bytes]], None]) -> Path:
    with zipfile.ZipFile(source) as archive:
        entry = json.loads(archive.read("entry.json"))
        others = {name: archive.read(name) for name in archive.namelist() if name != "entry.json"}
    change(entry, others)
    target = source.with_name("changed.zip")
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("entry.json", json.dumps(entry))
        for name, data in others.items():
            archive.writestr(name, data)
    return target


def test_an_honest_one_reproduces_bit_for_bit(honest: Path, tmp_path: Path) -> None:
    submission = read_submission(honest)
    assert submission.about == {"by": "A Lab", "url": "https://example.org"}
    reruns = verify(submission, tmp_path, CPU, sample=0)
    # Two networks, two attacks, two chunks.
    assert len(reruns) == 8
    assert sum(rerun.images for rerun in reruns) == 800
    assert not any(rerun.differing for rerun in reruns)
    few = verify(submission, tmp_path, CPU, sample=3, seed=1)
    assert len({rerun.key for rerun in few}) == 3


def test_chunks_that_are_attacked_together_are_verified_together(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    inner = evaluation.propose
    monkeypatch.setattr(evaluation, "propose", lambda m, x, *rest: sizes.append(len(x)) or inner(m, x, *rest))  # type: ignore[func-returns-value]
    monkeypatch.setattr(evaluation, "_chunks_at_once", lambda *_: 8)
    reruns = verify(read_submission(honest), tmp_path, CPU, sample=0)
    assert sizes == [200] * 4
    assert len({(rerun.key, rerun.start) for rerun in reruns}) == 8
    assert not any(rerun.differing for rerun in reruns)


def better(entry: E, others: dict[str, bytes], images: int = 200) -> None:
    """Claim that images stand which do not."""
    for cell in entry["cells"]:
        outcome = Outcome.unpack(base64.b64decode(cell["outcome"]))
        last = outcome.last.copy()
        last[np.flatnonzero(~last.all(1))[:images]] = True
        cell["outcome"] = base64.b64encode(replace(outcome, last=last).pack()).decode()


def swapped(entry: E, others: dict[str, bytes]) -> None:
    one, two = sorted(others)
    others[one], others[two] = others[two], others[one]


def relabelled(entry: E, others: dict[str, bytes]) -> None:
    """Weights that the cells were not measured on."""
    keys = sorted(entry["weights"])
    one, two = (entry["weights"][key]["sha256"] for key in keys)
    others[f"weights/{one}.safetensors"] = others[f"weights/{two}.safetensors"]


def smaller_eps(entry: E, others: dict[str, bytes]) -> None:
    for cell in entry["cells"]:
        cell["spec"]["attack"]["eps"] = "1/1000"


def pickled(entry: E, others: dict[str, bytes]) -> None:
    for name in others:
        others[name] = b"\x80\x04" + others[name]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (better, "not reproduced"),
        (swapped, "not those that its cells name|holds another architecture"),
        (relabelled, "not those that its cells name|holds another architecture"),
        (smaller_eps, "not what its key says"),
        (pickled, "pickle|not a readable safetensors"),
        (lambda entry, others: others.clear(), "lacks weights"),
        (lambda entry, others: entry.update(cells=[]), "lacks cells"),
        (lambda entry, others: others.update({"../../evil.py": b"x"}), "which no submission holds"),
        (lambda entry, others: others.update({"weights/x.pkl": b"x"}), "which no submission holds"),
        (lambda entry, others: entry.update(format="x"), "is not a file of results"),
    ],
)
def test_a_dishonest_one_is_refused(
    honest: Path, tmp_path: Path, change: Callable[[E, dict[str, bytes]], None], complaint: str
) -> None:
    path = rewritten(honest, change)
    with pytest.raises(BenchError, match=complaint) as refused:
        verify(read_submission(path), tmp_path, CPU, sample=4, seed=0)
    assert "\n" not in str(refused.value)


def rekeyed(entry: E) -> None:
    """Whoever edits a specification can compute its key, too."""
    for cell in entry["cells"]:
        cell["key"] = hashlib.sha256(canonical_json(cell["spec"]).encode()).hexdigest()


def cells(entry: E, defense: str, attack: str) -> list[E]:
    return [c for c in entry["cells"] if c["labels"]["defense"] == defense and c["labels"]["attack"] == attack]


def called_stronger(entry: E, others: dict[str, bytes]) -> None:
    """One step that passes for forty."""
    for cell in cells(entry, "vanilla", "fgsm"):
        cell["labels"]["attack"] = "pgd40"


def called_another_defense(entry: E, others: dict[str, bytes]) -> None:
    for cell in entry["cells"]:
        cell["labels"]["defense"] = "tgo+at"


def narrow_box(entry: E, others: dict[str, bytes]) -> None:
    """A weaker attack of the same name: pixels may only move in the middle of their range."""
    for cell in entry["cells"]:
        cell["spec"]["attack"] |= {"low": 0.4, "high": 0.6}
    rekeyed(entry)


def brings_code(entry: E, others: dict[str, bytes]) -> None:
    """A model that is a file: whoever checks the entry would run it."""
    for cell in entry["cells"]:
        cell["spec"]["model"]["name"] = cell["labels"]["model"] = "evil.py:build"
    rekeyed(entry)


def not_sampled(entry: E, others: dict[str, bytes]) -> None:
    """An attack that is unknown here, in a single cell."""
    cells(entry, "nlif", "fgsm")[0]["spec"]["attack"]["family"] = "private"
    rekeyed(entry)


def flags_changed(entry: E, others: dict[str, bytes]) -> None:
    for cell in entry["cells"]:
        outcome = Outcome.unpack(base64.b64decode(cell["outcome"]))
        flags = np.where(outcome.flags, 0, 2).astype(np.uint8)
        cell["outcome"] = base64.b64encode(replace(outcome, flags=flags).pack()).decode()


def other_clean(entry: E, others: dict[str, bytes]) -> None:
    """The cell without attack is never attacked again."""
    for cell in cells(entry, "vanilla", "clean"):
        outcome = Outcome.unpack(base64.b64decode(cell["outcome"]))
        always = np.ones_like(outcome.clean)
        cell["outcome"] = base64.b64encode(replace(outcome, clean=always, last=always).pack()).decode()


def borrowed_recipe(entry: E, others: dict[str, bytes]) -> None:
    """Weights under the name of a training that they did not have."""
    for old in list(entry["weights"]):
        known = entry["weights"].pop(old)
        known["spec"]["recipe"]["epochs"] = 300
        entry["weights"][old] = known


def bomb(entry: E, others: dict[str, bytes]) -> None:
    head = np.array([1, 4_000_000_000, 1], "<u4").tobytes()
    entry["cells"][0]["outcome"] = base64.b64encode(head + zlib.compress(bytes(1_000_000))).decode()


def escape_sequence(entry: E, others: dict[str, bytes]) -> None:
    entry["cells"][0]["labels"]["defense"] = "\x1b[2J"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (called_stronger, "is called 'pgd40' and is not what that attack is here"),
        (called_another_defense, "was trained as something else"),
        (narrow_box, "is not what that attack is here"),
        (brings_code, "may use registered models only"),
        (not_sampled, "attack 'private' is not known here"),
        (flags_changed, "not reproduced"),
        (other_clean, "other clean predictions"),
        (borrowed_recipe, "are not what their name says"),
        (bomb, "would unpack to more than"),
        (escape_sequence, "printable characters"),
        (lambda entry, others: entry["cells"][0]["labels"].update(seed="0"), "are integers|not text and a number"),
        (lambda entry, others: entry["cells"][0]["labels"].update(seed=7), "its weights are of seed 0"),
        (lambda entry, others: others.update({f"weights/{'0' * 64}.safetensors": b"x"}), "which no cell names"),
    ],
)
def test_what_a_sample_would_miss_is_checked_in_every_cell(
    honest: Path, tmp_path: Path, change: Callable[[E, dict[str, bytes]], None], complaint: str
) -> None:
    path = rewritten(honest, change)
    with pytest.raises(BenchError, match=complaint) as refused:
        verify(read_submission(path), tmp_path, CPU, sample=1, seed=0)
    assert "\n" not in str(refused.value)


def test_what_cannot_be_checked_breaks_no_page(honest: Path, tmp_path: Path) -> None:
    """Provenance of any type: one submission must not cost everybody the leaderboard."""

    def rubbish(entry: E, others: dict[str, bytes]) -> None:
        entry["about"] |= {"by": "A\x1b[2J\nLab", "more": "x" * 10_000, "url": ["a"]}
        for cell in entry["cells"]:
            cell["provenance"] = {
                "packages": ["torch"],
                "commit": 7,
                "device": None,
                "started": "2026-01-01",
                "x": [[]],
            }
            cell["updated"] = "2999-01-01T00:00:00"

    submission = read_submission(rewritten(honest, rubbish))
    assert submission.about == {"by": "A [2J Lab"}
    store = Store(tmp_path / "bench.sqlite")
    merge_bundle(store, cut(submission.bundle), note={"submission": dict(submission.about)})
    found = boards(store, store.cells())
    assert {entry.submitted["by"] for board in found for entry in board.entries} == {"A [2J Lab"}
    index = write_site(found, store, tmp_path / "site")
    assert "A [2J Lab" in index.read_text()
    assert all(row.updated.year < 2999 for row in store.cells())
    broken = rewritten(honest, lambda entry, others: entry["cells"][0].update(seconds=-1))
    with pytest.raises(BenchError, match="claims a cost"):
        cut(read_submission(broken).bundle)


def test_a_submission_moves_nobody_elses_numbers(theirs: Path, honest: Path, tmp_path: Path) -> None:
    """One of our recipe with another seed is an entry of its own: nobody knows how its weights were trained."""
    results = tmp_path / "results"
    recipe = {"epochs": 1, "train_size": 200}
    ours = Request(defenses=("vanilla",), attacks=("fgsm", "pgd3"), recipe=recipe, n=200, seeds=(1,))
    measure(results, ours)
    store = Store(results / "bench.sqlite")
    before = boards(store, store.cells())[0].entries[0]
    submission = read_submission(honest)
    note = {"sha256": "0", "submission": dict(submission.about)}
    merge_bundle(store, cut(submission.bundle), note=note)
    keep_weights(submission, results / "checkpoints")
    board = next(board for board in boards(store, store.cells()) if board.division == "deterministic")
    assert [entry.defense for entry in board.entries] == ["vanilla", "vanilla"]
    mine = next(entry for entry in board.entries if not entry.submitted)
    assert (mine.worst, mine.slug) == (before.worst, before.slug)
    # What it brought can be looked into: its weights lie here.
    row = next(row for row in store.cells() if row.seed == 0 and row.attack == "pgd3")
    assert stored_network(stored_cell(row), store, results / "checkpoints", CPU) is not None
    # Attacking theirs further here does not make it ours.
    again = tmp_path / "again.zip"
    mine_again = [row for row in store.cells() if row.seed == 0]
    write_submission(again, store, mine_again, results / "checkpoints", {"by": "x"})
    assert read_submission(again).weights.keys() == submission.weights.keys()


def test_an_audit_of_the_kept_weights_reaches_the_entry(bench: Run, honest: Path, tmp_path: Path) -> None:
    taken = bench("leaderboard", "add", honest, "--store", "mine.sqlite", "--sample", "1")
    assert taken.returncode == 0, taken.stderr
    commands = [shlex.split(line)[1:] for line in taken.stdout.splitlines() if line.startswith("  bench audit")]
    assert len(commands) == 2
    store = Store(tmp_path / "mine.sqlite")

    def reasons() -> dict[str, tuple[str, ...]]:
        return {entry.defense: entry.reasons for board in boards(store, store.cells()) for entry in board.entries}

    assert all("unaudited" in each for each in reasons().values())
    (plain,) = [command for command in commands if "vanilla" in command]
    done = bench(*plain, "-n", "8")
    assert "8 images" in done.stdout, done.stderr
    after = reasons()
    assert "unaudited" not in after["vanilla"]
    assert "unaudited" in after["nlif"]


@pytest.mark.parametrize("verdict", ["suspect", "invalid"])
def test_what_an_audit_of_a_submission_finds_is_its_verdict(honest: Path, tmp_path: Path, verdict: str) -> None:
    store, submission = Store(tmp_path / "bench.sqlite"), read_submission(honest)
    merge_bundle(store, cut(submission.bundle), note={"submission": dict(submission.about)})
    row = next(row for row in store.cells() if (row.defense, row.attack) == ("vanilla", "pgd3"))
    known, cell = store.weights(row.weights_key), stored_cell(row)
    assert known is not None
    name = f"file:{known['sha256']}"
    run = store.begin_run({})
    store.record_weights(name, known["sha256"], {"file": "kept.safetensors"}, [], None, run)
    spec = AuditSpec(name, cell.model, cell.test_hash, 128, "linf", cell.attack.eps)
    store.record_audit(spec, verdict, [Finding("nan", verdict, 0.2, 0.0, "NaN logits")], 1.0, run)
    board = next(board for board in boards(store, store.cells()) if board.division == "deterministic")
    (entry,) = board.entries
    assert entry.verdict == verdict
    assert (entry.rank is None) == (verdict == "invalid")
    assert all(row.audit is None for row in store.cells(defense="nlif"))


def test_one_flipped_image_of_a_whole_rerun_is_seen(honest: Path, tmp_path: Path) -> None:
    path = rewritten(honest, lambda entry, others: better(entry, others, images=1))
    with pytest.raises(BenchError, match="not reproduced"):
        verify(read_submission(path), tmp_path, CPU, sample=0, tolerance=0.0)


def test_other_data_and_other_versions_are_refused(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench.leaderboard.checks as module

    submission = read_submission(honest)
    digits = load(tmp_path)
    other = replace(digits, x_test=digits.x_test.flip(0), y_test=digits.y_test.flip(0))
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_dataset", lambda name, data_dir: other)
        with pytest.raises(BenchError, match="are not those that the cells were measured on"):
            verify(submission, tmp_path, CPU)
    with monkeypatch.context() as patch:
        known = module.ATTACKS.get
        patch.setattr(module.ATTACKS, "get", lambda name: replace(known(name), version=99))
        with pytest.raises(BenchError, match="was run in version"):
            verify(submission, tmp_path, CPU)


def test_weights_that_changed_since_are_not_sent(theirs: Path, tmp_path: Path) -> None:
    checkpoints = Path(shutil.copytree(theirs / "checkpoints", tmp_path / "checkpoints"))
    store = Store(theirs / "bench.sqlite")
    one, two = sorted(checkpoints.glob("*.safetensors"))
    one.write_bytes(two.read_bytes())
    with pytest.raises(BenchError, match="holds other weights than its cells were measured on"):
        write_submission(tmp_path / "x.zip", store, store.cells(), checkpoints, {"by": "x"})


def test_a_bomb_and_half_a_file_are_refused(honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench.leaderboard.submission as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "LARGEST", 1000)
        with pytest.raises(BenchError, match="would unpack to more than"):
            read_submission(honest)
    half = tmp_path / "half.zip"
    half.write_bytes(honest.read_bytes()[: honest.stat().st_size // 2])
    with pytest.raises(BenchError, match="is not a submission"):
        read_submission(half)
    with pytest.raises(BenchError, match="cannot read"):
        read_submission(tmp_path / "absent.zip")


def test_from_the_command_line(bench: Run, honest: Path, theirs: Path, tmp_path: Path) -> None:
    cheat = rewritten(honest, better)
    refused = bench("leaderboard", "add", cheat, "--store", "mine.sqlite", "--sample-seed", "0")
    assert refused.returncode == 1
    assert "not reproduced" in refused.stderr
    assert not (tmp_path / "mine.sqlite").exists()
    taken = bench("leaderboard", "add", honest, "--store", "mine.sqlite", "--sample-seed", "0")
    assert taken.returncode == 0, taken.stderr
    assert "0 of 328 sampled images differ" in taken.stdout or "sampled images differ" in taken.stdout
    assert "6 cells added" in taken.stdout
    assert len(Store(tmp_path / "mine.sqlite").cells()) == 6
    shown = json.loads(bench("leaderboard", "--store", "mine.sqlite", "--json").stdout)
    assert {line["submitted_by"] for line in shown} == {"A Lab"}
    written = bench("leaderboard", "submit", "-o", "again.zip", "--by", "me", "-d", "vanilla", "--results", theirs)
    assert written.returncode == 0, written.stderr
    assert "wrote 3 cells" in written.stdout


def test_an_entry_of_a_store_is_what_was_measured(theirs: Path, honest: Path) -> None:
    store = Store(theirs / "bench.sqlite")
    assert {cell.key for cell in read_submission(honest).bundle.cells} == {row.key for row in chosen_cells(store)}
