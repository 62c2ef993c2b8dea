"""`bench` from Python: results as data frames, and the evaluation of a model in hand."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from attacks.gradients import frozen
from attacks.gradients.estimation import takes_whole_trains
from bench.budgets import Budgets
from bench.data import Dataset, load_dataset
from bench.data.dataset import Protocol, pixels
from bench.errors import BenchError, describe
from bench.exchange.bundle import Bundle, collect_bundle
from bench.exchange.files import write_results
from bench.frames import cells_frame, samples_frame
from bench.hygiene import Snapshot, check_model
from bench.names import without, without_eot
from bench.outcome import Outcome
from bench.plan import STOCHASTIC_DRAWS, trajectories
from bench.provenance import provenance
from bench.resolve import parse_attack
from bench.runtime import pick_device
from bench.scheduler import Place, measure
from bench.selection import chosen_cells
from bench.spec import CellSpec, ModelSpec, Recipe, identity_of
from bench.store import CellRow, Store
from bench.training import hash_of
from models.foreign import Adapted, adapted, libraries_of
from models.foreign.net import IMAGE
from models.neurons import NeuronSpec, is_stochastic
from models.random import NOISE_VERSION, noise_stream

_NOTHING = Recipe(epochs=1, batch_size=2)


def load_results(
    path: str | Path = "results",
    *,
    samples: bool = False,
    defenses: Sequence[str] | str | None = None,
    attacks: Sequence[str] | str | None = None,
    dataset: str | None = None,
    model: str | None = None,
    eps: str | float | None = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Stored results as a tidy data frame: one row for each finished cell. Nothing is computed.

    Args:
        path: a results folder, an SQLite file, or the URL of a database.
        samples: one row for each image of each cell instead.
        defenses, attacks: only these, as tables show them; one name or several.
        dataset, model, eps, seed: only this one.

    Returns:
        the columns that `bench.frames.cells_frame` lists, or `samples_frame`; rates are shares in [0, 1].

    Raises:
        BenchError: there is no store, or no cell matches.
    """
    target = str(path)
    # Opening a database that is not there would make it.
    target = target.removeprefix("sqlite:///") if target.startswith("sqlite:///") else target
    if "://" not in target:
        file = Path(target) / "bench.sqlite" if Path(target).is_dir() else Path(target)
        if not file.is_file():
            raise BenchError(f"there is no store '{file}'; make one with: bench run --defense tgo --attack pgd40")
        target = str(file)
    store = Store(target, reading=True)
    try:
        rows = chosen_cells(
            store, defenses=_several(defenses), attacks=_several(attacks), dataset=dataset, model=model,
            eps=None if eps is None else _written(eps), seed=seed,
        )  # fmt: skip
        return samples_frame(store, rows) if samples else cells_frame(store, rows)
    finally:
        store.close()


def _written(eps: Fraction | str | float) -> str:
    """A budget as it was meant: the float 0.1 is a tenth, and 8 / 255 is 8/255."""
    steps = round(float(eps) * 255) if isinstance(eps, float) and abs(eps) < 1e6 else 0
    return f"{steps}/255" if steps and abs(float(eps) - steps / 255) < 1e-12 else str(eps)


def _several(names: Sequence[str] | str | None) -> Sequence[str] | None:
    return [names] if isinstance(names, str) else names


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured.

    Attributes:
        rows: one for each attack, in the order they were named, with rates, intervals, verdict and findings.
        outcomes: per-image outcomes by attack.
        cells: as `frame` gives it.
        bundle: all of it, as `save` writes it.
    """

    rows: tuple[CellRow, ...]
    outcomes: Mapping[str, Outcome]
    cells: pd.DataFrame
    bundle: Bundle

    def save(self, path: str | Path) -> None:
        """Write it as a file for `bench check --baseline`, `assert_robustness` or `bench import`.

        Args:
            path: ends in `.json`, `.json.gz` or `.parquet`.

        Raises:
            BenchError: another ending, or it cannot be written.
        """
        write_results(Path(path), self.bundle)

    def frame(self) -> pd.DataFrame:
        """One row for each attack: the columns of `load_results`."""
        return self.cells.copy()

    def outcome(self, attack: str) -> Outcome:
        """The per-image outcomes under an attack.

        Raises:
            BenchError: it was not run.
        """
        # A network without noise has no mean over draws, whatever was asked for.
        found = self.outcomes.get(attack, self.outcomes.get(without_eot(attack)))
        if found is None:
            # A network whose neurons are called step by step meets an ensemble without some of its members.
            found = next((held for name, held in self.outcomes.items() if without("without", name) == attack), None)
        if found is None:
            raise BenchError(f"attack '{attack}' was not run; there are {', '.join(self.outcomes)}")
        return found

    def __str__(self) -> str:
        return self._written("text")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._written("html")

    def _written(self, form: str) -> str:
        from bench.report.evaluation import evaluation_sheet
        from bench.report.formats import write_sheet

        return write_sheet(evaluation_sheet(self.rows), form)


def evaluate(
    model: nn.Module,
    data: Any,
    attacks: Sequence[str] = ("pgd40",),
    *,
    eps: str | float | None = None,
    event_eps: str | float | None = None,
    norm: str = "linf",
    n: int | None = None,
    draws: int | None = None,
    attack_seed: int = 0,
    gradient: str | None = None,
    device: str = "auto",
    name: str = "model",
    scale: int | None = None,
    T: int | None = None,
) -> Evaluation:
    """Attack a model in hand, with all that a stored run has: checks, placebo, intervals, verdicts.

    The model may be any module that maps images [N, C, H, W] in [0, 1], or frames [N, T, C, H, W] of event counts
    divided by `scale`, to logits [N, K], with its normalisation inside. It is attacked in eval mode and comes back as
    it was, in place and mode, gradients included; torch's random generators too. Nothing is written.

    Args:
        model: the network.
        data: `(x, y)` as arrays or tensors, x uint8 or float in [0, 1], or integer counts [N, T, C, H, W], y integers
            in [0, K); or a torch Dataset or DataLoader of such pairs; or the name of a dataset (`digits`, `cifar10`,
            `mine.npz`), for its test images.
        attacks: as on the command line: `pgd40`, `apgd20:loss=dlr`, `pgd40@rga`.
        eps: budget in pixel units, of frames in units of `scale`, `"8/255"` or a number; the dataset's own where data
            is a name, else 8/255.
        event_eps: of attacks on events, edits for each event; `eps` where there are no others; 0.05 if not given.
            They need the name of a dataset that has recordings.
        norm: `linf`, `l2`, or `linf-int`, which is linf over whole counts; attacks on events have `events` anyway.
        n: the first so many images; all of what is given, or the dataset's own number, if not given.
        draws: scoring draws for a noisy network; 5 if not given.
        attack_seed: selects the attacks' random numbers.
        gradient: what spikes are differentiated by (`arctan:alpha=4`, `rga`); the network's own surrogate if None.
        device: `auto`, `cpu`, `cuda`.
        name: what tables call it.
        scale: with frames as arrays, the count that becomes 1; their largest count if not given.
        T: time steps for a network of SpikingJelly or snnTorch that takes one at a time and does not loop itself.

    Raises:
        BenchError: data or names that cannot be right; a model that fails on them, that returns probabilities, or whose
            logits depend on the previous batch, on their neighbours, or on randomness that it does not declare; an
            attack that failed.
    """
    if not isinstance(model, nn.Module):
        raise BenchError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not attacks or isinstance(attacks, str) or not all(isinstance(text, str) for text in attacks):
        raise BenchError("attacks is a list of names, such as ['fgsm', 'pgd10']")
    for what, number in (("n", n), ("draws", draws), ("attack_seed", attack_seed)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | np.integer)):
            raise BenchError(f"{what} must be an integer, got {number!r}")
    if draws is not None and draws < 1:
        raise BenchError(f"draws must be at least 1, got {draws}")
    # Attacks take gradients, whatever the caller has switched off.
    with torch.inference_mode(False), torch.enable_grad(), _presented(model, data, T) as shown:
        budgets = (eps, event_eps)
        return _evaluated(shown, data, attacks, budgets, norm, n, draws, attack_seed, gradient, device, name, scale)


@contextmanager
def _presented(model: nn.Module, data: Any, T: int | None) -> Iterator[nn.Module]:
    """A network of another library as one of ours, inside the block; any other as it is."""
    if not libraries_of(model):
        if T is not None:
            raise BenchError("T is for networks of SpikingJelly or snnTorch; this one has its own")
        yield model
        return
    if T is not None and (isinstance(T, bool) or not isinstance(T, int | np.integer) or T < 1):
        raise BenchError(f"T must be at least 1, got {T!r}")
    shape, frames = _shape_of(data)
    try:
        shown = adapted(model, shape, frames or int(T or 1), frames is not None)
    except ValueError as error:
        raise BenchError(str(error)) from error
    assert isinstance(shown, Adapted)
    try:
        if T is not None and T != shown.T:
            raise BenchError(f"the network takes {shown.T} time steps, not {T}; leave T out")
        if T is None and frames is None and shown.way != IMAGE:
            raise BenchError("the network takes one time step after the other: give T, the number it was trained with")
        yield shown
    finally:
        shown.detach()


def _shape_of(data: Any) -> tuple[tuple[int, int, int], int | None]:
    """(C, H, W) of the images or frames, and how many frames there are."""
    if isinstance(data, str | Path):
        dataset = load_dataset(str(data), Path("data"))
        return dataset.in_shape, dataset.frames
    x, _ = data if isinstance(data, tuple) and len(data) == 2 else _collected(data)
    shape = tuple(_tensor(x, "images").shape)
    if len(shape) not in (4, 5):
        raise BenchError(f"images must be [N, C, H, W] and frames [N, T, C, H, W], got {list(shape)}")
    channels, height, width = shape[-3:]
    return (channels, height, width), shape[1] if len(shape) == 5 else None


def _evaluated(
    model: nn.Module,
    data: Any,
    attacks: Sequence[str],
    eps: tuple[str | float | None, str | float | None],
    norm: str,
    n: int | None,
    draws: int | None,
    attack_seed: int,
    gradient: str | None,
    device: str,
    name: str,
    scale: int | None,
) -> Evaluation:
    dataset, named = _dataset(data, model, device, scale)
    n = n if n is not None else (min(dataset.protocol.n, len(dataset.x_test)) if named else len(dataset.x_test))
    if not 1 <= n <= len(dataset.x_test):
        raise BenchError(f"n must lie in [1, {len(dataset.x_test)}], got {n}")
    n, draws, attack_seed = int(n), None if draws is None else int(draws), int(attack_seed)
    budgets = Budgets(norm, *([] if budget is None else [_written(budget)] for budget in eps))
    usual = _written(dataset.protocol.eps if named else Fraction(8, 255))
    resolved = [
        parse_attack(text, budget, its, gradient, box=dataset.box) for text, budget, its in budgets.of(attacks, usual)
    ]
    where = pick_device(device, None)
    before, place = Snapshot(model), next(iter(model.parameters()), torch.zeros(0)).device
    grads = [(parameter, parameter.grad) for parameter in model.parameters()]
    model.to(where).eval()
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            store = Store(Path(folder) / "bench.sqlite")
            try:
                return _measured(model, dataset, resolved, n, draws, attack_seed, where, name, store)
            finally:
                store.close()
    finally:
        model.to(place)
        before.restore()
        for parameter, grad in grads:
            parameter.grad = grad


def _measured(
    model: nn.Module,
    dataset: Dataset,
    attacks: Sequence[Any],
    n: int,
    draws: int | None,
    attack_seed: int,
    device: torch.device,
    name: str,
    store: Store,
) -> Evaluation:
    few = dataset.pixels(dataset.x_test[:32], device)
    if len(few) < 4:
        few = few.repeat(4, *[1] * (few.dim() - 1))[:4]
    _check_logits(model, few)
    check_model(model, few, dataset.num_classes)
    stochastic, frames = is_stochastic(model), dataset.frames
    spec = ModelSpec(
        name=name, num_classes=dataset.num_classes, in_shape=dataset.in_shape,
        T=int(getattr(model, "T", 1)) if frames is None else frames,
        neuron=NeuronSpec("nlif" if stochastic else "lif"), mean=(), std=(), fingerprint=type(model).__qualname__,
        frames=frames is not None, own_neurons=isinstance(model, Adapted),
    )  # fmt: skip
    sha256 = hash_of(model)
    run = store.begin_run(provenance(device))
    store.record_weights(f"file:{sha256}", sha256, {"model": identity_of(spec)}, [], None, run)
    template = CellSpec(
        weights=f"file:{sha256}", model=spec, test_hash=dataset.test_hash, n=n, attack=attacks[0],
        draws=draws or (STOCHASTIC_DRAWS if stochastic else 1), attack_seed=attack_seed, dataset=dataset.name,
        defense_name=name, seed=0, noise_version=NOISE_VERSION if stochastic else 1,
    )  # fmt: skip
    place, failures = Place(store, device, run), list[str]()
    found: dict[str, CellRow] = {}
    whole = takes_whole_trains(model)
    groups = trajectories(template, attacks, dataset, stochastic=stochastic, whole=whole)
    for group in groups:
        measured = measure(model, dataset, group, place)
        failures += measured.failures
        found |= {row.key: row for row in measured.rows}
    if failures:
        raise BenchError(failures[0])
    names = [cell.attack.name for group in groups for cell in group]
    order = {text: number for number, text in enumerate(attack.name for attack in attacks)}
    rows = sorted(found.values(), key=lambda row: order.get(without("without", row.attack), len(names)))
    outcomes = {row.attack: outcome for row in rows if (outcome := store.outcome(row.key)) is not None}
    return Evaluation(tuple(rows), outcomes, cells_frame(store, rows), collect_bundle(store, rows))


def _dataset(data: Any, model: nn.Module, device: str, scale: int | None) -> tuple[Dataset, bool]:
    """The images or frames of a name, a pair or a loader, checked; and whether it was a name."""
    if isinstance(data, str | Path):
        if scale is not None:
            raise BenchError(f"scale is for frames that are given as arrays; '{data}' has its own")
        return load_dataset(str(data), Path("data")), True
    x, y = data if isinstance(data, tuple) and len(data) == 2 else _collected(data)
    images, labels = _tensor(x, "images"), _tensor(y, "labels")
    if images.dim() not in (4, 5) or not len(images):
        raise BenchError(f"images must be [N, C, H, W] and frames [N, T, C, H, W], got {list(images.shape)}")
    if images.dim() == 4:
        images = images if images.dtype == torch.uint8 else images.to(torch.float32)
        scale = 255 if scale is None else scale
    else:
        if images.dtype.is_floating_point or images.dtype == torch.bool:
            raise BenchError(f"frames [N, T, C, H, W] must be whole event counts, got {images.dtype}")
        images = images if images.dtype == torch.uint8 else images.to(torch.int32)
        scale = max(int(images.max()), 1) if scale is None else scale
    if labels.dtype.is_floating_point or labels.dtype == torch.bool:
        raise BenchError(f"labels must be integers, got {labels.dtype}")
    classes = _classes(model, pixels(images[:1], pick_device(device, None), max(scale, 1)))
    protocol = Protocol("", Fraction(8, 255), Fraction(2, 255), _NOTHING, len(images))
    names = tuple(str(k) for k in range(classes))
    labels = labels.to(torch.int64).cpu()
    try:
        return Dataset("data", images.cpu(), labels, images.cpu(), labels, names, (), (), protocol, scale), False
    except BenchError as error:
        # Only one part is given: it is nobody's training set.
        text = str(error).removeprefix("dataset 'data' (train): ")
        hint = "; labels count from 0" if len(labels) and int(labels.max()) == classes else ""
        raise BenchError(text + hint) from None


def _tensor(values: Any, what: str) -> Tensor:
    if isinstance(values, Tensor):
        # A copy, where the caller's is an inference tensor that no gradient may pass.
        return values.detach().clone() if values.is_inference() else values.detach()
    try:
        array = np.ascontiguousarray(values)
        # Files of other machines keep their byte order, which torch does not read.
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable))
    except (TypeError, ValueError) as error:
        raise BenchError(f"{what} must be an array of numbers, got {type(values).__name__} ({error})") from error


def _collected(data: Any) -> tuple[Tensor, Tensor]:
    """Everything a torch Dataset or DataLoader yields."""
    try:
        # Shuffling and transforms draw from torch's generator, which is the caller's.
        with torch.random.fork_rng(devices=[]):
            indexed = hasattr(data, "__getitem__") and hasattr(data, "__len__")
            pairs = [data[i] for i in range(len(data))] if indexed else list(data)
        found = [(torch.as_tensor(x), torch.as_tensor(y)) for x, y in pairs]
        # A loader yields batches, a dataset single images.
        join = torch.stack if all(y.dim() == 0 for _, y in found) else torch.cat
        return join([x for x, _ in found]), join([y for _, y in found])
    except (TypeError, ValueError, RuntimeError) as error:
        raise BenchError(
            f"data must be (x, y), a torch Dataset or DataLoader of such pairs, or the name of a dataset; got "
            f"{type(data).__name__} ({describe(error)})"
        ) from error


def _classes(model: nn.Module, x: Tensor) -> int:
    modes = [(module, module.training) for module in model.modules()]
    first = next(iter(model.parameters()), torch.zeros(0))
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise BenchError("the model was made under torch.inference_mode, where no gradient passes; make it outside")
    if first.dtype.is_floating_point and first.dtype != torch.float32:
        raise BenchError(f"the model computes in {first.dtype}, images are float32; give model.float()")
    try:
        model.eval()
        with torch.no_grad(), noise_stream(model, 0, torch.arange(1, device=first.device)):
            logits = model(x.to(first.device))
    except Exception as error:
        # A model may be anyone's code.
        raise BenchError(f"the model fails on images {list(x.shape)}: {describe(error)}") from error
    finally:
        for module, mode in modes:
            module.training = mode
    if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != 1:
        got = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise BenchError(f"the model returns {got} for one image, not logits [N, K]")
    return int(logits.shape[1])


def _check_logits(model: nn.Module, x: Tensor) -> None:
    """Refuse probabilities: their gradients vanish where the model is sure, and accuracy would look robust.

    Raises:
        BenchError: every row sums to 1 without a negative value.
    """
    with frozen(model), torch.no_grad(), noise_stream(model, 0, torch.arange(len(x), device=x.device)):
        found = model(x)
    if bool((found >= 0).all()) and bool(((found.sum(1) - 1).abs() < 1e-4).all()):
        raise BenchError("the model returns probabilities, not logits: leave its softmax out, or gradients vanish")
