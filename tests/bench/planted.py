"""Faults to plant in the code, of the kind that a gate on a harness must see, each with the network that shows it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import attacks.gradients.input
import attacks.pgd
import bench.evaluation
from attacks.projections import L2Ball, LinfBall
from models.encoders.poisson import PoissonEncoder
from models.gates import GatedLIF
from models.homeostatic import HomeostaticLIF
from models.neurons import NeuronSpec, NoisyLIF

Patch = Callable[[object, str, object], None]
"""What `pytest.MonkeyPatch.setattr` does."""


class Fault(NamedTuple):
    """One fault.

    Attributes:
        network, attack, norm: where it is looked for, of the gate's own.
        plant: puts it in.
        says: what the gate says of the attack, `regression`, `rise` or `moved`; empty where it refuses to measure.
    """

    network: str
    attack: str
    plant: Callable[[Patch], None]
    says: str
    norm: str = "linf"


def steps_halved(patch: Patch) -> None:
    run = attacks.pgd.PGD.run

    def lazy(*arguments: Any, steps: int, snapshots: Any, **others: Any) -> Any:
        return {steps: run(*arguments, steps=steps // 2, **others)[steps // 2]}

    patch(attacks.pgd, "PGD", replace(attacks.pgd.PGD, run=lazy))


def ball_scaled(kind: type[LinfBall] | type[L2Ball], factor: float, patch: Patch) -> None:
    build = kind.__init__

    def other(self: Any, x: Tensor, threat: Any) -> None:
        build(self, x, replace(threat, eps=threat.eps * factor))

    patch(kind, "__init__", other)


def ascent_descends(patch: Patch) -> None:
    patch(LinfBall, "steepest", lambda self, grad: -grad.sign())


def gradient_of_other_images(patch: Patch) -> None:
    summed = attacks.gradients.input._sum_over_draws

    def shifted(*arguments: Any) -> Any:
        found = summed(*arguments)
        return found._replace(grad=found.grad.roll(1, 0))

    patch(attacks.gradients.input, "_sum_over_draws", shifted)


def built_as(changes: dict[str, Any], patch: Patch) -> None:
    build = NeuronSpec.build
    patch(NeuronSpec, "build", lambda self: build(replace(self, **changes)))


def candidates_forgotten(patch: Patch) -> None:
    proposed = bench.evaluation._proposed

    def tame(counted: Any, dataset: Any, cells: Any, index: Any, x: Tensor, y: Tensor) -> Any:
        found = proposed(counted, dataset, cells, index, x, y)
        for each in found.values():
            each.candidate.last[::8] = x[::8]
        return found

    patch(bench.evaluation, "_proposed", tame)


def state_leaks(patch: Patch) -> None:
    forward = NeuronSpec.build

    def leaking(self: NeuronSpec) -> Any:
        layer = forward(self)
        kept: list[Tensor] = []

        def leak(module: Any, given: tuple[Tensor, ...], spikes: Tensor) -> Tensor:
            before = kept[-1] if kept and kept[-1].shape == spikes.shape else torch.zeros_like(spikes)
            kept[:] = [spikes.detach()]
            return spikes + 0.5 * before

        layer.register_forward_hook(leak)
        return layer

    patch(NeuronSpec, "build", leaking)


def noise_halved(patch: Patch) -> None:
    build = NoisyLIF.__init__
    patch(NoisyLIF, "__init__", lambda self, noise_var=0.4, **lif: build(self, noise_var / 2, **lif))


def gates_open(patch: Patch) -> None:
    patch(GatedLIF, "emit", lambda self, spikes: spikes)


def thresholds_fixed(patch: Patch) -> None:
    run = HomeostaticLIF._run

    def still(self: HomeostaticLIF, current: Tensor, noise: Any) -> Any:
        adapting, self.adapting = self.adapting, torch.zeros_like(self.adapting)
        try:
            return run(self, current, noise)
        finally:
            self.adapting = adapting

    patch(HomeostaticLIF, "_run", still)


def pixels_not_drawn(patch: Patch) -> None:
    patch(PoissonEncoder, "encode", lambda self, x: x)


def one_draw_for_all(patch: Patch) -> None:
    """The attacker's gradients come from one draw instead of a mean over several."""
    patch(attacks.gradients.input, "_sum_over_draws", _first_of(attacks.gradients.input._sum_over_draws))


def _first_of(summed: Callable[..., Any]) -> Callable[..., Any]:
    def first(model: Any, x: Tensor, labels: Tensor, loss: Any, copies: int, faithful: bool) -> Any:
        found = summed(model, x, labels, loss, 1, faithful)
        return type(found)(*(value * copies for value in found))

    return first


def rounds_otherwise(patch: Patch) -> None:
    """No fault: every convolution, and its gradient, off by up to 2^-20 of itself, more than another processor does."""
    forward = torch.nn.Conv2d.forward

    def off(values: Tensor) -> Tensor:
        return values * (2.0**-20 * (1e6 * values.detach()).sin())

    def noisy(self: Any, x: Tensor) -> Tensor:
        exact = forward(self, x)
        if exact.requires_grad:
            exact.register_hook(lambda grad: grad + off(grad))
        return exact + off(exact).detach()

    patch(torch.nn.Conv2d, "forward", noisy)


FAULTS: dict[str, Fault] = {
    "PGD takes half its steps": Fault("vanilla", "pgd10:eot=4", steps_halved, "moved"),
    "the linf ball is a tenth too small": Fault("vanilla", "pgd10:eot=4", partial(ball_scaled, LinfBall, 0.9), "rise"),
    "the l2 ball is a tenth too small": Fault("at", "pgd10", partial(ball_scaled, L2Ball, 0.9), "rise", "l2"),
    "the ball is a tenth too large": Fault("at", "fgsm", partial(ball_scaled, LinfBall, 1.1), ""),
    "the attack descends": Fault("trades", "fgsm", ascent_descends, "rise"),
    "gradients of other images": Fault("at", "fgsm", gradient_of_other_images, "rise"),
    "an eighth of the candidates is lost": Fault("vanilla", "fgsm", candidates_forgotten, "rise"),
    "the leak is 0.45 instead of 0.5": Fault("at", "fgsm", partial(built_as, {"decay": 0.45}), "moved"),
    "the threshold is 0.98": Fault("at", "fgsm", partial(built_as, {"v_threshold": 0.98}), "moved"),
    "another surrogate": Fault("vanilla", "pgd10:eot=4", partial(built_as, {"surrogate": "rectangular"}), "moved"),
    "spikes of the last batch leak": Fault("vanilla", "fgsm", state_leaks, ""),
    "the membrane noise has half its variance": Fault("tgo+at", "fgsm", noise_halved, "moved"),
    "the gates stay open": Fault("stog+at", "fgsm", gates_open, "moved"),
    "thresholds do not adapt": Fault("hosnn+at", "fgsm", thresholds_fixed, "regression"),
    "pixels are shown as they are": Fault("poisson+at", "fgsm", pixels_not_drawn, "moved"),
    "one draw instead of four": Fault("poisson+at", "pgd10:eot=4", one_draw_for_all, "rise"),
}
