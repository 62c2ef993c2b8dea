"""Every timed piece of work, by name: the same calls serve this process and a child."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.gradients import frozen, input_gradient
from attacks.losses import LOSSES
from bench.arithmetic import computing
from bench.data.dataset import Dataset, Protocol
from bench.evaluation import CleanScores, evaluate
from bench.perf.contestants import BY_NAME, OURS, Contestant
from bench.perf.lab import BF16, NOISY, Lab, counted, craft, in_state, our_pgd
from bench.perf.neurons import SpikingJellyNoisyLIF
from bench.perf.sample import Sample, stopwatch
from bench.perf.subject import EPS
from bench.plan import trajectories
from bench.resolve import parse_attack, parse_defense
from bench.spec import CellSpec, Recipe, TrainSpec
from bench.training import train
from defenses.base import Setting
from defenses.mc import threshold_closeness
from models.kernels.compiler import switched_off

ROW = ("fgsm", "rfgsm", "pgd7", "pgd10", "pgd20", "pgd40")
"""The attacks of a table row, at 8/255 with step 0.01, last iterate."""
_NOISE_KEY = 7
_TRAIN_EPS = Fraction(2, 255)
_LAM_MAX, _DELTA = 0.4, 0.5


def step(lab: Lab, *, name: str, state: str, batch: int, steps: int) -> Sample:
    """PGD of some steps on one batch; work is images times steps."""
    contestant = BY_NAME[name]
    model = counted(lab.network(contestant.network))
    x, y = lab.batch(batch)
    with in_state(model, state), stopwatch() as seconds:
        craft(lab, contestant, model, x, y, steps)
        lab.wait()
        taken = seconds()
    # No credit for steps that were found to repeat and not taken.
    return Sample(taken, min(batch * steps, model.backwards), model.forwards, model.backwards)


def row(lab: Lab, *, name: str, state: str, images: int, attacks: list[str]) -> Sample:
    """A whole table row, clean accuracy included; work is images. Peers take batches of their default size."""
    contestant = BY_NAME[name]
    x, y = lab.batch(images)
    if contestant.library == OURS:
        return _our_row(lab, x, y, attacks)
    model = counted(lab.network(contestant.network))
    right: dict[str, int] = {}
    with in_state(model, state), stopwatch() as seconds:
        for attack in ("clean", *attacks):
            right[attack] = 0
            for part in torch.arange(images, device=x.device).split(contestant.attacks.batch):
                found = x[part] if attack == "clean" else _peer_attack(lab, contestant, model, x[part], y[part], attack)
                with torch.no_grad():
                    right[attack] += int((model(found).argmax(1) == y[part]).sum())
        lab.wait()
        taken = seconds()
    accuracy = {attack: count / images for attack, count in right.items()}
    return Sample(taken, images, model.forwards, model.backwards, {"accuracy": accuracy})


def _peer_attack(lab: Lab, contestant: Contestant, model: nn.Module, x: Tensor, y: Tensor, attack: str) -> Tensor:
    steps = int(attack.removeprefix("pgd")) if attack.startswith("pgd") else 1
    kind = "pgd" if attack.startswith("pgd") else attack
    return craft(lab, contestant, model, x, y, steps, kind)


def _our_row(lab: Lab, x: Tensor, y: Tensor, attacks: list[str]) -> Sample:
    """As `bench run` measures it: one trajectory serves every step count of PGD."""
    model, spec = lab.network(OURS), lab.subject.spec
    dataset = as_dataset(lab, x, y)
    asked = [parse_attack(attack, str(EPS)) for attack in attacks]
    template = CellSpec("file:perf", spec, "perf", len(x), asked[0], 1, 0, "perf", "perf", 0)
    forwards = backwards = 0
    hits: dict[tuple[str, int], float] = {}
    clean: CleanScores = {}
    with stopwatch() as seconds:
        for group in trajectories(template, asked, dataset, stochastic=False):
            for chunk in evaluate(model, dataset, group, device=lab.device, clean=clean):
                forwards, backwards = forwards + chunk.forwards, backwards + chunk.backwards
                for cell, outcome in chunk.outcomes.items():
                    for name, right in (("clean", outcome.clean), (cell.attack.name, outcome.last)):
                        hits[name, chunk.start] = float(right.mean(1).sum())
        lab.wait()
        taken = seconds()
    names = dict.fromkeys(name for name, _ in hits)
    accuracy = {name: sum(count for (held, _), count in hits.items() if held == name) / len(x) for name in names}
    return Sample(taken, len(x), forwards, backwards, {"accuracy": accuracy})


def as_dataset(lab: Lab, x: Tensor, y: Tensor) -> Dataset:
    """The subject's images as a dataset, training and test set alike."""
    spec = lab.subject.spec
    protocol = Protocol(spec.name, EPS, _TRAIN_EPS, Recipe(1, 8), len(x))
    names = tuple(str(number) for number in range(spec.num_classes))
    x, y = x.cpu(), y.cpu()
    return Dataset("perf", x, y, x, y, names, spec.mean, spec.std, protocol)


def training(lab: Lab, *, name: str, state: str, method: str, batch: int, batches: int) -> Sample:
    """Some updates of vanilla, AT or TGO training; work is images."""
    x, y = lab.batch(batch * batches)
    if name in (OURS, OURS + BF16):
        return _train_ours(lab, x, y, method, batch, "bf16" if name.endswith(BF16) else "fast")
    model = lab.fresh(name + NOISY if method == "tgo" else name).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    with stopwatch() as seconds:
        for part in torch.arange(len(x), device=x.device).split(batch):
            _plain_update(model, optimizer, x[part], y[part], method)
        lab.wait()
        taken = seconds()
    return Sample(taken, len(x))


def _train_ours(lab: Lab, x: Tensor, y: Tensor, method: str, batch: int, arithmetic: str) -> Sample:
    dataset, spec = as_dataset(lab, x, y), lab.subject.spec
    defense = parse_defense(method).settled(Setting(spec.name, _TRAIN_EPS))
    job = TrainSpec(
        model=replace(spec, neuron=defense.neuron(spec.neuron)),
        recipe=Recipe(1, batch, arithmetic=arithmetic),
        defense=tuple(defense.identity()),
        train_hash="perf",
        seed=0,
        log_eps=EPS,
        defense_name=method,
        dataset="perf",
    )
    with tempfile.TemporaryDirectory() as folder:
        trained = train(job, defense, dataset, Path(folder), device=lab.device)
    return Sample(trained.seconds, len(x))


def _plain_update(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor, method: str) -> None:
    """One update as a plain training script has it."""
    if method == "at":
        x = _plain_pgd(model, x, y, float(_TRAIN_EPS), 2)
    logits = model(x)
    loss = functional.cross_entropy(logits, y)
    if method == "tgo":
        layers = [module for module in model.modules() if isinstance(module, SpikingJellyNoisyLIF)]
        with switched_off():
            # Ours in one pass is no part of a plain script.
            closeness = [threshold_closeness(torch.stack(layer.membrane), 1.0, _DELTA) for layer in layers]
        loss = loss + _LAM_MAX * torch.stack(closeness).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    float(loss.detach())


def _plain_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """PGD of step eps/2 from a random point, in eval mode, as training scripts have it."""
    model.eval()
    x_adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad(functional.cross_entropy(model(x_adv), y), x_adv)
        x_adv = (x + (x_adv.detach() + eps / 2 * grad.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    model.train()
    return x_adv


def inference(lab: Lab, *, name: str, state: str, batch: int, repeats: int) -> Sample:
    """Logits without gradients; work is images."""
    model = lab.network(name)
    x, _ = lab.batch(batch)
    with in_state(model, "tuned"), torch.no_grad(), stopwatch() as seconds:
        for _ in range(repeats):
            model(x)
        lab.wait()
        taken = seconds()
    return Sample(taken, batch * repeats)


def noise(lab: Lab, *, name: str, state: str, batch: int, steps: int) -> Sample:
    """PGD by our loop on a network with or without noisy neurons; work is images times steps."""
    model = lab.network(name)
    x, y = lab.batch(batch)
    ours = name == OURS + NOISY
    with in_state(model, "tuned"), stopwatch() as seconds:
        our_pgd(model, x, y, steps, _NOISE_KEY if ours else None)
        lab.wait()
        taken = seconds()
    return Sample(taken, batch * steps)


def arithmetic(lab: Lab, *, name: str, state: str, batch: int, steps: int) -> Sample:
    """Our PGD on our network in one of `bench.spec.ARITHMETICS`; work is images times steps."""
    model = lab.network(OURS)
    x, y = lab.batch(batch)
    with in_state(model, state), computing(model, name, lab.device), stopwatch() as seconds:
        our_pgd(model, x, y, steps)
        lab.wait()
        taken = seconds()
    return Sample(taken, batch * steps)


def gradient_agreement(lab: Lab, how: str, batch: int) -> dict[str, float]:
    """Our input gradient in another arithmetic beside the fast float32 one: mean cosine, share of equal signs."""
    model = lab.network(OURS)
    x, y = lab.batch(batch)
    grads = []
    for each in ("fast", how):
        with frozen(model), computing(model, each, lab.device):
            grads.append(input_gradient(model, x, y, LOSSES["ce"]).grad.float().flatten(1))
    signs = (grads[0].sign() == grads[1].sign()).double().mean()
    return {"cosine": float(functional.cosine_similarity(grads[0], grads[1]).mean()), "signs": float(signs)}


def cells(lab: Lab, *, steps: list[int], batch: int) -> Sample:
    """PGD cells of several step counts, scored as `bench run` scores them; work is cells."""
    x, y = lab.batch(batch)
    sample = _our_row(lab, x, y, [f"pgd{count}" for count in steps])
    return Sample(sample.seconds, len(steps), sample.forwards, sample.backwards)


WORK: Mapping[str, Callable[..., Sample]] = {
    "step": step,
    "row": row,
    "training": training,
    "inference": inference,
    "noise": noise,
    "arithmetic": arithmetic,
    "cells": cells,
}
"""What a child may be asked for."""
