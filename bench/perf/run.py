"""A whole comparison: who takes part, section by section."""

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.perf.agreement import compare_attack, compare_network
from bench.perf.child import Child
from bench.perf.contestants import ALL, NETWORKS, OURS, Contestant, missing, releases
from bench.perf.lab import BF16, NOISY, Lab
from bench.perf.limit import BARE, PEAK, bare_layers, bare_step, flops, peak_sample
from bench.perf.record import Record, Section, load
from bench.perf.sample import Entry, Sample, take_turns
from bench.perf.subject import Subject
from bench.perf.work import ROW, WORK, gradient_agreement
from bench.provenance import provenance
from bench.spec import ARITHMETICS

SECTIONS = ("step", "row", "train", "infer", "noise", "arithmetic", "limit", "memory")
METHODS = ("vanilla", "at", "tgo")
TRAINED = ("SpikingJelly",)
"""Networks that are trained beside ours; all of these have noisy neurons too."""
IN_ROWS = ("ART", "foolbox", "torchattacks", "SpikingJelly + torchattacks")
"""Whose rows are measured: each costs a minute or more."""


@dataclass(frozen=True)
class Options:
    """How much is measured.

    Attributes:
        sections: of `SECTIONS`.
        rounds: timed runs of each contestant; the row has `row_rounds`.
        batch: images in one step; ours takes so many, and so do the peers in the tuned state.
        steps: of PGD in one timed run.
        images: of the row, and of the peers' steps in the default state, up to their default batch size.
        attacks: of the row.
        batches: updates in one timed run of training.
        full: the row also in the tuned state.
        threads: of torch.
    """

    sections: Sequence[str] = SECTIONS
    rounds: int = 5
    row_rounds: int = 1
    batch: int = 16
    steps: int = 4
    images: int = 16
    attacks: Sequence[str] = ROW
    batches: int = 2
    full: bool = False
    threads: int = 1


class Comparison:
    """Measures a subject, and keeps what it has whatever comes in between.

    Args:
        subject: what all are measured on.
        options: how much.
        device: where.
        tell: called with what begins.
        lab: builds the networks; a test brings its own.
    """

    def __init__(
        self,
        subject: Subject,
        options: Options,
        device: torch.device,
        tell: Callable[[str], None] = lambda _: None,
        lab: Lab | None = None,
    ) -> None:
        self.subject, self.options, self.device, self.tell = subject, options, device, tell
        self.lab = lab or Lab(subject, device)
        spec, count = subject.spec, len(subject.x)
        about = {"model": spec.name, "T": spec.T, "decay": spec.neuron.decay, "in_shape": list(spec.in_shape)}
        setup = about | {"classes": spec.num_classes, "origin": subject.origin, "images_held": count, **asdict(options)}
        self.record = Record(setup, provenance(device), releases(), missing())
        self._sound: set[str] = {OURS}
        self._entered = ExitStack()
        self._file: Path | None = None

    def run(self, keep: Callable[[Record], None] = lambda _: None) -> Record:
        """Measure everything that the options ask for.

        Args:
            keep: called with the record after each section, and after an interruption.

        Raises:
            KeyboardInterrupt: as it came; what was measured is in the record.
        """
        began, record = time.perf_counter(), self.record
        record.begin()
        sections: dict[str, Callable[[Section], None]] = {
            "step": self._step,
            "row": self._row,
            "train": self._train,
            "infer": self._infer,
            "noise": self._noise,
            "arithmetic": self._arithmetic,
            "limit": self._limit,
            "memory": self._memory,
        }
        try:
            with self._entered:
                self._agree()
                for name in self.options.sections:
                    section = record.sections.setdefault(name, Section())
                    sections[name](section)
                    record.seconds = time.perf_counter() - began
                    keep(record)
        except KeyboardInterrupt:
            record.interrupted = True
            raise
        finally:
            record.seconds = time.perf_counter() - began
            record.load.append(load())
            keep(record)
        return record

    def contestants(self) -> list[Contestant]:
        """Who is installed and computes the same thing."""
        wrong = {attack.name for attack in self.record.attacks if not attack.agrees}
        return [each for each in ALL if each.installed and each.network in self._sound and each.name not in wrong]

    def _agree(self) -> None:
        images = min(4, len(self.subject.x))
        for name, network in NETWORKS.items():
            if network.installed:
                self.tell(f"agreement: {name}")
                found = compare_network(self.lab, name, images, trained=not network.looped)
                self.record.networks.append(found)
                if found.agrees:
                    self._sound.add(name)
        if not {"step", "row", "memory"} & set(self.options.sections):
            return
        for contestant in ALL[1:]:
            if contestant.installed and contestant.network in self._sound:
                self.tell(f"agreement: {contestant.name}")
                self.record.attacks.append(compare_attack(self.lab, contestant.name, images))

    def _subject_file(self) -> Path:
        """The subject for other processes; written once."""
        if self._file is None:
            folder = self._entered.enter_context(tempfile.TemporaryDirectory())
            self._file = Path(folder) / "subject.safetensors"
            self.subject.save(self._file)
        return self._file

    def _child(self, state: str) -> Child:
        return Child(self._subject_file(), state, self.options.threads, str(self.device))

    def _turns(
        self,
        label: str,
        section: Section,
        work: Sequence[Callable[[], Sample]],
        warm: Sequence[Callable[[], Sample]] | None = None,
        rounds: int = 0,
    ) -> None:
        tell = partial(self._told, label)
        take_turns(section.entries, work, rounds or self.options.rounds, warm=work if warm is None else warm, tell=tell)

    def _told(self, label: str, what: str) -> None:
        self.tell(f"{label}, {what}")

    def _here(self, work: str, **arguments: Any) -> Callable[[], Sample]:
        return partial(WORK[work], self.lab, **arguments)

    def _step(self, section: Section) -> None:
        options, work = self.options, []
        section.about = {"batch": options.batch, "steps": options.steps, "default_batch": options.images}
        with self._child("default") as child:
            for contestant in self.contestants():
                given: dict[str, Any] = {"name": contestant.name, "steps": options.steps}
                section.entries.append(Entry(contestant.name, "tuned"))
                work.append(self._here("step", state="tuned", batch=options.batch, **given))
                if contestant.library != OURS:
                    size = min(contestant.attacks.batch, options.images)
                    section.entries.append(Entry(contestant.name, "default"))
                    work.append(partial(child.ask, "step", state="default", batch=size, **given))
            self._turns("step", section, work)

    def _row(self, section: Section) -> None:
        options, work = self.options, []
        section.about = {"images": options.images, "attacks": list(options.attacks)}
        warm: list[Callable[[], Sample]] = []
        with self._child("default") as child:
            for contestant in self.contestants():
                given: dict[str, Any] = {
                    "name": contestant.name,
                    "images": options.images,
                    "attacks": list(options.attacks),
                }
                brief = given | {"attacks": ["fgsm", "pgd1"]}
                ours = contestant.library == OURS
                if not ours and contestant.name not in IN_ROWS:
                    continue
                if ours or options.full:
                    section.entries.append(Entry(contestant.name, "tuned"))
                    work.append(self._here("row", state="tuned", **given))
                    warm.append(self._here("row", state="tuned", **brief))
                if not ours:
                    section.entries.append(Entry(contestant.name, "default"))
                    work.append(partial(child.ask, "row", state="default", **given))
                    warm.append(partial(child.ask, "row", state="default", **brief))
            self._turns("row", section, work, rounds=options.row_rounds, warm=warm)

    def _train(self, section: Section) -> None:
        options, work = self.options, []
        section.about = {"batch": options.batch, "batches": options.batches}
        for method in METHODS:
            for name in (OURS, OURS + BF16, *(name for name in TRAINED if name in self._sound)):
                section.entries.append(Entry(f"{name}: {method}", "tuned"))
                given = {"name": name, "method": method, "batch": options.batch, "batches": options.batches}
                work.append(self._here("training", state="tuned", **given))
        self._turns("training", section, work, rounds=min(options.rounds, 3))

    def _infer(self, section: Section) -> None:
        options = self.options
        section.about = {"batch": options.batch, "repeats": options.steps}
        names = [OURS, *(name for name in NETWORKS if name in self._sound)]
        section.entries += [Entry(name, "tuned") for name in names]
        given = {"state": "tuned", "batch": options.batch, "repeats": options.steps}
        self._turns("inference", section, [self._here("inference", name=name, **given) for name in names])

    def _noise(self, section: Section) -> None:
        options = self.options
        section.about = {"batch": options.batch, "steps": options.steps, "noise_var": 0.4}
        kinds = [OURS, *(name for name in TRAINED if name in self._sound)]
        names = [f"{kind}{suffix}" for kind in kinds for suffix in ("", NOISY)]
        section.entries += [Entry(name, "tuned") for name in names]
        given = {"state": "tuned", "batch": options.batch, "steps": options.steps}
        self._turns("noise", section, [self._here("noise", name=name, **given) for name in names])

    def _arithmetic(self, section: Section) -> None:
        options = self.options
        section.entries += [Entry(how, "tuned") for how in ARITHMETICS]
        given = {"state": "tuned", "batch": options.batch, "steps": options.steps}
        agreement = {how: gradient_agreement(self.lab, how, options.batch) for how in ARITHMETICS[1:]}
        section.about = {"batch": options.batch, "steps": options.steps, "agreement": agreement}
        self._turns("arithmetic", section, [self._here("arithmetic", name=how, **given) for how in ARITHMETICS])

    def _limit(self, section: Section) -> None:
        batch = self.options.batch
        layers = bare_layers(self.lab, batch)
        section.entries += [Entry(name, "tuned") for name in (BARE, OURS, PEAK)]
        best: dict[str, float] = {}
        bare = partial(bare_step, self.lab, layers, batch)
        ours = self._here("step", name=OURS, state="tuned", batch=batch, steps=self.options.steps)
        section.about = {"batch": batch, "flops": flops(layers, batch), "peak": best}
        self._turns("limit", section, [bare, ours, partial(peak_sample, self.lab, best)])

    def _memory(self, section: Section) -> None:
        options = self.options
        section.about = {"batch": options.batch, "steps": 2}
        for contestant in self.contestants():
            self.tell(f"memory: {contestant.name}")
            entry = Entry(contestant.name, "tuned")
            section.entries.append(entry)
            given: dict[str, Any] = {"name": contestant.name, "batch": options.batch, "steps": 2}

            def once(given: dict[str, Any] = given) -> Sample:
                with self._child("tuned") as child:
                    return child.ask("step", watch=True, state="tuned", **given)

            take_turns([entry], [once], 1)


def default_name(record: Record) -> str:
    """A file's name: processor, model, date."""
    machine = record.provenance["device"].partition("(")[2].rstrip(")") or record.provenance["device"]
    slug = re.sub(r"[^a-z0-9]+", "-", machine.lower()).strip("-")[:40].strip("-")
    stamp = record.started.replace("-", "").replace(":", "")
    return f"{slug}-{record.setup['model']}-{stamp}.json"


def quick(options: Options) -> Options:
    """So little that it takes seconds: for a first look, and for tests."""
    return replace(options, rounds=1, batch=4, steps=2, images=4, batches=1)
