"""The options that several commands share, and what they mean together."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.errors import BenchError

if TYPE_CHECKING:
    from bench.store import Store

_PROTOCOL = "Protocol"
WHAT, TRAINING, HOW, WHERE = "What", "Training", "Who works, and how long", "Where"
_NORMS = ("linf", "l2", "linf-int", "events")


def _no_decimal_comma(values: list[str] | None) -> list[str] | None:
    """Refuse `0,1`, which would run the budgets 0 and 1, where almost everybody who types it means 0.1."""
    for value in values or []:
        if found := re.search(r"(?:^|,)0,(\d+)(?=,|$)", value):
            digits = found[1]
            raise BenchError(
                f"--eps {value}: the comma separates several eps; write 0.{digits} with a point, or give the "
                f"budgets one by one: --eps 0 --eps {digits}"
            )
    return values


def _known_norm(name: str | None) -> str | None:
    if name is not None and name not in _NORMS:
        raise BenchError(f"unknown norm '{name}'; choose from {', '.join(_NORMS)}")
    return name


Defenses = Annotated[
    list[str] | None,
    typer.Option(
        "--defense",
        "-d",
        metavar="NAME",
        help="Training recipe or a sum of them: tgo, tgo+at, mc:lam_max=0.6+rat; vanilla if not given. "
        "Several: repeat, or separate by commas.",
        rich_help_panel=WHAT,
    ),
]
Attacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        "-a",
        metavar="NAME",
        help="Attack and step count: fgsm, pgd40, apgd20:loss=dlr, sapgd100@assg; pgd40 if not given. "
        "Several as above.",
        rich_help_panel=WHAT,
    ),
]
CodeOf = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="FILE.py:NAME",
        help="The cell's model, where that is code of a file: it is run only if you name it.",
    ),
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="digits (built in, the default), another (bench ls datasets), n-mnist:T=4,by=time, or the path of an .npz file.",
        rich_help_panel=WHAT,
    ),
]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="Architecture (bench ls models), or mymodule:build, or path/file.py:build; the dataset's default if not given.",
        rich_help_panel=WHAT,
    ),
]
# Of the commands that choose among what is stored, where no default applies.
OnlyDefenses = Annotated[
    list[str] | None,
    typer.Option(
        "--defense",
        "-d",
        metavar="NAME",
        help="Only networks of this training recipe, as it is listed: tgo+at. Several: repeat, or separate by commas.",
        rich_help_panel=WHAT,
    ),
]
OnlyAttacks = Annotated[
    list[str] | None,
    typer.Option(
        "--attack",
        "-a",
        metavar="NAME",
        help="Only this attack, as it is listed: pgd40. Several: repeat, or separate by commas.",
        rich_help_panel=WHAT,
    ),
]
OnlyDataset = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="NAME",
        help="Only this dataset; that of an .npz file goes by the file's name without its ending.",
        rich_help_panel=WHAT,
    ),
]
OnlyModel = Annotated[
    str | None,
    typer.Option("--model", metavar="NAME", help="Only this architecture.", rich_help_panel=WHAT),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="The runs of a table or figure of the paper: table1 to table5, fig1, fig3, fig4, fig5; lineage: its predecessors in their own setting. Other options override it.",
        rich_help_panel=WHAT,
    ),
]
MatrixFile = Annotated[
    Path | None,
    typer.Option(
        "--matrix",
        metavar="FILE",
        help="A TOML file of several matrices, with these options as its keys: docs/matrix-files.md. Other options "
        "override it.",
        rich_help_panel=WHAT,
    ),
]
MatrixParts = Annotated[
    list[str] | None,
    typer.Option(
        "--part",
        metavar="NAME",
        help="Only the parts of the file with this name. Several: repeat, or separate by commas.",
        rich_help_panel=WHAT,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Attack this safetensors checkpoint instead of training.",
        rich_help_panel=WHAT,
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE",
        help="Python file that registers defenses, attacks, models or datasets. Repeatable.",
        rich_help_panel=WHAT,
    ),
]

Eps = Annotated[
    list[str] | None,
    typer.Option(
        "--eps",
        metavar="EPS",
        help="Budget in pixel units of images in [0, 1], of frames in units of their scale: 8/255 or 0.15. The "
        "dataset's if not given: 8/255, and 0.1 for digits. Several make a curve.",
        callback=_no_decimal_comma,
        rich_help_panel=_PROTOCOL,
    ),
]
EventEps = Annotated[
    list[str] | None,
    typer.Option(
        "--event-eps",
        metavar="EPS",
        help="Budget of attacks on events, in edits for each event of a recording; 0.05 if not given. Several make a "
        "curve. Where all attacks edit events, --eps does the same.",
        callback=_no_decimal_comma,
        rich_help_panel=_PROTOCOL,
    ),
]
EventRules = Annotated[
    str | None,
    typer.Option(
        "--event-rules",
        metavar="RULES",
        help="What else attacks on events may do: max_shift=5000,min_gap=1 (microseconds), and shares of the events as "
        "added=0.02 (removed, shifted, on, off). For one attack: random-edits:added=0.",
        rich_help_panel=_PROTOCOL,
    ),
]
NormName = Annotated[
    str,
    typer.Option(
        "--norm",
        metavar="NORM",
        help="linf, l2, or linf-int: linf over whole counts. Attacks on events have events anyway.",
        callback=_known_norm,
        rich_help_panel=_PROTOCOL,
    ),
]
OnlyNorm = Annotated[
    str | None,
    typer.Option(
        "--norm", metavar="NORM", help="Only linf, l2, linf-int or events.", callback=_known_norm, rich_help_panel=WHAT
    ),
]
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
Eot = Annotated[
    int | None,
    typer.Option(
        "--eot",
        metavar="INT",
        help="Noisy networks: attack with the mean gradient over so many draws of the noise.",
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
Iterate = Annotated[
    str,
    typer.Option(
        "--iterate",
        metavar="NAME",
        help="both (last and any iterate from one run), or any: stop at an image's first misclassified iterate, which "
        "costs a fraction where attacks succeed. Noisy networks are attacked to the end.",
        rich_help_panel=_PROTOCOL,
    ),
]
Bf16 = Annotated[
    bool,
    typer.Option(
        "--bf16",
        help="Screening: craft in bfloat16, about twice as fast, score in float32. Moves robust accuracy by points; such "
        "rows are named so and never ranked.",
        rich_help_panel=_PROTOCOL,
    ),
]
Reference = Annotated[
    bool,
    typer.Option(
        "--reference",
        help="Train, craft and score on the slow path: the neuron's equations and autograd. For checking the fast one.",
        rich_help_panel=_PROTOCOL,
    ),
]
AttackSurrogate = Annotated[
    str | None,
    typer.Option(
        "--attack-surrogate",
        metavar="NAME",
        help="How the attacker differentiates spikes (bench ls gradients): arctan:alpha=4, assg, rga. The network's "
        "own surrogate if not given; for one attack: pgd40@rga.",
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
        "--seed", metavar="INT", help="Training seed; 0 if not given. Several as above.", rich_help_panel=TRAINING
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "-T",
        "--time-steps",
        metavar="INT",
        help="Time steps of the network, 4 if not given; one for each of a recording's frames.",
        rich_help_panel=TRAINING,
    ),
]
Decay = Annotated[
    float | None,
    typer.Option(
        "--decay",
        metavar="X",
        help="Leak of the neurons, 0.5 if not given; 1 is integrate-and-fire.",
        rich_help_panel=TRAINING,
    ),
]
SurrogateName = Annotated[
    str,
    typer.Option(
        "--surrogate", metavar="NAME", help="Surrogate used in training: triangular:gamma=1.", rich_help_panel=TRAINING
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        "--epochs", metavar="INT", help="Training epochs; 300 on CIFAR, 15 on digits.", rich_help_panel=TRAINING
    ),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", metavar="INT", help="Training batch.", rich_help_panel=TRAINING)
]
LearningRate = Annotated[
    float | None,
    typer.Option("--lr", metavar="X", help="Learning rate at the start of the cosine; 0.1.", rich_help_panel=TRAINING),
]
WeightDecay = Annotated[
    float | None,
    typer.Option(
        "--weight-decay", metavar="X", help="Of SGD, unless the defense decides it; 0.0005.", rich_help_panel=TRAINING
    ),
]
Tuned = Annotated[
    bool,
    typer.Option(
        "--tuned",
        help="Each defense with the values that bench tune found best for exactly this training.",
        rich_help_panel=TRAINING,
    ),
]
TrainBf16 = Annotated[
    bool,
    typer.Option(
        "--train-bf16",
        help="Train with convolutions and neurons in bfloat16; the weights stay float32.",
        rich_help_panel=TRAINING,
    ),
]
TrainSize = Annotated[
    int | None,
    typer.Option(
        "--train-size", metavar="INT", help="Train on the first so many images; 0 means all.", rich_help_panel=TRAINING
    ),
]

DataDir = Annotated[
    Path,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        envvar="BENCH_DATA",
        help="Folder of datasets; downloads go there.",
        rich_help_panel=WHERE,
    ),
]
Results = Annotated[
    Path,
    typer.Option(
        "--results",
        metavar="DIR",
        envvar="BENCH_RESULTS",
        help="Folder of the database and the checkpoints.",
        rich_help_panel=WHERE,
    ),
]
StoreTarget = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="TARGET",
        help="Database file or URL; RESULTS/bench.sqlite if not given.",
        rich_help_panel=WHERE,
    ),
]
Device = Annotated[
    str, typer.Option("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1.", rich_help_panel=WHERE)
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="INT", help="CPU threads; all cores if not given.", rich_help_panel=WHERE),
]
TuneBudget = Annotated[
    int | None,
    typer.Option(
        "--budget",
        metavar="INT",
        help="Trials of each defense, which are trainings; the default setting is the first. A larger one continues.",
        rich_help_panel=WHAT,
    ),
]
HeldOut = Annotated[
    int | None,
    typer.Option(
        "--held-out",
        metavar="INT",
        help="Training images that settings are judged on and not trained on; a fifth, and 5,000 at most, if not given.",
        rich_help_panel=_PROTOCOL,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="INT",
        help="Worker processes; one for each GPU if not given, or one on the CPU. They share the cores and the GPUs.",
        rich_help_panel=HOW,
    ),
]
Executor = Annotated[
    str,
    typer.Option(
        "--executor",
        metavar="NAME",
        help="local, or ray: the machines of a Ray cluster; results go to a database that all reach (--store).",
        rich_help_panel=HOW,
    ),
]
Address = Annotated[
    str,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        help="Of the Ray cluster: host:6379, or auto for the one that this machine belongs to.",
        rich_help_panel=HOW,
    ),
]
Gpus = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker",
        metavar="X",
        help="Of a Ray cluster; 0.5 puts two workers on a GPU, 0 none. 1 if the cluster has GPUs.",
        rich_help_panel=HOW,
    ),
]
MaxTime = Annotated[
    str | None,
    typer.Option(
        "--max-time",
        metavar="TIME",
        help="Begin nothing new after this long: 90s, 15m, 1h30m. What runs ends its chunk of images or its epoch.",
        rich_help_panel=HOW,
    ),
]
MaxForwards = Annotated[
    int | None,
    typer.Option(
        "--max-forwards",
        metavar="INT",
        help="Begin nothing new after so many forward passes of images in attacks and scoring; training is not counted.",
        rich_help_panel=HOW,
    ),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]

DEFAULT_DATA = Path("data")
DEFAULT_RESULTS = Path("results")


def load_plugins(paths: list[Path] | None) -> None:
    """Run the plug-in files the user named."""
    from bench.registry import load_plugin

    for path in paths or []:
        load_plugin(path)


def open_store(results: Path, store: str | None) -> "Store":
    """The database the options name."""
    from bench.store import Store

    return Store(store or results / "bench.sqlite")


def open_existing_store(results: Path, store: str | None) -> "Store | None":
    """As `open_store`, to read: an SQLite file that is not there is not created (None), one that is read-only is read."""
    target = store or str(results / "bench.sqlite")
    if "://" not in target and not Path(target).exists():
        return None
    from bench.store import Store

    return Store(target, reading=True)


def no_store(results: Path, store: str | None) -> str:
    """What to say where there is nothing to read."""
    place = f"no store '{store}'" if store else f"no store in '{results}'"
    return f"there is {place} yet; make one with: bench run --defense tgo --attack pgd40"


def write_or_print(text: str, output: Path | None) -> None:
    """Print what a command renders, or write it to the file the user named."""
    if output is None:
        print(text)
        return
    from bench.atomic import write_atomically

    write_atomically(output, (text + "\n").encode())
    print(f"wrote {output}")
