"""The options of `run` and `plan` together: what was typed, as a request."""

import functools
import inspect
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import typer

from bench.cli import options as o
from bench.cli.matrix_file import MatrixFile
from bench.errors import BenchError
from bench.names import split_list
from bench.secret import masked

if TYPE_CHECKING:
    import torch

    from bench.data import Dataset
    from bench.plan import Plan, Request
    from bench.scheduler import Budget, Crew


_ONCE = ("defenses", "attacks", "preset", "file", "parts", "weights", "tuned", "max_time", "max_forwards", "as_json")
"""Options that belong to one command, and not to the next that is worth trying."""
_OF_THE_TEST = ("count", "draws", "seeds")
"""Options of a measurement that are not those of a search for what is to be measured."""

Typed = TypeVar("Typed", bound="Matrix")


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The options of `run` and `plan`, as typed.

    Attributes:
        typed: which of them were typed, whatever their values: those override a file's.
    """

    defenses: o.Defenses = None
    attacks: o.Attacks = None
    dataset: o.DatasetName = None
    model: o.ModelName = None
    preset: o.Preset = None
    file: o.MatrixFile = None
    parts: o.MatrixParts = None
    weights: o.Weights = None
    plugins: o.Plugins = None
    eps: o.Eps = None
    event_eps: o.EventEps = None
    event_rules: o.EventRules = None
    norm: o.NormName = "linf"
    alpha: o.Alpha = None
    restarts: o.Restarts = None
    eot: o.Eot = None
    no_random_start: o.NoRandomStart = False
    attack_surrogate: o.AttackSurrogate = None
    iterate: o.Iterate = "both"
    bf16: o.Bf16 = False
    reference: o.Reference = False
    count: o.Count = None
    draws: o.Draws = None
    attack_seed: o.AttackSeed = 0
    seeds: o.Seeds = None
    T: o.Steps = None
    decay: o.Decay = None
    surrogate: o.SurrogateName = "triangular"
    epochs: o.Epochs = None
    batch_size: o.BatchSize = None
    lr: o.LearningRate = None
    weight_decay: o.WeightDecay = None
    tuned: o.Tuned = False
    train_size: o.TrainSize = None
    train_bf16: o.TrainBf16 = False
    workers: o.Workers = None
    executor: o.Executor = "local"
    address: o.Address = "auto"
    gpus: o.Gpus = None
    max_time: o.MaxTime = None
    max_forwards: o.MaxForwards = None
    data_dir: o.DataDir = o.DEFAULT_DATA
    results: o.Results = o.DEFAULT_RESULTS
    store: o.StoreTarget = None
    device: o.Device = "auto"
    threads: o.Threads = None
    as_json: o.AsJson = False
    typed: frozenset[str] = field(default=frozenset(), metadata={"option": False})

    def plan(self) -> "Plan":
        """Resolve these options completely. Computes nothing; a dataset that is not there yet is fetched.

        Raises:
            BenchError: a mistake in the options, or a file of several datasets.
        """
        plans = self.plans()
        if len(plans) > 1:
            raise BenchError(f"{self.file} has several datasets; give the one that is meant: --dataset NAME")
        return plans[0]

    def plans(self) -> "list[Plan]":
        """As `plan`, one for each dataset: a file may have several. In the order in which the file begins with them.

        Raises:
            BenchError: a mistake in the options or in the file.
        """
        from bench.cli.parts import matrices, said_of, search_command
        from bench.plan import in_turn, together

        if self.file is None:
            self.no_part()
            o.load_plugins(self.plugins)
            return [self._resolved({})]
        if self.preset is not None:
            raise BenchError("--preset and --matrix both say what to run; leave one out")
        o.load_plugins(self.all_plugins)
        loaded: dict[str, Dataset] = {}
        found: dict[tuple[str, str, str], list[Plan]] = {}
        for part in self.file_parts.parts:
            left = matrices(part, self)
            if not left:
                continue
            with said_of(part.where):
                plan = together([matrix._resolved(loaded, search_command(self)) for matrix in left])
            plan = replace(plan, asked=tuple(matrix.typed_options() for matrix in left))
            data = plan.dataset
            found.setdefault((data.name, data.train_hash, data.test_hash), []).append(plan)
        if not found:
            raise BenchError(f"{self.file}: nothing is left to run; every part excludes all that is asked for")
        return [
            replace(in_turn(plans), asked=tuple(dict.fromkeys(line for plan in plans for line in plan.asked)))
            for plans in found.values()
        ]

    def _resolved(self, loaded: "dict[str, Dataset]", search: str = "") -> "Plan":
        """The plan of one matrix. What it loads is put into `loaded`, and what is there is not loaded again."""
        from bench.plan import make_plan, together

        requests = self.requests()
        if self.tuned:
            from bench.tuning.chosen import tuned

            opened = o.open_existing_store(self.results, self.store)
            options = self.protocol_options(without=_OF_THE_TEST)

            def command(defense: str) -> str:
                return search or f"bench tune -d {shlex.quote(defense)} --budget 20{options}"

            found = [
                tuned(one, opened, self.checkpoints, self.data_dir, command, loaded.get(one.dataset))
                for one in requests
            ]
            requests = [request for each in found for request in each]
        plans = []
        for request in requests:
            plans.append(make_plan(request, self.checkpoints, self.data_dir, loaded.get(request.dataset)))
            loaded[request.dataset] = plans[-1].dataset
        return together(plans)

    @cached_property
    def file_parts(self) -> MatrixFile:
        """The file, read.

        Raises:
            BenchError: see `read_matrix_file`.
        """
        assert self.file is not None
        from bench.cli.parts import read

        whole = read(self.file)
        return whole.named(split_list(self.parts), self.file) if self.parts else whole

    def no_part(self) -> None:
        """Refuse a part of no file."""
        if self.parts:
            raise BenchError("--part is of a matrix file; name that, too: --matrix FILE")

    @property
    def all_plugins(self) -> list[Path]:
        """The plug-ins of the command or, where it names none, of its file."""
        if self.plugins or self.file is None:
            return self.plugins or []
        named = (name for part in self.file_parts.parts for name in part.values.get("plugin", ()))
        return [Path(name) for name in dict.fromkeys(named)]

    def crew(self, device: "torch.device") -> "Crew":
        """Who is to work.

        Args:
            device: that `--device` names.

        Raises:
            BenchError: a mistake in the options.
        """
        import torch

        from bench.scheduler import Crew

        if self.executor not in ("local", "ray"):
            raise BenchError(f"--executor must be local or ray, got '{self.executor}'")
        if self.workers is not None and self.workers < 1:
            raise BenchError(f"--workers must be at least 1, got {self.workers}")
        if self.gpus is not None and not self.gpus >= 0:
            raise BenchError(f"--gpus-per-worker must not be negative, got {self.gpus:g}")
        plugins = tuple(path.resolve() for path in self.all_plugins)
        if self.executor == "ray":
            return Crew((), self.threads, plugins, self.address, self.gpus, self.workers)
        if self.gpus is not None:
            raise BenchError("--gpus-per-worker is for --executor ray; leave it out")
        # A device without a number stands for all of its kind.
        every = device.type == "cuda" and device.index is None
        devices = [f"cuda:{n}" for n in range(torch.cuda.device_count())] if every else [str(device)]
        count = self.workers or len(devices)
        threads = self.threads or (max(1, _cores() // count) if count > 1 else None)
        return Crew(tuple(devices[n % len(devices)] for n in range(count)), threads, plugins)

    def budget(self) -> "Budget":
        """What may be spent, from now.

        Raises:
            BenchError: a mistake in the options.
        """
        from bench.scheduler.budget import Budget, parse_duration

        if self.max_forwards is not None and self.max_forwards < 1:
            raise BenchError(f"--max-forwards must be at least 1, got {self.max_forwards}")
        return Budget(parse_duration(self.max_time) if self.max_time is not None else None, self.max_forwards)

    @property
    def checkpoints(self) -> Path:
        """The folder of trained weights."""
        return self.results / "checkpoints"

    def store_options(self) -> str:
        """What a command needs in addition to find this store, as typed; begins with a space or is empty."""
        return _typed(("--results", self.results, o.DEFAULT_RESULTS), ("--store", self.store, None))

    def protocol_options(self, without: Sequence[str] = ()) -> str:
        """Every option that was typed, except those that say which defenses and attacks to run.

        Args:
            without: fields that are left out too.
        """
        return self.typed_options(without=(*_ONCE, *without))

    def typed_options(self, without: Sequence[str] = ()) -> str:
        """Every option that is not at its default, as typed; begins with a space or is empty.

        Args:
            without: fields that are left out.
        """
        parts = []
        for name, f in named_fields(Matrix).items():
            value = getattr(self, f.name)
            if value == f.default or f.name in without or f.name == "typed":
                continue
            for item in value if isinstance(value, list) else [value]:
                parts.append(f" --{name}" if item is True else f" --{name} {shlex.quote(masked(str(item)))}")
        return "".join(parts)

    def requests(self) -> "list[Request]":
        """What was typed; a preset may be several matrices."""
        from bench.plan import Request
        from bench.presets import preset

        typed: dict[str, Any] = {
            "defenses": self.defenses,
            "attacks": self.attacks,
            "dataset": self.dataset,
            "model": self.model,
            "eps": self.eps,
            "event_eps": self.event_eps,
            "seeds": _integers("--seed", self.seeds),
        }
        typed = {key: value for key, value in typed.items() if value}
        typed |= {key: value for key, value in (("T", self.T), ("decay", self.decay)) if value is not None}
        _check_overrides(self.alpha, {"--restarts": self.restarts, "--eot": self.eot})
        if self.iterate not in ("both", "any"):
            raise BenchError(f"--iterate must be both or any, got '{self.iterate}'")
        if self.reference and (self.bf16 or self.train_bf16):
            raise BenchError("--reference is full float32: leave out --bf16 and --train-bf16")
        slow = "reference" if self.reference else None
        params = {
            "event_rules": self.event_rules,
            "alpha": self.alpha,
            "restarts": self.restarts,
            "eot": self.eot,
            "random_start": False if self.no_random_start else None,
            "early_stop": "true" if self.iterate == "any" else None,
            "arithmetic": "bf16" if self.bf16 else slow,
        }
        recipe: dict[str, Any] = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "train_size": self.train_size,
            "arithmetic": None if self.weights else "bf16" if self.train_bf16 else slow,
        }
        recipe = {key: value for key, value in recipe.items() if value is not None}
        return [
            Request(
                **(named | typed | {"recipe": named.get("recipe", {}) | recipe}),
                norm=self.norm,
                params={key: str(value) for key, value in params.items() if value is not None},
                attack_surrogate=self.attack_surrogate,
                n=self.count,
                draws=self.draws,
                attack_seed=self.attack_seed,
                surrogate=self.surrogate,
                weights=self.weights,
            )
            for named in (preset(self.preset, self.dataset) if self.preset else ({},))
        ]


def _cores() -> int:
    """Processors that this process may use, which a batch system may have made fewer than there are."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


def _typed(*options: tuple[str, Any, Any]) -> str:
    return "".join(f" {name} {shlex.quote(masked(str(value)))}" for name, value, default in options if value != default)


def _integers(option: str, values: list[str] | None) -> list[int]:
    numbers = []
    for text in filter(None, (piece.strip() for value in values or [] for piece in value.split(","))):
        try:
            numbers.append(int(text))
        except ValueError:
            raise BenchError(f"{option}: '{text}' is not an integer") from None
    return list(dict.fromkeys(numbers))


def _check_overrides(alpha: str | None, counts: Mapping[str, int | None]) -> None:
    """A mistake is one even where no attack of the matrix takes the option."""
    try:
        if alpha is not None and Fraction(alpha) < 0:
            raise BenchError(f"--alpha must not be negative, got {alpha}")
    except (ValueError, ZeroDivisionError):
        raise BenchError(f"--alpha {alpha} is not a number; write it as 2/255 or 0.01") from None
    for option, count in counts.items():
        if count is not None and count < 1:
            raise BenchError(f"{option} must be at least 1, got {count}")


def matrix_of(command: str) -> Matrix:
    """What the options of a `bench run` command come to, as the command itself would read them."""
    return parsed(Matrix, shlex.split(command)[2:])


def parsed(kind: type[Typed], words: Sequence[str]) -> Typed:
    """Words as the command line reads them."""
    read = list[Typed]()
    parser = typer.Typer()
    parser.command()(takes(kind)(read.append))
    typer.main.get_command(parser).main([*words], prog_name="bench run", standalone_mode=False)
    return read[0]


def option_fields(kind: type[Matrix]) -> list["Field[Any]"]:
    """The fields of `Matrix`, or of what is made of it, that are options."""
    return [f for f in fields(kind) if f.metadata.get("option", True)]


def field_hints(kind: type[Matrix]) -> dict[str, Any]:
    """How each field of `Matrix`, or of what is made of it, is declared."""
    return get_type_hints(kind, include_extras=True)


def named_fields(kind: type[Matrix]) -> dict[str, "Field[Any]"]:
    """The options by their long names, without dashes."""
    found, hints = {}, field_hints(kind)
    for f in option_fields(kind):
        option = hints[f.name].__metadata__[0]
        # The first declaration given to typer.Option arrives as its default.
        name = next(part for part in (option.default, *option.param_decls) if str(part).startswith("--"))
        found[name[2:]] = f
    return found


def takes_matrix(command: Callable[[Matrix], None]) -> Callable[..., None]:
    """Give a command every field of `Matrix` as an option."""
    return takes(Matrix)(command)


def takes(kind: type[Typed]) -> Callable[[Callable[[Typed], None]], Callable[..., None]]:
    """Give a command every field of `Matrix`, or of what is made of it, as an option."""
    known = field_hints(kind)
    hints = {f.name: known[f.name] for f in option_fields(kind)}
    parameters = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in option_fields(kind)
    ]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)

    def give(command: Callable[[Typed], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(context: typer.Context, **values: Any) -> None:
            sources = {name: context.get_parameter_source(name) for name in values}
            typed = frozenset(name for name, source in sources.items() if source and source.name == "COMMANDLINE")
            command(kind(**values, typed=typed))

        wrapper.__signature__ = inspect.Signature([context, *parameters])  # type: ignore[attr-defined]
        wrapper.__annotations__ = {"context": typer.Context, **hints}
        return wrapper

    return give
