"""How a user of each library runs the attacks of a table row: FGSM, FGSM from a random point, PGD."""

from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.peers.adapter import Arena, Peer, load
from bench.peers.art import ART
from bench.peers.foolbox import FOOLBOX
from bench.peers.torchattacks import TORCHATTACKS

Run = Callable[[Arena], Tensor]


@dataclass(frozen=True)
class Library:
    """A library of attacks.

    Attributes:
        peer: name, package, modules.
        pip: the line that installs it.
        batch: images that it is given at once, or takes at once by default.
        fgsm, rfgsm, pgd: its attacks; the last starts at the image itself.
    """

    peer: Peer
    pip: str
    batch: int
    fgsm: Run
    rfgsm: Run
    pgd: Run


def _art(name: str, **settings: Any) -> Run:
    def run(arena: Arena) -> Tensor:
        classifier = load("art.estimators.classification").PyTorchClassifier(
            arena.model,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(arena.x.shape[1:]),
            nb_classes=arena.classes,
            clip_values=(arena.threat.low, arena.threat.high),
            device_type="gpu" if arena.x.is_cuda else "cpu",
        )
        steps = {"eps_step": arena.alpha, "max_iter": arena.steps, "verbose": False} if name.startswith("Proj") else {}
        kind = getattr(load("art.attacks.evasion"), name)
        attack = kind(classifier, eps=arena.eps, batch_size=len(arena.x), **steps, **settings)
        one_hot = np.eye(arena.classes, dtype=np.float32)[arena.y.cpu().numpy()]
        found = attack.generate(arena.x.cpu().numpy(), one_hot)
        return torch.from_numpy(found).to(arena.x.device, arena.x.dtype)

    return run


def _torchattacks(name: str, **settings: Any) -> Run:
    def run(arena: Arena) -> Tensor:
        with redirect_stdout(StringIO()):
            half = {"alpha": arena.eps / 2} if name == "RFGSM" else {}
            attack = getattr(load("torchattacks"), name)(arena.model, eps=arena.eps, **half, **settings)
        attack.set_device(arena.x.device)
        found: Tensor = attack(arena.x, arena.y)
        return found

    return run


def _foolbox_fgsm(random_start: bool) -> Run:
    def run(arena: Arena) -> Tensor:
        foolbox = load("foolbox")
        model = foolbox.PyTorchModel(arena.model.eval(), bounds=(arena.threat.low, arena.threat.high),
                                     device=arena.x.device)  # fmt: skip
        attack = foolbox.attacks.LinfFastGradientAttack(random_start=random_start)
        _, found, _ = attack(model, arena.x, foolbox.criteria.Misclassification(arena.y), epsilons=arena.eps)
        candidates: Tensor = found
        return candidates

    return run


_ART = {
    "peer": ART,
    "pip": "pip install adversarial-robustness-toolbox",
    "batch": 32,
    "fgsm": _art("FastGradientMethod"),
    "rfgsm": _art("FastGradientMethod", num_random_init=1),
}
LIBRARIES: Mapping[str, Library] = {
    "ART": Library(**_ART, pgd=ART.attacks["pgd"]),  # type: ignore[arg-type]
    "ART, numpy": Library(**_ART, pgd=_art("ProjectedGradientDescentNumpy", num_random_init=0)),  # type: ignore[arg-type]
    "foolbox": Library(
        FOOLBOX, "pip install foolbox", 64, _foolbox_fgsm(False), _foolbox_fgsm(True), FOOLBOX.attacks["pgd"]
    ),
    "torchattacks": Library(
        TORCHATTACKS,
        "pip install --no-deps torchattacks",
        64,
        _torchattacks("FGSM"),
        _torchattacks("RFGSM", steps=1),
        TORCHATTACKS.attacks["pgd"],
    ),
}
