"""Names for parts: built-in, from installed packages, or from a file the user names.

Nothing is imported until it is asked for, so listing names is cheap and a plug-in
that the user did not name never runs.
"""

import difflib
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import BenchError


@dataclass(frozen=True)
class Entry:
    """One registered name.

    Attributes:
        name: as typed on the command line.
        target: the object, or where to import it from (`module:attribute`), or an entry point.
        builtin: whether it ships with this project.
        packaged: whether `target` is the entry point of an installed package.
    """

    name: str
    target: Any
    builtin: bool
    packaged: bool = False

    def load(self) -> Any:
        """The object itself, imported now if it was not yet."""
        if isinstance(self.target, str):
            module, _, attribute = self.target.partition(":")
            return getattr(importlib.import_module(module), attribute)
        return self.target.load() if self.packaged else self.target

    def origin(self) -> str:
        """Where the code lives: `file:line`, or the module for objects without a line."""
        source, line = self._source()
        return f"{source}:{line}" if source else str(self.target)

    def fingerprint(self) -> str:
        """Identifies the code of a plug-in by its source; built-in parts carry explicit version numbers instead."""
        if self.builtin:
            return ""
        source, _ = self._source()
        if source is None:
            raise BenchError(
                f"'{self.name}' has no source file, so its results could not be told from another version's"
            )
        return hashlib.sha256(source.read_bytes()).hexdigest()[:16]

    def _source(self) -> tuple[Path | None, int]:
        loaded = self.load()
        code = getattr(loaded, "run", None) or getattr(loaded, "load", None) or loaded
        code = inspect.unwrap(code.func if isinstance(code, functools.partial) else code)
        try:
            return Path(inspect.getsourcefile(code) or ""), inspect.getsourcelines(code)[1]
        except (TypeError, OSError):
            return None, 0


class Registry:
    """All names of one kind.

    Args:
        kind: singular noun for messages, for example `defense`.
        builtin: name -> `module:attribute`.
        with_options: whether a name is looked up without what follows a colon, so that `n-mnist:T=4` is known.
        elsewhere: finds the entry of a name that says itself where the part is; None for other names.
    """

    def __init__(
        self,
        kind: str,
        builtin: Mapping[str, str],
        with_options: bool = False,
        elsewhere: Callable[[str], Entry | None] | None = None,
    ) -> None:
        self.kind = kind
        self._with_options = with_options
        self._elsewhere = elsewhere
        self._entries = {name: Entry(name, target, True) for name, target in builtin.items()}
        self._scanned = False

    def add(self, name: str, target: Any) -> None:
        """Register an object under a new name.

        Raises:
            BenchError: the name is taken or holds other characters.
        """
        if not name.replace("-", "").replace("_", "").isalnum():
            raise BenchError(f"{self.kind} name '{name}' may hold letters, digits, '-' and '_' only")
        self._scan()
        if name in self._entries:
            raise BenchError(f"{self.kind} '{name}' is already registered by {self._entries[name].origin()}")
        self._entries[name] = Entry(name, target, False)

    def entry(self, name: str) -> Entry:
        """The entry of that name.

        Raises:
            BenchError: no such name; the message suggests the nearest.
        """
        name = self._plain(name)
        if name not in self._entries:
            self._scan()
        if name not in self._entries:
            found = self._elsewhere(name) if self._elsewhere else None
            if found is not None:
                return found
            raise BenchError(
                f"unknown {self.kind} '{name}'{nearest(name, self._entries)}; see: bench ls {self.kind}s "
                "(a plug-in's names need --plugin FILE)"
            )
        return self._entries[name]

    def get(self, name: str) -> Any:
        """The registered object of that name; see `entry`."""
        return self.entry(name).load()

    def __contains__(self, name: str) -> bool:
        name = self._plain(name)
        if name not in self._entries:
            self._scan()
        return name in self._entries

    def names(self) -> list[str]:
        self._scan()
        return list(self._entries)

    def _plain(self, name: str) -> str:
        return name.partition(":")[0].strip() if self._with_options else name

    def _scan(self) -> None:
        if self._scanned:
            return
        self._scanned = True
        from importlib.metadata import entry_points  # a tenth of the time that `bench --help` takes

        for point in entry_points(group=f"bench.{self.kind}s"):
            if point.name in self._entries:
                raise BenchError(f"package '{point.value}' registers {self.kind} '{point.name}', which is taken")
            self._entries[point.name] = Entry(point.name, point, False, packaged=True)


def nearest(name: str, names: Mapping[str, Any] | list[str]) -> str:
    """`, did you mean 'x'?` for the nearest name, or an empty string."""
    close = difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.5)
    return f", did you mean '{close[0]}'?" if close else ""


DEFENSES = Registry(
    "defense",
    {
        "vanilla": "defenses.vanilla:vanilla",
        "at": "defenses.at:at",
        "at8": "defenses.at8:at8",
        "rat": "defenses.rat:rat",
        "sr": "defenses.sr:sr",
        "mc": "defenses.mc:mc",
        "nlif": "defenses.nlif:nlif",
        "tgo": "defenses.tgo:tgo",
        "stog": "defenses.stog:stog",
        "dlif": "defenses.dlif:dlif",
        "mppd": "defenses.mppd:mppd",
        "el": "defenses.el:el",
        "hosnn": "defenses.hosnn:hosnn",
        "fe": "defenses.fe:fe",
        "poisson": "defenses.poisson:poisson",
        "signed-rate": "defenses.signed_rate:signed_rate",
        "sqe": "defenses.sqe:sqe",
        "trades": "defenses.trades:trades",
        "mpd-sgr": "defenses.mpd_sgr:mpd_sgr",
        "dsd": "defenses.dsd:dsd",
        "hire": "defenses.hire:hire",
        "tet": "defenses.tet:tet",
    },
)
ATTACKS = Registry(
    "attack",
    {
        "clean": "attacks.fgsm:CLEAN",
        "fgsm": "attacks.fgsm:FGSM",
        "rfgsm": "attacks.fgsm:RFGSM",
        "pgd": "attacks.pgd:PGD",
        "apgd": "attacks.apgd:APGD",
        "mtpgd": "attacks.mtpgd:MTPGD",
        "sapgd": "attacks.sapgd:SAPGD",
        "square": "attacks.square:SQUARE",
        "sweep": "attacks.sweep:SWEEP",
        "snn-standard": "attacks.standard:SNN_STANDARD",
        "autoattack": "attacks.external.autoattack:AUTOATTACK",
        "autoattack-rand": "attacks.autorand:AUTORAND",
        "art": "attacks.external.art:ART",
        "random-edits": "attacks.events.random_edits:RANDOM_EDITS",
        "greedy": "attacks.events.greedy:GREEDY",
        "retime": "attacks.events.retime:RETIME",
        "sda": "attacks.events.sda:SDA",
        "spikefool": "attacks.events.spikefool:SPIKEFOOL",
        "yao": "attacks.events.yao:YAO",
        "sparse": "attacks.events.sparse:SPARSE",
        "frame": "attacks.events.frame:FRAME",
        "corner": "attacks.events.corner:CORNER",
        "dash": "attacks.events.dash:DASH",
        "mf-dash": "attacks.events.mfdash:MF_DASH",
    },
)
GRADIENTS = Registry(
    "gradient",
    {
        "triangular": "models.surrogates:Triangular",
        "rectangular": "models.surrogates:Rectangular",
        "arctan": "models.surrogates:ArcTan",
        "sigmoid": "models.surrogates:Sigmoid",
        "gaussian": "models.surrogates:Gaussian",
        "bptr": "attacks.gradients.rates:BPTR",
        "rga": "attacks.gradients.rates:RGA",
        "hart": "attacks.gradients.hart:HART",
        "assg": "attacks.gradients.assg:ASSG",
        "pdsg": "attacks.gradients.pdsg:PDSG",
        "conversion": "attacks.gradients.conversion:Conversion",
        "noiseless": "attacks.gradients.noiseless:Noiseless",
    },
)


def _user_model(name: str) -> Entry | None:
    """`mymodule:build`, see `bench.usermodel`."""
    from bench.usermodel import user_model

    return user_model(name)


MODELS = Registry(
    "model",
    {
        "cnn-small": "models.cnn:cnn_small",
        "cnn-medium": "models.cnn:cnn_medium",
        "cnn-large": "models.cnn:cnn_large",
        "tiny": "models.tiny:tiny",
        "tiny-wide": "models.tiny:tiny_wide",
        "vgg11": "models.vgg:VGG11",
        "wrn16-4": "models.wrn:WRN16x4",
    },
    elsewhere=_user_model,
)
DATASETS = Registry(
    "dataset",
    {
        "digits": "bench.data.digits:DIGITS",
        "digits4": "bench.data.digits4:DIGITS4",
        "cifar10": "bench.data.cifar:CIFAR10",
        "cifar100": "bench.data.cifar:CIFAR100",
        "digits-dvs": "bench.data.digits_dvs:DIGITS_DVS",
        "n-mnist": "bench.data.nmnist:N_MNIST",
        "cifar10-dvs": "bench.data.cifar10_dvs:CIFAR10_DVS",
        "dvs128-gesture": "bench.data.dvs128_gesture:DVS128_GESTURE",
    },
    with_options=True,
)
KINDS = {registry.kind: registry for registry in (DEFENSES, ATTACKS, GRADIENTS, MODELS, DATASETS)}


class _Register:
    """Decorators for plug-in files: `@register.defense("name")`, `@register.attack("name", takes_steps=True)`."""

    def defense(self, name: str) -> Callable[[Any], Any]:
        """Register a function that returns a `Defense`; its keyword arguments are its hyper-parameters."""
        return self._plain(DEFENSES, name)

    def gradient(self, name: str) -> Callable[[Any], Any]:
        """Register a frozen dataclass that is a `SpikeGradient` or a `Surrogate`; its fields are its parameters."""

        def decorate(target: Any) -> Any:
            from attacks.gradients.names import check_gradient_class

            try:
                check_gradient_class(target, name)
            except ValueError as error:
                raise BenchError(str(error)) from error
            GRADIENTS.add(name, target)
            return target

        return decorate

    def model(self, name: str) -> Callable[[Any], Any]:
        """Register `build(num_classes, in_shape, T, neuron, mean, std) -> nn.Module` with logits."""
        return self._plain(MODELS, name)

    def dataset(self, name: str) -> Callable[[Any], Any]:
        """Register a `DatasetSource`."""
        return self._plain(DATASETS, name)

    def attack(self, name: str, summary: str = "", **options: Any) -> Callable[[Any], Any]:
        """Register `attack(model, x, y, threat, *, rng, **params) -> x_adv`.

        Args:
            name: as typed on the command line.
            summary: for listings; the docstring's first line if not given.
            options: fields of `attacks.Attack`, for example `takes_steps=True`. `defaults` are read from
                the function's keyword-only parameters unless given.

        Raises:
            BenchError: the name is taken, or the function lacks a parameter that it will be called with.
        """

        def decorate(run: Any) -> Any:
            from attacks.base import Attack

            first_line = (inspect.getdoc(run) or "").split("\n")[0]
            settled = {"defaults": _defaults(name, run, options), **options}
            ATTACKS.add(name, Attack(run, summary or first_line, **settled))
            return run

        return decorate

    def _plain(self, registry: Registry, name: str) -> Callable[[Any], Any]:
        def decorate(target: Any) -> Any:
            registry.add(name, target)
            return target

        return decorate


def _defaults(name: str, run: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters a user may set: keyword-only ones that the harness does not fill in itself."""
    parameters = inspect.signature(run).parameters
    given = {"rng"}
    if options.get("takes_steps"):
        given.add("steps")
    if options.get("shares_trajectory"):
        given.add("snapshots")
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    missing = sorted(given - set(parameters))
    if missing and not anything:
        raise BenchError(f"attack '{name}' must accept the keyword {', '.join(missing)}")
    own = {p.name: p.default for p in parameters.values() if p.kind is inspect.Parameter.KEYWORD_ONLY}
    own = {key: default for key, default in own.items() if key not in given}
    if taken := sorted(set(own) & {"eot", "gradient", "restarts", "steps", "snapshots"}):
        raise BenchError(f"attack '{name}': the parameter name '{taken[0]}' is the harness's own; rename it")
    if options.get("domain") == "events":
        from attacks.events.threat import RULES

        if taken := sorted((set(own) | set(options.get("defaults", ()))) & set(RULES)):
            raise BenchError(
                f"attack '{name}': the parameter name '{taken[0]}' is a rule's of the threat model on events, which "
                "`threat` holds; rename it"
            )
    unset = [key for key, default in own.items() if default is inspect.Parameter.empty]
    if unset and "defaults" not in options:
        raise BenchError(f"attack '{name}': parameter '{unset[0]}' needs a default value")
    return own


register = _Register()


def load_plugin(path: Path) -> None:
    """Run a Python file that registers parts.

    Raises:
        BenchError: the file is missing, or fails while it runs.
    """
    if not path.is_file():
        raise BenchError(f"plug-in file '{path}' does not exist")
    name = f"bench_plugin_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BenchError(f"plug-in '{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        # What it prints is not what a command answers.
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except BenchError:
        del sys.modules[name]
        raise
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BenchError(f"plug-in '{path}' failed to load: {type(error).__name__}: {error}") from error
