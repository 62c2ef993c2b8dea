"""What trainings and attack runs will take, from what they took."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch

from bench.canonical import canonical_json
from bench.costs.fit import Speed, fitted
from bench.costs.history import History, Learned, Ran, history, way_of_training
from bench.costs.passes import Settings, Work, planned, scoring, settings_of
from bench.costs.trial import tried
from bench.errors import BenchError
from bench.noise import is_noisy_cell
from bench.plan import Plan, TrainJob
from bench.provenance import device_name
from bench.registry import ATTACKS
from bench.resolve import parse_defense
from bench.spec import CellSpec, identity_of
from bench.store import Store
from defenses.base import Defense

_WRITE, _FIRST, _TRAINING = 0.01, 0.8, 1.4
"""Until the store knows better: seconds of a write, seconds before a process trains, training beside its passes."""
_LATEST, _LIKE, _FADING = 60, 300, 0.97
"""Of how many runs speeds and shares are taken, and how much less each counts than the next later one."""
_QUICK, _QUICK_STEPS, _HYGIENE = 128, 7, 4 * 32
_THREADS = 0.6
"""Speed grows with this power of the number of threads; small networks gain less than large ones."""
_DOUBT = 0.005
"""Weight of what an attack says of itself, beside stored runs, of which the same attack on the same network has 1."""


class Costs:
    """Seconds of trainings and attack runs on one device of this machine.

    Learned are: the seconds of a pass, for each network; how far an attack's stays below the passes that it says it
    costs at most, and how long its passes are beside others'; how long a defense's training takes beside what its
    passes would; how long writing takes. What is unknown is taken from what is most like it: from the same network
    with other threads, the same architecture with other time steps or neurons, other attacks, other budgets. Where
    there is nothing, a short trial of the network decides.

    Args:
        plan: what the questions will be about.
        store: what to learn from; None if there is none.
        device: where the plan will run.
        threads: of the process that will; torch's present number if None.
    """

    def __init__(self, plan: Plan, store: Store | None, device: torch.device, threads: int | None = None) -> None:
        self.plan, self.device, self._size = plan, device, len(plan.dataset.x_train)
        self.threads = threads or torch.get_num_threads()
        keys = [job.weights_key for job in plan.jobs]
        self.known = history(store, device_name(device), keys) if store is not None else History()
        self.bases = set[str]()
        self._networks: dict[str, _Network] = {}
        self._speeds: dict[str, Speed] = {}
        self._stored: dict[tuple[str, int], Speed | None] = {}
        self._families: dict[str, list[tuple[Ran, float | None]]] = {}
        for run in self.known.ran:
            self._families.setdefault(run.settings.family, []).append((run, _share_of(run)))
        self._met = {run.weights for run in self.known.ran}
        self._attacks: dict[Any, float] = {}
        self._ratios: dict[Any, float] = {}
        overheads = sorted(run.overhead for run in self.known.ran if run.overhead is not None)
        self.write = overheads[len(overheads) // 2] if overheads else _WRITE

    @cached_property
    def first(self) -> float:
        """Seconds that a process needs before its first training, for what it has to import."""
        found = []
        for one in self.known.learned:
            speed = self._stored_speed(one.model, one.threads)
            if one.elapsed is not None and speed is not None:
                log = self._log(speed, one.spec["recipe"]["epochs"], one.spec["recipe"]["holdout"])
                found.append(max(one.elapsed - one.seconds - log, 0.0))
        return _median(found or [_FIRST])

    def training(self, job: TrainJob) -> float:
        """Seconds until a network is trained, its log and checkpoints included; 0 if it is already."""
        if job.trained:
            return 0.0
        recipe, network, speed = job.spec.recipe, self._network(job), self._speed(job)
        work = _training_work(identity_of(recipe), self._size, training_passes(job.defense))
        learning = speed.seconds(work) * self._training_ratio(network)
        return learning + self._log(speed, recipe.epochs, recipe.holdout)

    def _log(self, speed: Speed, epochs: int, holdout: int) -> float:
        """What a training takes beside its epochs: the accuracies of its log, and keeping its state."""
        images = min(holdout, _QUICK)
        quick = Work(images * (_QUICK_STEPS + 2), images * _QUICK_STEPS, (_QUICK_STEPS * 2 + 2) * (images > 0), 0)
        return epochs * (speed.seconds(quick) + self.write)

    def opening(self, job: TrainJob) -> float:
        """Seconds to load a trained network and to check that it can be attacked."""
        return self._speed(job).seconds(Work(_HYGIENE, 0, 5, 1)) + 2 * self.write

    def attack(self, job: TrainJob, group: Sequence[CellSpec]) -> float:
        """Seconds of one attack run, for all the cells of a job that it serves, writing included.

        Args:
            job: the network.
            group: cells of one `trajectory_key`.
        """
        settings = settings_of(group)
        place = (job.network_key, settings)
        if place not in self._attacks:
            self._attacks[place] = self._attack(job, settings)
        return self._attacks[place]

    def _attack(self, job: TrainJob, settings: Settings) -> float:
        network = self._network(job)
        share = self._share(network, settings)
        work = planned(settings, share)
        writes = 2 * len(settings.steps) + work.chunks
        return self._speed(job).seconds(work) * self._slowness(network.model, settings) + writes * self.write

    def _network(self, job: TrainJob) -> "_Network":
        if job.network_key not in self._networks:
            spec = identity_of(job.spec)
            way = way_of_training(spec) if job.weights_file is None else ""
            met = job.weights_key if job.weights_key in self._met else ""
            self._networks[job.network_key] = _Network(met, way, canonical_json(spec["model"]))
        return self._networks[job.network_key]

    def _speed(self, job: TrainJob) -> Speed:
        model = self._network(job).model
        if model not in self._speeds:
            self._speeds[model] = self._found_speed(job, model)
        return self._speeds[model]

    def _found_speed(self, job: TrainJob, model: str) -> Speed:
        """Of the same network here, else with other threads, else of one that is like it, else tried."""
        spec = identity_of(job.spec.model)

        def unlike(run: Ran) -> tuple[Any, ...]:
            kind = run.spec["neuron"]["kind"] != spec["neuron"]["kind"]
            threads = abs(math.log2((run.threads or self.threads) / self.threads))
            return run.model != model, kind, threads, abs(math.log2(run.spec["T"] / spec["T"]))

        for run in sorted(
            (run for run in self.known.ran if _architecture(run.spec) == _architecture(spec)), key=unlike
        ):
            if found := self._stored_speed(run.model, run.threads):
                self.bases.add("stored runs")
                threads = ((run.threads or self.threads) / self.threads) ** _THREADS
                return found.scaled(threads * spec["T"] / run.spec["T"] * _neurons(run.spec, spec))
        self.bases.add("a short trial")
        return tried(job, self.plan.dataset, self.device)

    def _share(self, network: "_Network", settings: Settings) -> float:
        """Which share of the passes that an attack costs at most it will take."""
        place = ("share", network if settings.stops else network.model, settings)
        if place not in self._ratios:
            self._ratios[place] = _near(
                self._families.get(settings.family, [])[:_LIKE], lambda run: _unlike_run(run, network, settings)
            )
        return self._ratios[place]

    def _slowness(self, model: str, settings: Settings) -> float:
        """How long an attack's passes take beside plain ones."""
        kind = (settings.family, settings.surrogate, settings.arithmetic, settings.eot > 1)
        place = ("slowness", model, kind)
        if place not in self._ratios:
            self._ratios[place] = _near(self._besides, lambda run: _unlike_kind(run, model, kind))
        return self._ratios[place]

    @cached_property
    def _besides(self) -> list[tuple[Ran, float | None]]:
        return [(run, self._beside(run)) for run in self.known.ran]

    def _beside(self, run: Ran) -> float | None:
        speed, work = self._stored_speed(run.model, run.threads), _done(run)
        return run.seconds / max(speed.seconds(work), 1e-9) if speed is not None and work is not None else None

    def _stored_speed(self, model: str, threads: int) -> Speed | None:
        """Fitted to what is stored of a network, with one number of threads."""
        if (model, threads) not in self._stored:
            runs = [run for run in self.known.ran if (run.model, run.threads) == (model, threads)]
            self._stored[model, threads] = _fitted(runs)
        return self._stored[model, threads]

    def _training_ratio(self, network: "_Network") -> float:
        """How long training takes beside its passes: of this model and defense, else of another that is known."""
        place = ("training", network.model, network.way)
        if place not in self._ratios:
            levels: list[Callable[[Learned], bool]] = [
                lambda one: (one.model, one.way, one.threads) == (network.model, network.way, self.threads),
                lambda one: (one.model, one.way) == (network.model, network.way),
                lambda one: (one.model, one.threads) == (network.model, self.threads),
                lambda one: one.way == network.way,
                lambda one: True,
            ]
            found = (ratios for level in levels if (ratios := self._trained_beside(level)))
            self._ratios[place] = _median(next(found, [_TRAINING]))
        return self._ratios[place]

    def _trained_beside(self, wanted: Callable[[Learned], bool]) -> list[float]:
        ratios = []
        for one in filter(wanted, self.known.learned):
            speed = self._stored_speed(one.model, one.threads)
            if speed is not None:
                work = _training_work(one.spec["recipe"], self._size, _passes_of(one.defense))
                ratios.append(one.seconds / max(speed.seconds(work), 1e-9))
        return ratios


class _Network(NamedTuple):
    """A network, as far as what is stored may be like it.

    Attributes:
        weights: its key if attacks on it are stored, else empty.
        way: how it was trained, see `way_of_training`.
        model: identity of its `ModelSpec`.
    """

    weights: str
    way: str
    model: str


def training_passes(defense: Defense) -> float:
    """Forward and backward passes per image and epoch beyond the vanilla one."""
    return sum(part.extra_passes() for part in defense.parts)


def _training_work(recipe: Mapping[str, Any], size: int, extra: float) -> Work:
    """The passes of a training on so many images, or on as many of them as the recipe says."""
    images = max((recipe["train_size"] or size) - recipe["holdout"], 1)
    passes = (1 + extra) * recipe["epochs"]
    # The optimiser's step is about a call's worth.
    calls = math.ceil(images / recipe["batch_size"]) * (2 * passes + recipe["epochs"])
    return Work(images * passes, images * passes, calls, 0)


def _passes_of(defense: str) -> float:
    """As `training_passes`, of what tables call a defense."""
    try:
        return training_passes(parse_defense(defense))
    except BenchError:
        # Of a plug-in that is not loaded.
        return 0.0


def _fitted(runs: Sequence[Ran]) -> Speed | None:
    plain = [run for run in runs if _is_plain(run.settings)] or list(runs)
    usable = [(run, work) for run in plain[:_LATEST] if (work := _done(run)) is not None]
    if not usable:
        return None
    fading = [_FADING**age for age in range(len(usable))]
    return fitted([work for _, work in usable], [run.seconds for run, _ in usable], fading)


def _done(run: Ran) -> Work | None:
    """What a stored run did; calls are not counted, so these are what was planned."""
    try:
        least = planned(run.settings)
    except BenchError:
        # Of a plug-in that is not loaded.
        return None
    calls = least.calls
    if not run.settings.stops and least.forwards + least.backwards > 0:
        calls *= (run.forwards + run.backwards) / (least.forwards + least.backwards)
    return Work(run.forwards, run.backwards, calls, least.chunks)


def _share_of(run: Ran) -> float | None:
    """Which share of what an attack costs at most was spent."""
    try:
        most, scored = planned(run.settings), scoring(run.settings, ATTACKS.get(run.settings.family))
    except BenchError:
        return None
    scored *= run.settings.n
    crafting = most.forwards + most.backwards - scored
    return (run.forwards + run.backwards - scored) / crafting if crafting > 0 else None


def _is_plain(settings: Settings) -> bool:
    return settings.surrogate is None and settings.arithmetic == "fast" and not settings.stops


def _architecture(spec: Mapping[str, Any]) -> tuple[Any, ...]:
    return spec["name"], tuple(spec["in_shape"]), spec["num_classes"]


def _neurons(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> float:
    """How much longer passes take with one kind of neuron than with another, roughly: noise has to be drawn."""
    noisy = [1.3 if is_noisy_cell({"model": spec}) else 1.0 for spec in (known, wanted)]
    return noisy[1] / noisy[0]


def _unlike_run(run: Ran, network: "_Network", wanted: Settings) -> float:
    """How little a stored run says about which share of its passes an attack will take; 0 for the same again."""
    had = run.settings
    far = 0.0 if run.weights == network.weights else 0.3 if run.way == network.way else 1.0
    far += 0.0 if run.model == network.model else 0.5
    far += 2.0 * (had.norm != wanted.norm) + 2.0 * (had.early != wanted.early)
    far += 0.7 * (had.surrogate != wanted.surrogate) + 0.5 * (had.params != wanted.params)
    far += 1.5 * abs(math.log2((had.eps + 1e-3) / (wanted.eps + 1e-3)))
    far += 0.5 * abs(math.log2(max(max(had.steps), 1) / max(max(wanted.steps), 1)))
    far += 0.3 * abs(math.log2(had.restarts / wanted.restarts)) + 0.2 * abs(math.log2(had.eot / wanted.eot))
    return far + 0.1 * abs(math.log2(had.n / wanted.n))


def _unlike_kind(run: Ran, model: str, kind: tuple[Any, ...]) -> float:
    """How little a stored run says about how long an attack's passes take."""
    had = (run.settings.family, run.settings.surrogate, run.settings.arithmetic, run.settings.eot > 1)
    weights = (1.0, 6.0, 8.0, 1.0)
    return sum(w for w, a, b in zip(weights, had, kind, strict=True) if a != b) + 1.0 * (run.model != model)


def _near(found: Iterable[tuple[Ran, float | None]], unlike: Callable[[Ran], float]) -> float:
    """The geometric mean of ratios, each as much as its run is like what is wanted; 1 where nothing is."""
    total, weights = 0.0, _DOUBT
    for age, (run, ratio) in enumerate(found):
        if ratio is not None and ratio > 0:
            weight = math.exp(-2 * unlike(run)) * _FADING**age
            total, weights = total + weight * math.log(ratio), weights + weight
    return math.exp(total / weights)


def _median(values: Sequence[float]) -> float:
    # Of an even number the lower: what was slow had other work beside it.
    return sorted(values)[(len(values) - 1) // 2]
