"""From what the user asked for to cells: expand, drop what is stored, order, estimate."""

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from attacks.events.threat import EVENTS
from attacks.gradients import SpikeGradient
from attacks.gradients.estimation import takes_whole_trains
from attacks.threat import Box, continuous
from bench.budgets import Budgets
from bench.data import Dataset, DatasetSource, Protocol, load_dataset
from bench.data.events import EventDataset
from bench.errors import BenchError
from bench.given import GivenWeights, given_weights
from bench.names import split_list, without, without_eot
from bench.registry import ATTACKS, DATASETS, MODELS
from bench.resolve import PIXELS, edits_events, parse_attack, parse_defense, parse_gradient, taken_of, takes
from bench.spec import AttackSpec, CellSpec, ModelSpec, Recipe, TrainSpec, key_of, trajectory_key, trajectory_of
from bench.store import Store
from bench.training import build_without_rng, checkpoint_path
from defenses.base import Defense, Setting
from models.foreign.net import IMAGE, Adapted
from models.neurons import NeuronSpec, is_stochastic
from models.random import NOISE_VERSION
from models.surrogates import format_surrogate, parse_surrogate

STOCHASTIC_DRAWS = 5
STEPS = 4
"""T where nobody says otherwise."""
_FLAGS = {
    ("random_start", "False"): "--no-random-start",
    ("random_start", "false"): "--no-random-start",
    ("early_stop", "true"): "--iterate any",
    ("arithmetic", "bf16"): "--bf16",
    ("arithmetic", "reference"): "--reference",
}


@dataclass(frozen=True)
class Request:
    """What the user asked for; None means the dataset's protocol decides.

    Attributes:
        defenses, attacks, eps, seeds: each combination becomes a cell. Defenses default to vanilla, or
            to what the checkpoint given as `weights` says; seeds to 0.
        dataset: registered name, or the path of an `.npz` file.
        model: architecture.
        T, decay, surrogate: of the network that is trained; T is the number of frames where there are frames.
        attack_surrogate: what the attacker differentiates spikes by; None is the network's own.
        event_eps: budgets of the attacks on events, which `eps` is for where there are no others.
        norm: of every attack on images or frames: `linf`, `l2`, or `linf-int`, which is linf over whole counts; or
            `events`, which attacks on events have anyway.
        params: set for every attack that has them, for example alpha or restarts.
        n: number of test images; 0 means all.
        draws: scoring draws; None is 1 for deterministic and 5 for stochastic networks.
        attack_seed: selects the attacks' random numbers.
        recipe: overrides of the training recipe.
        weights: evaluate this checkpoint instead of training.
        note: set behind the defense's name where results are shown.
    """

    defenses: Sequence[str] = ()
    attacks: Sequence[str] = ("pgd40",)
    eps: Sequence[str] = ()
    event_eps: Sequence[str] = ()
    seeds: Sequence[int] = ()
    dataset: str = "digits"
    model: str | None = None
    T: int | None = None
    decay: float = 0.5
    surrogate: str = "triangular"
    attack_surrogate: str | None = None
    norm: str = "linf"
    params: Mapping[str, str] = field(default_factory=dict)
    n: int | None = None
    draws: int | None = None
    attack_seed: int = 0
    recipe: Mapping[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    note: str = ""


@dataclass(frozen=True)
class TrainJob:
    """One network and the cells measured on it, grouped by attack run.

    Attributes:
        spec: how it is trained; with `weights_file` only its labels and its model are used.
        defense: settled parts.
        weights_key: what cells call these weights.
        trajectories: groups of cells that one attack run serves, cheap ones first.
        trained: whether the checkpoint already exists.
    """

    spec: TrainSpec
    defense: Defense
    weights_key: str
    trajectories: tuple[tuple[CellSpec, ...], ...]
    trained: bool
    weights_file: Path | None = None

    @cached_property
    def cells(self) -> list[CellSpec]:
        return [cell for group in self.trajectories for cell in group]

    @cached_property
    def network_key(self) -> str:
        """Names the network: given weights may be run as several, of other time steps or neurons."""
        return self.weights_key if self.weights_file is None else f"{self.weights_key}:{key_of(self.spec.model)}"


@dataclass(frozen=True)
class Plan:
    """Everything that was asked for, and which of it is already known.

    Attributes:
        dataset: loaded and checked.
        jobs: one for each network.
        stored: keys of finished cells; empty until `known_to` a store.
        source, data_dir: what the dataset was loaded from: its name or file as typed, and the folder of downloads.
        turns: of the cells of several parts, the number of the first part that has each: those of an earlier one come
            first. By their keys; 0 for a cell that is not there.
        asked: the options of each part, as typed, where a file has them and the command has not.
    """

    dataset: Dataset
    jobs: tuple[TrainJob, ...]
    stored: AbstractSet[str] = frozenset()
    source: str = ""
    data_dir: Path = Path()
    turns: Mapping[str, int] = field(default_factory=dict)
    asked: tuple[str, ...] = ()

    def known_to(self, store: Store) -> "Plan":
        """This plan with the cells that a store already holds."""
        return replace(self, stored=store.done_keys(map(key_of, self.cells)))

    @cached_property
    def cells(self) -> list[CellSpec]:
        return [cell for job in self.jobs for group in job.trajectories for cell in group]

    @cached_property
    def missing(self) -> list[CellSpec]:
        return [cell for cell in self.cells if key_of(cell) not in self.stored]


def make_plan(request: Request, checkpoints: Path, data_dir: Path, loaded: Dataset | None = None) -> Plan:
    """Resolve a request completely, before anything is computed.

    Args:
        request: what the user asked for.
        checkpoints: folder of trained weights.
        data_dir: folder of downloaded datasets.
        loaded: the request's dataset, where the caller has it already.

    Raises:
        BenchError: anything in the request is unknown, unreadable, contradictory or out of range.
    """
    # Names first: a typing error should not cost a dataset download.
    given = None
    if request.weights is not None:
        typed = [f"--{name.replace('_', '-')}" for name, value in request.recipe.items() if value is not None]
        if typed or request.seeds:
            raise BenchError(f"--weights is trained already: {(typed or ['--seed'])[0]} has no effect, leave it out")
        given = given_weights(request.weights)
    defenses = [parse_defense(text) for text in split_list(request.defenses) or [given.defense if given else "vanilla"]]
    attack_names = split_list(request.attacks)
    if not attack_names:
        raise BenchError("name at least one attack")
    if len(defenses) > 1 and given:
        raise BenchError("--weights is one network: name one defense with it")
    if min(request.seeds, default=0) < 0:
        raise BenchError(f"--seed must not be negative, got {min(request.seeds)}")
    if request.T is not None and request.T < 1:
        raise BenchError(f"T must be at least 1, got {request.T}")
    if request.draws is not None and not 1 <= request.draws <= 1000:
        raise BenchError(f"draws must lie in [1, 1000], got {request.draws}")
    known = _known_images(request.dataset)
    box = PIXELS if known else Box(high=math.inf)
    budgets = Budgets(request.norm, split_list(request.eps), split_list(request.event_eps))
    for text, eps, norm in budgets.of(attack_names, "0"):
        parse_attack(text, eps, continuous(norm), request.attack_surrogate, request.params, box)
        if known:
            _check_edits(text, request.dataset, edits=False)
    _check_taken(attack_names, request.params)
    if known:
        for defense in defenses:
            steps = request.T or STEPS
            _settled(defense, Setting(request.model or known.model, known.train_eps, T=steps, eps=known.eps))
    if request.model is not None:
        MODELS.entry(request.model).fingerprint()
        for defense in defenses:
            _check_neuron(request, defense)
    try:
        surrogate = format_surrogate(parse_surrogate(request.surrogate))
        neuron = NeuronSpec(decay=request.decay, surrogate=surrogate)
        neuron.build()
    except ValueError as error:
        raise BenchError(str(error)) from error

    dataset = loaded or load_dataset(request.dataset, data_dir)
    protocol = dataset.protocol
    model_name = request.model or protocol.model
    recipe = _recipe(protocol.recipe, request.recipe, dataset)
    n = len(dataset.x_test) if request.n == 0 else request.n or min(protocol.n, len(dataset.x_test))
    if not 1 <= n <= len(dataset.x_test):
        raise BenchError(f"-n must lie in [1, {len(dataset.x_test)}], the size of the test set, got {n}")
    steps = _time_steps(request, dataset)
    for text in attack_names:
        _check_edits(text, dataset.name, edits=isinstance(dataset, EventDataset))
    attacks = [
        parse_attack(text, eps, norm, request.attack_surrogate, request.params, dataset.box)
        for text, eps, norm in budgets.of(attack_names, str(protocol.eps))
    ]
    shared = _Shared()
    jobs = []
    for defense in defenses:
        settled = _settled(defense, setting_of(dataset, model_name, steps))
        model = ModelSpec(
            name=model_name,
            num_classes=dataset.num_classes,
            in_shape=dataset.in_shape,
            T=steps,
            neuron=settled.neuron(neuron),
            mean=dataset.mean,
            std=dataset.std,
            fingerprint=MODELS.entry(model_name).fingerprint(),
            frames=dataset.frames is not None,
            encoder=settled.encoder,
            own_neurons=not _asks_for_neurons(model_name),
        )
        for seed in request.seeds or (0,):
            spec = TrainSpec(
                model=model,
                recipe=recipe,
                defense=tuple(settled.identity()),
                train_hash=dataset.train_hash,
                seed=seed,
                log_eps=protocol.eps,
                defense_name=given.label(defense) if given else defense.name + request.note,
                dataset=dataset.name,
                fingerprint=_plugin_fingerprint(settled),
            )
            jobs.append(_job(spec, settled, dataset, attacks, n, request, checkpoints, given, shared))
    jobs = _merge(jobs)
    return Plan(dataset, tuple(jobs), source=request.dataset, data_dir=data_dir)


def _asks_for_neurons(model: str) -> bool:
    """Whether a builder is told which neurons to use; a registered one always is."""
    return ":" not in model or "neuron" in taken_of(MODELS.get(model), model)


def _check_neuron(request: Request, defense: Defense) -> None:
    """Refuse what is said of neurons where a user's builder does not ask which to use.

    Raises:
        BenchError: an option or a defense that decides about neurons, or the builder is not to be called.
    """
    name = request.model or ""
    if _asks_for_neurons(name):
        return
    mend = "give its builder an argument 'neuron', a function that makes one spiking layer"
    for option, value in (("--decay", request.decay), ("--surrogate", request.surrogate)):
        if value != getattr(Request, option[2:]):
            raise BenchError(f"{option} has no effect on model '{name}', which brings its own neurons; leave it out")
    for part in defense.parts:
        if part.slot == "neuron" or part.neuron(NeuronSpec()) != NeuronSpec():
            raise BenchError(f"defense '{defense.name}' decides the neurons, and model '{name}' brings its own; {mend}")
        if part.observes_membrane and request.weights is None:
            raise BenchError(
                f"defense '{defense.name}' trains on membrane potentials, and those of the neurons that model '{name}' "
                f"brings are not known; {mend}"
            )


def _check_edits(attack: str, dataset: str, *, edits: bool) -> None:
    if edits_events(attack) and not edits:
        raise BenchError(
            f"attack '{attack}' edits recordings of events, and '{dataset}' has none; give a dataset of event cameras, "
            "such as --dataset digits-dvs"
        )


def _known_images(name: str) -> Protocol | None:
    """The protocol of a dataset that is known to be images without loading it, whose range is [0, 1]."""
    source: DatasetSource | None = DATASETS.get(name) if name in DATASETS else None
    return source.protocol if source and not source.frames else None


def setting_of(dataset: Dataset, model: str, T: int) -> Setting:
    """What a defense's parts may know of a run with this dataset, architecture and number of steps."""
    protocol = dataset.protocol
    return Setting(model, protocol.train_eps, dataset.box, T, dataset.frames is not None, protocol.eps)


def _settled(defense: Defense, setting: Setting) -> Defense:
    try:
        return defense.settled(setting)
    except ValueError as error:
        raise BenchError(f"defense '{defense.name}': {error}") from error


def _time_steps(request: Request, dataset: Dataset) -> int:
    """T of the networks."""
    if dataset.frames is None:
        return STEPS if request.T is None else request.T
    if request.T not in (None, dataset.frames):
        mend = (
            f"or store {request.T} in the file"
            if request.dataset.endswith(".npz")
            else f"or ask for --dataset {request.dataset.partition(':')[0]}:T={request.T}"
        )
        raise BenchError(
            f"-T {request.T} with recordings of {dataset.frames} frames: a network takes one frame a step; "
            f"leave -T out, {mend}"
        )
    return dataset.frames


def together(plans: Sequence[Plan]) -> Plan:
    """Several plans on one dataset as one; what they share is done once."""
    first = plans[0]
    if len(plans) == 1:
        return first
    merged: dict[str, TrainJob] = {}
    for job in (job for plan in plans for job in plan.jobs):
        held = merged.get(job.network_key)
        trajectories = _joined(held.trajectories, job.trajectories) if held else job.trajectories
        merged[job.network_key] = replace(held or job, trajectories=trajectories)
    return replace(first, jobs=tuple(merged.values()))


def in_turn(parts: Sequence[Plan]) -> Plan:
    """As `together`, with the cells of each part to be worked on before those of later ones."""
    turns: dict[str, int] = {}
    for number, part in enumerate(parts):
        for cell in part.cells:
            turns.setdefault(key_of(cell), number)
    return replace(together(parts), turns=turns)


def _joined(
    held: tuple[tuple[CellSpec, ...], ...], more: tuple[tuple[CellSpec, ...], ...]
) -> tuple[tuple[CellSpec, ...], ...]:
    """Groups of one network's cells, those that one attack run serves as one: it serves them all."""
    groups: dict[str, dict[str, CellSpec]] = {}
    for group in (*held, *more):
        cells = groups.setdefault(trajectory_key(group[0]), {})
        for cell in group:
            cells.setdefault(key_of(cell), cell)
    return tuple(tuple(cells.values()) for cells in groups.values())


@dataclass(frozen=True)
class _Shared:
    """What the networks of one request have in common, found once: a plan has many networks of few kinds.

    Attributes:
        kinds: what a model is, found by building it.
        arranged: the attacks by whether a network is noisy and takes every gradient, see `_arranged`.
    """

    kinds: dict[ModelSpec, "_Kind"] = field(default_factory=dict)
    arranged: dict[tuple[bool, bool], tuple[tuple[AttackSpec, ...], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """What of a network is known by building it.

    Attributes:
        stochastic: whether it has noise.
        whole: whether every gradient works on it, see `takes_whole_trains`.
        spec: it, with the time steps that it takes where it loops over time itself.
    """

    stochastic: bool
    whole: bool
    spec: ModelSpec


def _kind(spec: ModelSpec, request: Request, given: GivenWeights | None) -> _Kind:
    """Build a network and look.

    Raises:
        BenchError: its time steps are not those asked for, nobody says how many a trained network takes, or the given
            weights are another's.
    """
    model = build_without_rng(spec)
    if isinstance(model, Adapted):
        if request.T not in (None, model.T):
            raise BenchError(f"model '{spec.name}' loops over {model.T} time steps itself; leave out -T {request.T}")
        if model.way != IMAGE and request.T is None and request.weights is not None and not spec.frames:
            raise BenchError(
                f"model '{spec.name}' takes one time step after the other and does not say how many: give -T, the "
                "number it was trained with"
            )
        spec = replace(spec, T=model.T)
    if given is not None:
        # Before anything is computed: what its file says of itself, then what is in it.
        given.check(spec)
        given.fits(model)
    return _Kind(is_stochastic(model), takes_whole_trains(model), spec)


def _job(
    spec: TrainSpec,
    defense: Defense,
    dataset: Dataset,
    attacks: Sequence[Any],
    n: int,
    request: Request,
    checkpoints: Path,
    given: GivenWeights | None,
    shared: _Shared,
) -> TrainJob:
    if spec.model not in shared.kinds:
        shared.kinds[spec.model] = _kind(spec.model, request, given)
    kind = shared.kinds[spec.model]
    stochastic = kind.stochastic
    noise_version = NOISE_VERSION if stochastic else 1
    spec = replace(spec, model=kind.spec, noise_version=noise_version)
    if given is None:
        weights_key = f"train:{key_of(spec)}"
        trained = checkpoint_path(checkpoints, key_of(spec)).exists()
    else:
        weights_key, trained = f"file:{given.sha256}", True
    draws = request.draws or (STOCHASTIC_DRAWS if stochastic else 1)
    template = CellSpec(
        weights=weights_key,
        model=spec.model,
        test_hash=dataset.test_hash,
        n=n,
        attack=attacks[0],
        draws=draws,
        attack_seed=request.attack_seed,
        dataset=dataset.name,
        defense_name=spec.defense_name,
        seed=spec.seed,
        noise_version=noise_version,
    )
    which = (stochastic, kind.whole)
    if which not in shared.arranged:
        shared.arranged[which] = _arranged(template, attacks, stochastic=stochastic, whole=kind.whole)
    ordered = _cells(template, shared.arranged[which], dataset)
    return TrainJob(spec, defense, weights_key, ordered, trained, request.weights)


def trajectories(
    template: CellSpec, attacks: Sequence[AttackSpec], dataset: Dataset, *, stochastic: bool, whole: bool = True
) -> tuple[tuple[CellSpec, ...], ...]:
    """The cells of one network under several attacks, grouped by what one attack run serves, cheap ones first.

    Args:
        template: any of the cells.
        attacks: of the cells.
        dataset: of the cells.
        stochastic: whether the network has noise.
        whole: whether every gradient works on it, see `takes_whole_trains`.

    Raises:
        BenchError: an attack is not for such a network.
    """
    return _cells(template, _arranged(template, attacks, stochastic=stochastic, whole=whole), dataset)


def _arranged(
    template: CellSpec, attacks: Sequence[AttackSpec], *, stochastic: bool, whole: bool
) -> tuple[tuple[AttackSpec, ...], ...]:
    """The attacks as such a network meets them, grouped and ordered as its cells are."""
    groups: dict[str, dict[str, AttackSpec]] = {}
    for attack in attacks:
        if not stochastic:
            attack = replace(attack, eot=1, name=without_eot(attack.name))
        elif ATTACKS.get(attack.family).deterministic_only:
            raise BenchError(
                f"attack '{attack.name}' keeps what one lucky draw broke, so it is refused for the noisy network of "
                f"'{template.defense_name}'; use autoattack-rand"
            )
        if stochastic and dict(attack.params).get("early_stop"):
            # What breaks an image in one draw is luck: a noisy network is attacked to the end.
            left = tuple(param for param in attack.params if param[0] != "early_stop")
            attack = replace(attack, params=left, name=without("early_stop", attack.name))
        if template.model.frames and ATTACKS.get(attack.family).images_only:
            raise BenchError(f"attack '{attack.name}' knows images only, not frames; use apgd100 and square5000")
        if not whole:
            attack = _stepwise(attack, template.model.name)
        _check_classes(attack, template.model.num_classes)
        groups.setdefault(trajectory_of(attack), {})[key_of(attack)] = attack
    ordered = sorted(groups.values(), key=lambda group: max(attack.steps for attack in group.values()))
    return tuple(tuple(group.values()) for group in ordered)


def _stepwise(attack: AttackSpec, model: str) -> AttackSpec:
    """An attack as a network meets it whose neurons do not show whole spike trains: an ensemble is without the members
    that need them, and its name says so.

    Raises:
        BenchError: the attack itself needs them.
    """
    if attack.surrogate is not None and isinstance(parse_gradient(attack.surrogate), SpikeGradient):
        raise BenchError(
            f"attack '{attack.name}' needs whole spike trains, and the neurons of model '{model}' do not show theirs: "
            "they are called step by step, or reset in another way; name a surrogate, such as @arctan:alpha=2"
        )
    needed = ATTACKS.get(attack.family).stepwise
    asked = dict(attack.params).get("without", "")
    out = "+".join(dict.fromkeys(filter(None, [*asked.split("+"), *needed.split("+")])))
    if not needed or out == asked:
        return attack
    name = without("without", attack.name)
    params = tuple(sorted((dict(attack.params) | {"without": out}).items()))
    return replace(attack, params=params, name=f"{name}{',' if ':' in name else ':'}without={out}")


def _cells(
    template: CellSpec, arranged: Sequence[Sequence[AttackSpec]], dataset: Dataset
) -> tuple[tuple[CellSpec, ...], ...]:
    """`template` under each attack; `replace` would read its fields again for each."""
    names = [f.name for f in fields(CellSpec)]
    values, build = [getattr(template, name) for name in names], cast("Callable[..., CellSpec]", CellSpec)
    attack_at, recordings_at = names.index("attack"), names.index("recordings")

    def cell(attack: AttackSpec) -> CellSpec:
        values[attack_at], values[recordings_at] = attack, recordings_hash(attack, dataset)
        return build(*values)

    return tuple(tuple(map(cell, group)) for group in arranged)


def recordings_hash(attack: AttackSpec, dataset: Dataset) -> str:
    """What a cell of this attack says of the recordings that it is given; nothing where it is given none.

    Raises:
        BenchError: the attack edits recordings and the dataset has none.
    """
    if attack.norm != EVENTS:
        return ""
    _check_edits(attack.name, dataset.name, edits=isinstance(dataset, EventDataset))
    assert isinstance(dataset, EventDataset)
    pool = f"+{dataset.train_recordings_hash}" if ATTACKS.get(attack.family).pool else ""
    return dataset.test_recordings_hash + pool


def _check_taken(attacks: Sequence[str], params: Mapping[str, str]) -> None:
    """An option that changes nothing is a misunderstanding, not a preference."""
    for name, value in params.items():
        if not any(takes(text, name) for text in attacks):
            shown = _FLAGS.get((name, value), f"--{name.replace('_', '-')} {value}")
            raise BenchError(f"{shown} has no effect on {', '.join(attacks)}; leave it out")


def _check_classes(attack: AttackSpec, classes: int) -> None:
    needed = ATTACKS.get(attack.family).least_classes
    needed = max(needed, 3) if dict(attack.params).get("loss") == "dlr" else needed
    if classes < needed:
        raise BenchError(f"attack '{attack.name}' needs at least {needed} classes, not {classes}; use loss=margin")


def _merge(jobs: list[TrainJob]) -> list[TrainJob]:
    """Two spellings of one defense (tgo, mc+nlif) are one job."""
    return list({job.network_key: job for job in reversed(jobs)}.values())[::-1]


def _recipe(base: Recipe, overrides: Mapping[str, Any], dataset: Dataset) -> Recipe:
    recipe = replace(base, **{key: value for key, value in overrides.items() if value is not None})
    total = len(dataset.x_train)
    train_size = recipe.train_size or total
    limits = (
        ("--epochs", recipe.epochs, recipe.epochs >= 1, "at least 1"),
        ("--batch-size", recipe.batch_size, recipe.batch_size >= 2, "at least 2"),
        ("--lr", recipe.lr, 0 < recipe.lr < math.inf, "positive"),
        ("--weight-decay", recipe.weight_decay, 0 <= recipe.weight_decay < math.inf, "at least 0"),
        ("--train-size", recipe.train_size, 0 <= recipe.train_size <= total, f"in [0, {total}], the training set"),
        ("--train-size", train_size, recipe.holdout < train_size, f"above the {recipe.holdout} images held out"),
    )
    for name, value, holds, rule in limits:
        if not holds:
            raise BenchError(f"{name} must be {rule}, got {value}")
    return recipe


def _plugin_fingerprint(defense: Defense) -> str:
    """Identifies the code of parts that do not ship with this project, by their source."""
    import hashlib
    import inspect

    sources = []
    for part in defense.parts:
        if not type(part).__module__.startswith("defenses."):
            sources.append(Path(inspect.getfile(type(part))).read_bytes())
    return hashlib.sha256(b"".join(sources)).hexdigest()[:16] if sources else ""
