"""The one training loop: every defense goes through it, and it resumes bit for bit."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.gradients import frozen
from attacks.pgd import pgd
from attacks.threat import Threat
from bench.arithmetic import computing
from bench.checkpoint import hash_tensors, load_into, load_tensors, save_tensors, write_atomically
from bench.data.augmentation import augmented
from bench.data.dataset import Dataset
from bench.errors import BenchError
from bench.provenance import device_name, provenance
from bench.resolve import build_model
from bench.runtime import isolated_generator
from bench.spec import Recipe, TrainSpec, identity_of, key_of
from defenses.base import Defense, Step
from models.net import SpikingNet
from models.neurons import last_currents, record_membrane
from models.random import CounterRNG, derive_key, noise_stream

_QUICK = 128
_QUICK_STEPS = 7


@dataclass(frozen=True)
class EpochLog:
    """One line of a training log. Accuracies are on held-out training images, never on the test set.

    Attributes:
        epoch: 1-based.
        loss: mean classification loss of the epoch.
        penalty: mean sum of the defense's penalties.
        clean: accuracy on up to 128 held-out images; NaN without a holdout.
        robust: accuracy on the same images under PGD-7 at the dataset's eps.
        images_per_second: training speed, the log's own cost left out.
    """

    epoch: int
    loss: float
    penalty: float
    clean: float
    robust: float
    images_per_second: float


@dataclass(frozen=True)
class Trained:
    """A finished training run."""

    model: nn.Module
    weights_sha256: str
    log: tuple[EpochLog, ...]
    seconds: float


class Progress:
    """What a caller may want to hear while training; does nothing by itself."""

    def resumed(self, epoch: int) -> None: ...

    def batch(self, epoch: int, done: int, total: int) -> None: ...

    def epoch(self, log: EpochLog) -> None: ...


def checkpoint_path(folder: Path, key: str) -> Path:
    """Where the weights of a training key live."""
    return folder / f"{key[:16]}.safetensors"


def kept_weights(folder: Path, sha256: str) -> Path:
    """Where weights lie that came with a submission; under the name of their training they would pass for our own."""
    return folder / "submitted" / f"{sha256}.safetensors"


def train(
    spec: TrainSpec,
    defense: Defense,
    dataset: Dataset,
    folder: Path,
    *,
    device: torch.device,
    progress: Progress | None = None,
) -> Trained:
    """Train a network, or continue where an earlier call was cut off.

    SGD with a cosine schedule. All randomness is a function of (seed, epoch, image), so
    continuing from an epoch's end gives the weights of an uninterrupted run.
    Initial weights, data order and augmentation depend on the seed alone: two
    defenses of one seed start equal and see the same images in the same order.

    Args:
        spec: what to train; its key names the checkpoint.
        defense: settled parts, the same as in `spec`.
        dataset: training images.
        folder: where the checkpoint, its sidecar and the resume state are written.
        device: where to compute.
        progress: told about batches and epochs.

    Raises:
        BenchError: the loss became NaN, a file cannot be written, or the resume state is another run's.
    """
    progress = progress or Progress()
    key = key_of(spec)
    with isolated_generator(device, derive_key("initial weights", spec.seed)):
        model = build_model(spec.model).to(device)
        model = model.to(memory_format=torch.channels_last)
        loop = _Loop(spec, defense, dataset, model, device)
        resume = folder / f"{key[:16]}.resume.safetensors"
        loop.restore(resume, key)
        if loop.epoch:
            progress.resumed(loop.epoch)
        with _threads(loop.threads):
            origin = provenance(device)
            while loop.epoch < spec.recipe.epochs:
                line = loop.run_epoch(progress)
                if loop.epoch < spec.recipe.epochs:
                    loop.save(resume, key)
                # Whoever is told may stop here: what was done is kept.
                progress.epoch(line)
    path = checkpoint_path(folder, key)
    log = [vars(line) for line in loop.log]
    metadata = {"key": key, "spec": identity_of(spec), "defense": spec.defense_name}
    sha256 = save_tensors(path, model.state_dict(), metadata)
    sidecar = {
        **metadata,
        "dataset": spec.dataset,
        "weights_sha256": sha256,
        "seconds": loop.seconds,
        "log": log,
        "provenance": origin,
        "places": loop.places,
    }
    write_atomically(path.with_suffix(".json"), json.dumps(sidecar, indent=1).encode())
    resume.unlink(missing_ok=True)
    return Trained(model.eval(), sha256, tuple(loop.log), loop.seconds)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Inside the block torch computes with so many threads: training rounds by their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Loop:
    """The state of a training run between epochs, and how to advance it by one."""

    def __init__(
        self, spec: TrainSpec, defense: Defense, dataset: Dataset, model: nn.Module, device: torch.device
    ) -> None:
        self.spec, self.defense, self.dataset, self.model, self.device = spec, defense, dataset, model, device
        recipe = spec.recipe
        total = min(recipe.train_size or len(dataset.x_train), len(dataset.x_train))
        self.count = total - recipe.holdout
        if self.count < 1:
            raise BenchError(f"{total} training images leave none after holding out {recipe.holdout}")
        self.holdout = torch.arange(self.count, total)[:_QUICK]
        decays = [part.weight_decay for part in defense.parts if part.weight_decay is not None]
        decay = decays[0] if decays else recipe.weight_decay
        self.optimizer = torch.optim.SGD(_groups(model, decay), lr=recipe.lr, momentum=recipe.momentum)
        self.epoch = 0
        self.seconds = 0.0
        self.log: list[EpochLog] = []
        self.threads = torch.get_num_threads()
        self.places = [f"{device_name(device)}, torch {torch.__version__}"]

    def run_epoch(self, progress: Progress) -> EpochLog:
        spec, recipe, seed = self.spec, self.spec.recipe, self.spec.seed
        torch.manual_seed(derive_key("training noise", seed, self.epoch))
        order = torch.randperm(self.count, generator=_generator("order", seed, self.epoch))
        perturbation_key = derive_key("training perturbation", seed, self.epoch)
        augmentation = _generator("augmentation", seed, self.epoch)
        fraction = self.epoch / (recipe.epochs - 1) if recipe.epochs > 1 else 1.0
        batches = order.split(recipe.batch_size)
        # Batch normalisation needs more than one value a channel.
        batches = batches[:-1] if len(batches) > 1 and len(batches[-1]) == 1 else batches
        sums, seen, began = torch.zeros(2, dtype=torch.float64), 0, time.perf_counter()
        for part in self.defense.parts:
            part.before_epoch(self.model, fraction)
        self.model.train()
        for number, index in enumerate(batches):
            x = self.dataset.pixels(self.dataset.x_train[index], self.device)
            y = self.dataset.y_train[index].to(self.device)
            if recipe.augment:
                x = augmented(x, augmentation)
            update = self.epoch * len(batches) + number
            for group in self.optimizer.param_groups:
                group["lr"] = cosine_lr(recipe, update, recipe.epochs * len(batches))
            rng = CounterRNG(perturbation_key, index.to(self.device))
            with computing(self.model, recipe.arithmetic, self.device):
                loss, penalty = self._update(x, y, rng, fraction)
            for part in self.defense.parts:
                part.after_update(self.model, derive_key("weight hook", seed, update))
            sums += torch.tensor([loss, penalty], dtype=torch.float64) * len(index)
            seen += len(index)
            if not math.isfinite(loss + penalty):
                raise BenchError(
                    f"training '{spec.defense_name}' diverged: the loss is {loss:g} and the penalty {penalty:g} "
                    f"in epoch {self.epoch + 1}; lower --lr or the defense's strength"
                )
            progress.batch(self.epoch + 1, number + 1, len(batches))
        elapsed = time.perf_counter() - began
        self.seconds += elapsed
        self.epoch += 1
        clean, robust = self._quick_accuracy()
        mean_loss, mean_penalty = (float(v) / seen for v in sums)
        line = EpochLog(self.epoch, mean_loss, mean_penalty, clean, robust, seen / elapsed)
        self.log.append(line)
        return line

    def _update(self, x: Tensor, y: Tensor, rng: CounterRNG, progress: float) -> tuple[float, float]:
        parts, clean = self.defense.parts, x
        for part in parts:
            x = part.perturb(self.model, x, y, rng)
        x = x.detach().requires_grad_(any(part.needs_input_gradient for part in parts))
        same_noise = _replay_from_here(self.device)
        forward = _per_step if any(part.observes_steps for part in parts) else _mean_alone
        membrane: dict[str, Tensor] = {}
        currents: list[Tensor] = []
        with ExitStack() as seen:
            if any(part.observes_membrane for part in parts):
                membrane = seen.enter_context(record_membrane(self.model))
            if any(part.observes_currents for part in parts):
                currents = seen.enter_context(last_currents(self.model))
            logits, over_time = forward(self.model, x)
        last = currents[0] if currents else None
        step = Step(self.model, x, y, logits, membrane, progress, clean, rng, same_noise, last, over_time)
        losses = [loss for part in parts if (loss := part.task_loss(step)) is not None]
        loss = losses[0] if losses else functional.cross_entropy(logits, y)
        penalties = [penalty for part in parts if (penalty := part.penalty(step)) is not None]
        total = loss + torch.stack(penalties).sum() if penalties else loss
        self.optimizer.zero_grad()
        total.backward()
        for part in parts:
            part.before_update(self.model)
        self.optimizer.step()
        return float(loss.detach()), float(total.detach() - loss.detach())

    def _quick_accuracy(self) -> tuple[float, float]:
        if not len(self.holdout):
            return math.nan, math.nan
        x = self.dataset.pixels(self.dataset.x_train[self.holdout], self.device)
        y = self.dataset.y_train[self.holdout].to(self.device)
        samples = self.holdout.to(self.device)
        threat = Threat(self.spec.log_eps, low=self.dataset.low, high=self.dataset.high)
        with noise_stream(self.model, derive_key("training log"), samples):
            path = pgd(
                self.model,
                x,
                y,
                threat,
                steps=_QUICK_STEPS,
                alpha=float(threat.eps) / 3,
                rng=CounterRNG(derive_key("training log start"), samples),
            )
            with frozen(self.model), torch.no_grad():
                hits = [(self.model(inputs).argmax(1) == y).double().mean() for inputs in (x, path[_QUICK_STEPS].last)]
        return float(hits[0]), float(hits[1])

    @property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    def save(self, path: Path, key: str) -> None:
        """Keep the state at an epoch's end."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for number, parameter in enumerate(self._parameters):
            buffer = self.optimizer.state[parameter].get("momentum_buffer")
            if buffer is not None:
                tensors[f"momentum.{number}"] = buffer
        state = {
            "key": key,
            "epoch": self.epoch,
            "seconds": self.seconds,
            "log": [vars(line) for line in self.log],
            "threads": self.threads,
            "places": self.places,
        }
        save_tensors(path, tensors, state)

    def restore(self, path: Path, key: str) -> None:
        """Take up a kept state, if there is one."""
        if not path.exists():
            return
        try:
            tensors, state = load_tensors(path)
            if state.get("key") != key:
                raise BenchError(f"'{path}' belongs to another training run")
            weights = {name.removeprefix("model."): v for name, v in tensors.items() if name.startswith("model.")}
            load_into(self.model, weights, path)
        except BenchError as error:
            raise BenchError(f"cannot resume: {error}. Delete '{path}' to train from the start") from error
        for number, parameter in enumerate(self._parameters):
            buffer = tensors.get(f"momentum.{number}")
            if buffer is not None:
                self.optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(buffer)
        self.epoch, self.seconds = int(state["epoch"]), float(state["seconds"])
        self.log = [EpochLog(**line) for line in state["log"]]
        # As it began, wherever it goes on; states of older versions do not say.
        self.threads = int(state.get("threads", self.threads))
        self.places = [*dict.fromkeys([*state.get("places", []), *self.places])]


def _mean_alone(model: nn.Module, x: Tensor) -> tuple[Tensor, None]:
    """Logits [N, K], and nothing of the time steps."""
    return model(x), None


def _per_step(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Logits [N, K] and what they are the mean of, [T, N, K]."""
    if not isinstance(model, SpikingNet):
        raise BenchError(
            f"the defense needs the logits of every time step, which {type(model).__name__} does not give; derive the "
            "model from models.SpikingNet, or leave that defense out"
        )
    over_time = model.forward_steps(x)
    return over_time.mean(0), over_time


def load_trained(spec: TrainSpec, folder: Path, device: torch.device) -> Trained | None:
    """The finished run of this spec, or None if there is none yet.

    Raises:
        BenchError: the checkpoint is damaged or another run's.
    """
    key = key_of(spec)
    path = checkpoint_path(folder, key)
    if not path.exists():
        return None
    tensors, metadata = load_tensors(path)
    if metadata.get("key") != key:
        raise BenchError(f"'{path}' belongs to another training run; delete it to train again")
    model = build_without_rng(spec)
    load_into(model, tensors, path)
    log, seconds = _read_sidecar(path.with_suffix(".json"))
    model = model.to(device).to(memory_format=torch.channels_last).eval()
    return Trained(model, hash_of(model), log, seconds)


def build_without_rng(spec: Any) -> nn.Module:
    """Build the network of a `TrainSpec` or `ModelSpec` and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        model: nn.Module = build_model(getattr(spec, "model", spec))
    return model


def hash_of(model: nn.Module) -> str:
    """SHA-256 of a model's weights and buffers."""
    return hash_tensors(model.state_dict())


def _read_sidecar(path: Path) -> tuple[tuple[EpochLog, ...], float]:
    try:
        sidecar = json.loads(path.read_text())
        return tuple(EpochLog(**line) for line in sidecar["log"]), float(sidecar["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return (), math.nan


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """The model's parameters as the optimiser takes them; those that their module calls `undecayed` decay not."""
    exempt = {id(getattr(module, name)) for module in model.modules() for name in getattr(module, "undecayed", ())}
    decayed = [parameter for parameter in model.parameters() if id(parameter) not in exempt]
    free = [parameter for parameter in model.parameters() if id(parameter) in exempt]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": free, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def cosine_lr(recipe: Recipe, update: int, updates: int) -> float:
    """The learning rate of one update: from `lr` to 0 along half a cosine."""
    return 0.5 * recipe.lr * (1 + math.cos(math.pi * update / updates))


def _generator(*parts: object) -> torch.Generator:
    return torch.Generator().manual_seed(derive_key(*parts) % (1 << 63))


def _replay_from_here(device: torch.device) -> Callable[[], AbstractContextManager[None]]:
    """Remember torch's generators; the returned block begins with them and gives the present ones back."""
    cpu = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    @contextmanager
    def replay() -> Iterator[None]:
        with isolated_generator(device):
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda, device)
            yield

    return replay
