"""Can a stored cell be measured again, bit by bit? The command that does it, and what stands in its way."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from bench.again import spellings, typed
from bench.errors import BenchError
from bench.names import split_held_out
from bench.plan import Plan, TrainJob
from bench.provenance import code_version, device_name, package_versions
from bench.registry import DATASETS
from bench.spec import identity_of, key_of
from bench.store import CellRow, Store
from bench.store.schema import Run, Weights
from bench.training import checkpoint_path

_MOST_DIFFERENCES = 4


@dataclass(frozen=True)
class Repetition:
    """How to measure a cell again.

    Attributes:
        command: one command, which trains too where the network was trained.
        exact: it is the very same measurement, so that it gives the same bits on the device and with the versions that
            were recorded.
        why: where it is not, what differs.
        notes: where what was recorded differs from what is here, so that bits may differ for all that.
    """

    command: str
    exact: bool
    why: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def repetition(store: Store, row: CellRow, results: Path, plan_of: Callable[[str], Plan]) -> Repetition:
    """The command that measures a cell again in a fresh folder, and whether that gives the same bits.

    It is tried by planning it here: what it names is read, plug-ins run, and the cell it would measure must have the
    stored cell's key. Nothing that only an import vouches for is run or read.

    Args:
        store: the cell's.
        row: the cell.
        results: folder of the store's checkpoints.
        plan_of: from a command to its plan; raises BenchError.
    """
    record = store.weights(row.weights_key) or {}
    spec = dict(record.get("spec") or {})
    origin = store.provenance(row.key)
    trained = _training(store, row, str(record.get("sha256")), results) or origin
    # Training rounds by the number of threads, attacks hardly.
    said = {**origin, "threads": trained.get("threads") or origin.get("threads")}
    named, file = typed(origin, "--weights"), str(spec.get("file") or "FILE")
    given = file if file in named or not named else named[-1]
    commands = spellings(row, spec.get("recipe") or {}, said, given, fresh_folder(f"again-{row.key[:12]}"))
    notes = tuple(_notes(origin, trained))
    if imported := origin.get("imported") or {}:
        return Repetition(next(commands), False, (_came_from(imported),), notes)
    if missing := _not_at_hand(row, origin):
        return Repetition(next(commands), False, (missing,), notes)
    why = [] if row.status == "done" else [f"the cell is {row.status}, so there are no bits to repeat"]
    if len(places := trained.get("places", [])) > 1:
        why.append(f"the network was trained partly elsewhere: {'; then '.join(places)}")
    tried = list[tuple[bool, str, list[str]]]()
    for command in commands:
        try:
            planned = plan_of(command).jobs[0]
        except BenchError as error:
            tried.append((False, command, [str(error)]))
        else:
            if key_of(planned.cells[0]) == row.key:
                return Repetition(command, not why, tuple(why), notes)
            tried.append((True, command, _differences(row, spec, planned, given)))
    _, nearest, found = min(tried, key=lambda one: (not one[0], len(one[2])))
    return Repetition(nearest, False, (*why, *found), notes)


def fresh_folder(name: str) -> str:
    """A folder that is not there yet: `name`, or with a number behind it."""
    return next(
        folder for number in count(1) if not Path(folder := f"{name}-{number}" if number > 1 else name).exists()
    )


def _training(store: Store, row: CellRow, sha256: str, results: Path) -> Mapping[str, Any]:
    """The provenance of the run that trained the network; empty for weights that were given."""
    if not row.weights_key.startswith("train:"):
        return {}
    try:
        # A checkpoint may be older than the store, which then knows only who used it first.
        path = checkpoint_path(results / "checkpoints", row.weights_key.removeprefix("train:"))
        sidecar = json.loads(path.with_suffix(".json").read_text())
        if sidecar["weights_sha256"] == sha256:
            return {**sidecar["provenance"], "places": sidecar.get("places", [])}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    with store.reading() as session:
        query = sa.select(Run.provenance).join(Weights, Weights.run_id == Run.id)
        return dict(session.scalar(query.where(Weights.key == row.weights_key)) or {})


def _came_from(imported: Mapping[str, Any]) -> str:
    source = imported.get("file") or imported.get("source")
    return f"the cell was imported{f' from {source}' if source else ''}, so its bits are another machine's"


def _not_at_hand(row: CellRow, origin: Mapping[str, Any]) -> str:
    """A registered data set that would have to be fetched first: too much for a question. Empty if it is here."""
    name = split_held_out(row.dataset)[1]
    if name not in DATASETS or not DATASETS.entry(name).builtin:
        return ""
    folder = (typed(origin, "--data-dir") or [os.environ.get("BENCH_DATA", "data")])[-1]
    if DATASETS.get(name).at_hand(Path(folder)):
        return ""
    return f"{name} is not in '{folder}', so whether its images are the same is not known; the command fetches it"


def _notes(origin: Mapping[str, Any], trained: Mapping[str, Any]) -> Iterator[str]:
    """Where the circumstances differ on which bits depend: between training and attack, and from what is here."""
    here = _here(origin)
    then, before = _circumstances(origin), _circumstances(trained)
    for what, value in then.items():
        if before[what] != value and before[what] and value:
            yield (
                f"{what}: the network was trained with {before[what]} and attacked with {value}; one command has one "
                "of them"
            )
    for what, value in here.items():
        known = before[what] or then[what]
        if known and known != value:
            yield f"{what}: recorded is {known}, here is {value}; bits are promised for the same only"


def _here(origin: Mapping[str, Any]) -> dict[str, str]:
    import torch

    wanted = "cpu" if str(origin.get("device", "cpu")).startswith("cpu") else "cuda"
    there = wanted == "cpu" or torch.cuda.is_available()
    device = device_name(torch.device(wanted)) if there else "no such device"
    now = _circumstances({**code_version(), "packages": package_versions(), "device": device})
    return {what: value for what, value in now.items() if what != "threads"}


def _circumstances(origin: Mapping[str, Any]) -> dict[str, str]:
    commit = str(origin.get("commit") or "")[:12]
    changed = " with uncommitted changes" if origin.get("dirty") else ""
    threads = origin.get("threads")
    return {
        "device": str(origin.get("device") or ""),
        "threads": f"{threads} threads" if threads else "",
        "torch": str((origin.get("packages") or {}).get("torch") or ""),
        "code": f"commit {commit}{changed}" if commit else str(origin.get("version") or ""),
    }


def _differences(row: CellRow, trained: Mapping[str, Any], job: TrainJob, given: str) -> list[str]:
    """What is otherwise in the cell that the command would measure, in words."""
    (cell,) = job.cells[:1]
    then, now = dict(row.spec), identity_of(cell)
    found = []
    if then["test_hash"] != now["test_hash"]:
        found.append(f"the test images of '{row.dataset}' are not those of then")
    for what, version in (("noise", "noise_version"), ("evaluation", "version")):
        if then.get(version, 1) != now.get(version, 1):
            found.append(f"{what} version {then.get(version, 1)} then, {now.get(version, 1)} now")
    found += _unlike(then["attack"], now["attack"], f"attack {row.attack}")
    found += _unlike(then["model"], now["model"], f"model {row.model}")
    if then["weights"] != now["weights"]:
        found += _other_weights(then["model"] == now["model"], trained, job, given)
    rest = ("test_hash", "noise_version", "version", "attack", "model", "weights")
    found += _unlike(_without(then, rest), _without(now, rest), "the cell")
    found = list(dict.fromkeys(found))
    more = len(found) - _MOST_DIFFERENCES
    return [*found[:_MOST_DIFFERENCES], *([f"and {more} more"] if more > 0 else [])]


def _other_weights(same_model: bool, trained: Mapping[str, Any], job: TrainJob, given: str) -> Iterator[str]:
    if job.weights_file is not None:
        yield f"'{given}' holds other weights than then"
        return
    now = identity_of(job.spec)
    if trained.get("train_hash") != now["train_hash"]:
        yield f"the training images of '{job.spec.dataset}' are not those of then"
    if trained.get("noise_version", 1) != now.get("noise_version", 1):
        yield f"noise version {trained.get('noise_version', 1)} then, {now.get('noise_version', 1)} now"
    rest = ("train_hash", "noise_version", *(() if same_model else ("model",)))
    yield from _unlike(_without(trained, rest), _without(now, rest), "training")


def _without(values: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _unlike(then: Any, now: Any, what: str) -> Iterator[str]:
    """Each difference between two specs as plain values."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in dict.fromkeys((*then, *now)):
            where = what if name in ("model", "neuron", "recipe") else f"{what}: {name}"
            if name in then and name in now and then[name] != now[name] and name == "fingerprint":
                yield f"the code behind {what} has changed ({then[name] or 'ours'} then, {now[name] or 'ours'} now)"
            elif name in then and name in now:
                yield from _unlike(then[name], now[name], where)
            else:
                then_, now_ = then.get(name, "not recorded"), now.get(name, "not recorded")
                yield f"{where} {then_} then, {now_} now"
    elif then != now:
        yield f"{what} {_short(then)} then, {_short(now)} now"


def _short(value: Any) -> str:
    text = json.dumps(value) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}..."
