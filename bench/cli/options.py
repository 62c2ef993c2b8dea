"""The options that several commands share, and what they mean together."""

import functools
import inspect
import shlex
from collections.abc import Callable
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    import torch

    from bench.plan import Plan, Request
    from bench.store import Store

_WHAT, _PROTOCOL, _TRAINING, _WHERE = "What", "Protocol", "Training", "Where"

Defenses = Annotated[
    list[str] | None,
    typer.Option(
        "--defense",
        "-d",
        metavar="NAME",
        help="Training recipe or a sum of them: tgo, tgo+at, mc:lam_max=0.6+rat; vanilla if not given. "
        "Several: repeat, or separate by commas.",
        rich_help_panel=_WHAT,
    ),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        "-a",
        metavar="NAME",
        help="Attack and step count: fgsm, pgd40, pgd40:alpha=0.01; pgd40 if not given. Several as above.",
        rich_help_panel=_WHAT,
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="digits (built in, the default), cifar10, cifar100, or the path of an .npz file.",
        rich_help_panel=_WHAT,
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Architecture (bench ls models); the dataset's default if not given.",
        rich_help_panel=_WHAT,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="A named matrix: table1, table2, table4. Other options override it.",
        rich_help_panel=_WHAT,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Attack this safetensors checkpoint instead of training.",
        rich_help_panel=_WHAT,
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file that registers defenses, attacks, models or datasets. Repeatable.",
        rich_help_panel=_WHAT,
    ),
]

Eps = Annotated[
    list[str] | None,
    typer.Option(
        "--eps",
        metavar="EPS",
        help="Budget in pixel units of images in [0, 1]: 8/255 or 0.15. The dataset's if not given: 8/255, and 0.1 "
        "for digits. Several make a curve.",
        rich_help_panel=_PROTOCOL,
    ),
]
NormName = Annotated[str, typer.Option("--norm", metavar="NORM", help="linf or l2.", rich_help_panel=_PROTOCOL)]
Alpha = Annotated[
    str | None,
    typer.Option(
        "--alpha",
        metavar="STEP",
        help="Step size in pixel units; eps*51/160 if not given (0.01 at 8/255, as in the paper).",
        rich_help_panel=_PROTOCOL,
    ),
]
Restarts = Annotated[
    int | None,
    typer.Option(
        "--restarts",
        metavar="INT",
        help="Independent runs of iterative attacks, the strongest kept per image.",
        rich_help_panel=_PROTOCOL,
    ),
]
NoRandomStart = Annotated[
    bool,
    typer.Option(
        "--no-random-start",
        help="Start PGD at the image instead of at a random point of the ball.",
        rich_help_panel=_PROTOCOL,
    ),
]
AttackSurrogate = Annotated[
    str | None,
    typer.Option(
        "--attack-surrogate",
        metavar="NAME",
        help="Surrogate the attacker differentiates spikes by: arctan:alpha=4. The network's own if not given.",
        rich_help_panel=_PROTOCOL,
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--images",
        metavar="INT",
        help="Attack the first so many test images, 0 means all; 1000 if not given, 500 digits.",
        rich_help_panel=_PROTOCOL,
    ),
]
Draws = Annotated[
    int | None,
    typer.Option(
        "--draws",
        metavar="INT",
        help="Scoring draws per image; 1 for deterministic networks, 5 for noisy ones if not given.",
        rich_help_panel=_PROTOCOL,
    ),
]
AttackSeed = Annotated[
    int,
    typer.Option(
        "--attack-seed", metavar="INT", help="Selects the attacks' random numbers.", rich_help_panel=_PROTOCOL
    ),
]

Seeds = Annotated[
    list[str] | None,
    typer.Option(
        "--seed", metavar="INT", help="Training seed; 0 if not given. Several as above.", rich_help_panel=_TRAINING
    ),
]
Steps = Annotated[
    int, typer.Option("-T", "--time-steps", metavar="INT", help="Time steps of the network.", rich_help_panel=_TRAINING)
]
Decay = Annotated[
    float,
    typer.Option(
        "--decay", metavar="X", help="Leak of the neurons; 1 is integrate-and-fire.", rich_help_panel=_TRAINING
    ),
]
SurrogateName = Annotated[
    str,
    typer.Option(
        "--surrogate", metavar="NAME", help="Surrogate used in training: triangular:gamma=1.", rich_help_panel=_TRAINING
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs", metavar="INT", help="Training epochs; 300 on CIFAR, 15 on digits.", rich_help_panel=_TRAINING
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="INT", help="Training batch.", rich_help_panel=_TRAINING)
]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", metavar="X", help="Learning rate at the start of the cosine; 0.1.", rich_help_panel=_TRAINING),
]
TrainSize = Annotated[
    int | None,
    typer.Option(
        "--train-size", metavar="INT", help="Train on the first so many images; 0 means all.", rich_help_panel=_TRAINING
    ),
]

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar="BENCH_DATA",
        help="Folder of datasets; downloads go there.",
        rich_help_panel=_WHERE,
    ),
]
Results = Annotated[
    Path,
    typer.Option(
        "--results",
        metavar="DIR",
        envvar="BENCH_RESULTS",
        help="Folder of the database and the checkpoints.",
        rich_help_panel=_WHERE,
    ),
]
StoreTarget = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="TARGET",
        help="Database file or URL; RESULTS/bench.sqlite if not given.",
        rich_help_panel=_WHERE,
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1.", rich_help_panel=_WHERE)
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="INT", help="CPU threads; all cores if not given.", rich_help_panel=_WHERE),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

DEFAULT_DATA = Path("data")
DEFAULT_RESULTS = Path("results")


def load_plugins(paths: list[Path] | None) -> None:
    """Run the plug-in files the user named."""
    from bench.registry import load_plugin

    for path in paths or []:
        load_plugin(path)


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """The options of `run` and `plan`, as typed."""

    defenses: Defenses = None
    attacks: Attacks = None
    dataset: DatasetName = None
    model: ModelName = None
    preset: Preset = None
    weights: Weights = None
    plugins: Plugins = None
    eps: Eps = None
    norm: NormName = "linf"
    alpha: Alpha = None
    restarts: Restarts = None
    no_random_start: NoRandomStart = False
    attack_surrogate: AttackSurrogate = None
    count: Count = None
    draws: Draws = None
    attack_seed: AttackSeed = 0
    seeds: Seeds = None
    T: Steps = 4
    decay: Decay = 0.5
    surrogate: SurrogateName = "triangular"
    epochs: Epochs = None
    batch_size: BatchSize = None
    lr: LearningRate = None
    train_size: TrainSize = None
    data_dir: DataDir = DEFAULT_DATA
    results: Results = DEFAULT_RESULTS
    store: StoreTarget = None
    device: Device = "auto"
    threads: Threads = None
    as_json: AsJson = False

    def plan(self) -> "Plan":
        """Resolve these options completely. Computes nothing; a dataset that is not there yet is fetched.

        Raises:
            BenchError: a mistake in the options.
        """
        from bench.plan import make_plan

        load_plugins(self.plugins)
        return make_plan(self._request(), self.checkpoints, self.data_dir)

    @property
    def checkpoints(self) -> Path:
        """The folder of trained weights."""
        return self.results / "checkpoints"

    def store_options(self) -> str:
        """What a command needs in addition to find this store, as typed; begins with a space or is empty."""
        return _typed(("--results", self.results, DEFAULT_RESULTS), ("--store", self.store, None))

    def protocol_options(self) -> str:
        """Every option that was typed, except those that say which defenses and attacks to run."""
        parts = []
        hints = get_type_hints(Matrix, include_extras=True)
        for f in fields(self):
            value = getattr(self, f.name)
            if value == f.default or f.name in ("defenses", "attacks", "preset", "weights", "as_json"):
                continue
            option = hints[f.name].__metadata__[0]
            # The first declaration given to typer.Option arrives as its default.
            name = next(part for part in (option.default, *option.param_decls) if part.startswith("--"))
            for item in value if isinstance(value, list) else [value]:
                parts.append(f" {name}" if item is True else f" {name} {shlex.quote(str(item))}")
        return "".join(parts)

    def _request(self) -> "Request":
        from bench.plan import Request
        from bench.presets import preset

        typed: dict[str, Any] = {
            "defenses": self.defenses,
            "attacks": self.attacks,
            "dataset": self.dataset,
            "model": self.model,
            "eps": self.eps,
            "seeds": _integers("--seed", self.seeds),
        }
        _check_overrides(self.alpha, self.restarts)
        random_start = False if self.no_random_start else None
        params = {"alpha": self.alpha, "restarts": self.restarts, "random_start": random_start}
        chosen = (preset(self.preset) if self.preset else {}) | {k: v for k, v in typed.items() if v}
        return Request(
            **chosen,
            norm=self.norm,
            params={key: str(value) for key, value in params.items() if value is not None},
            attack_surrogate=self.attack_surrogate,
            n=self.count,
            draws=self.draws,
            attack_seed=self.attack_seed,
            T=self.T,
            decay=self.decay,
            surrogate=self.surrogate,
            recipe={
                "epochs": self.epochs,
                "batch_size": self.batch_size,
                "lr": self.lr,
                "train_size": self.train_size,
            },
            weights=self.weights,
        )


def _typed(*options: tuple[str, Any, Any]) -> str:
    return "".join(f" {name} {shlex.quote(str(value))}" for name, value, default in options if value != default)


def _integers(option: str, values: list[str] | None) -> list[int]:
    from bench.errors import BenchError

    numbers = []
    for text in filter(None, (piece.strip() for value in values or [] for piece in value.split(","))):
        try:
            numbers.append(int(text))
        except ValueError:
            raise BenchError(f"{option}: '{text}' is not an integer") from None
    return list(dict.fromkeys(numbers))


def _check_overrides(alpha: str | None, restarts: int | None) -> None:
    """A mistake is one even where no attack of the matrix takes the option."""
    from bench.errors import BenchError

    try:
        if alpha is not None and Fraction(alpha) < 0:
            raise BenchError(f"--alpha must not be negative, got {alpha}")
    except (ValueError, ZeroDivisionError):
        raise BenchError(f"--alpha {alpha} is not a number; write it as 2/255 or 0.01") from None
    if restarts is not None and restarts < 1:
        raise BenchError(f"--restarts must be at least 1, got {restarts}")


def takes_matrix(command: Callable[[Matrix], None]) -> Callable[..., None]:
    """Give a command every field of `Matrix` as an option."""

    @functools.wraps(command)
    def wrapper(**typed: Any) -> None:
        command(Matrix(**typed))

    hints = get_type_hints(Matrix, include_extras=True)
    parameters = [
        inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name])
        for f in fields(Matrix)
    ]
    wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    wrapper.__annotations__ = hints
    return wrapper


def open_store(results: Path, store: str | None) -> "Store":
    """The database the options name."""
    from bench.store import Store

    return Store(store or results / "bench.sqlite")


def open_existing_store(results: Path, store: str | None) -> "Store | None":
    """As `open_store`, but an SQLite file that does not exist is not created: None."""
    target = store or str(results / "bench.sqlite")
    if "://" not in target and not Path(target).exists():
        return None
    return open_store(results, store)


def no_store(results: Path, store: str | None) -> str:
    """What to say where there is nothing to read."""
    place = f"no store '{store}'" if store else f"no store in '{results}'"
    return f"there is {place} yet; make one with: bench run --defense tgo --attack pgd40"


def pick_device(name: str, threads: int | None) -> "torch.device":
    """Choose the device and prepare the process for it.

    Raises:
        BenchError: no such device here.
    """
    import torch

    from bench.errors import BenchError
    from bench.runtime import exact_arithmetic, tune_allocator

    tune_allocator()
    exact_arithmetic()
    if threads is not None:
        if threads < 1:
            raise BenchError(f"--threads must be at least 1, got {threads}")
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        # torch lists every device type it ever had.
        reason = str(error).splitlines()[0].partition("Expected one of")[0].rstrip(" :") or "no such device"
        raise BenchError(f"device '{name}' cannot be used here: {reason}; try --device cpu") from error
    return device
