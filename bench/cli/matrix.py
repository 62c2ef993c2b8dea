"""The options of `run` and `plan` together: what was typed, as a request."""

import functools
import inspect
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

from bench.cli import options as o
from bench.errors import BenchError
from bench.secret import masked

if TYPE_CHECKING:
    import torch

    from bench.plan import Plan, Request
    from bench.scheduler import Budget, Crew


_ONCE = ("defenses", "attacks", "preset", "weights", "tuned", "max_time", "max_forwards", "as_json")
"""Options that belong to one command, and not to the next that is worth trying."""
_OF_THE_TEST = ("count", "draws", "seeds")
"""Options of a measurement that are not those of a search for what is to be measured."""


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The options of `run` and `plan`, as typed."""

    defenses: o.Defenses = None
    attacks: o.Attacks = None
    dataset: o.DatasetName = None
    model: o.ModelName = None
    preset: o.Preset = None
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

    def plan(self) -> "Plan":
        """Resolve these options completely. Computes nothing; a dataset that is not there yet is fetched.

        Raises:
            BenchError: a mistake in the options.
        """
        from bench.plan import make_plan, together

        o.load_plugins(self.plugins)
        requests = self.requests()
        if self.tuned:
            from bench.tuning.chosen import tuned

            opened = o.open_existing_store(self.results, self.store)
            options = self.protocol_options(without=_OF_THE_TEST)
            found = (tuned(one, opened, self.checkpoints, self.data_dir, options) for one in requests)
            requests = [request for each in found for request in each]
        return together([make_plan(request, self.checkpoints, self.data_dir) for request in requests])

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
        plugins = tuple(path.resolve() for path in self.plugins or ())
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
        parts = []
        hints = get_type_hints(Matrix, include_extras=True)
        for f in fields(Matrix):
            value = getattr(self, f.name)
            if value == f.default or f.name in (*_ONCE, *without):
                continue
            option = hints[f.name].__metadata__[0]
            # The first declaration given to typer.Option arrives as its default.
            name = next(part for part in (option.default, *option.param_decls) if part.startswith("--"))
            for item in value if isinstance(value, list) else [value]:
                parts.append(f" {name}" if item is True else f" {name} {shlex.quote(masked(str(item)))}")
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
    import typer

    read = list[Matrix]()

    @takes_matrix
    def keep(matrix: Matrix) -> None:
        read.append(matrix)

    parser = typer.Typer()
    parser.command()(keep)
    typer.main.get_command(parser).main(shlex.split(command)[2:], prog_name="bench run", standalone_mode=False)
    return read[0]


Typed = TypeVar("Typed", bound=Matrix)


def takes_matrix(command: Callable[[Matrix], None]) -> Callable[..., None]:
    """Give a command every field of `Matrix` as an option."""
    return takes(Matrix)(command)


def takes(kind: type[Typed]) -> Callable[[Callable[[Typed], None]], Callable[..., None]]:
    """Give a command every field of `Matrix`, or of what is made of it, as an option."""
    hints = get_type_hints(kind, include_extras=True)
    parameters = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(kind)
    ]

    def give(command: Callable[[Typed], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**typed: Any) -> None:
            command(kind(**typed))

        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = hints
        return wrapper

    return give
