"""Any evasion attack of the Adversarial Robustness Toolbox that runs on an image classifier."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from fractions import Fraction
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from attacks.base import Attack
from attacks.external.hosting import View, hosted, load, seed_of
from attacks.gradients import frozen
from attacks.gradients.estimation import active_estimation
from attacks.projections import ball
from attacks.threat import Threat
from models.random import CounterRNG

DISTRIBUTION = "adversarial-robustness-toolbox"
TARGETED_ONLY = ("SaliencyMapMethod", "TargetedUniversalPerturbation")
PROBABILITIES = ("SimBA", "VirtualAdversarialMethod")
ONE_IMAGE = ("ShadowAttack", "SimBA")
_NOT_OURS = ("self", "targeted", "summary_writer", "attacks", "estimator_orig", "parallel_pool_size")
_STEP_PER_EPS, _OWN_STEP = 51 / 160, 2.0


def art(model: nn.Module, x: Tensor, y: Tensor, threat: Threat, *, rng: CounterRNG, name: str, **params: Any) -> Tensor:
    """One attack of ART, untargeted, its result projected onto the ball.

    A second opinion: the code is independent of ours, and slower. ART's gradient attacks spend two forwards and
    one backward on each step, its APGD returns the last iterate rather than the best, and its AutoAttack is not
    the official one. Attacks for the smallest perturbation (DeepFool, Carlini) become attacks of the given
    budget by the projection, which may undo them; and ART's DeepFool stops 1e-6 beyond the boundary, which float32
    may round away (`art:DeepFool:epsilon=0.02` is its paper's). Decision-based attacks search in their own norm.

    Where the attack has the parameter and the user gave none: eps, norm, eps_step (eps * 51/160, and 2 eps for
    the `Auto` attacks, as in their papers), batch_size and verbose. ART computes in float32 with the batch as a
    whole, so other images in the batch may change an image's result. For a noisy network every call is one draw of
    its noise, and `eot` averages ART's loss and class gradients, not the decisions it takes on the way.
    Attacks that need a target (JSMA) get the likeliest wrong class.

    Source: Nicolae et al., arXiv 1807.01069.
    Cost: the attack's own; 200 forwards and 100 backwards for ART's PGD as it is.

    Args:
        model: maps [N, C, H, W] to logits [N, K].
        x: clean inputs [N, C, H, W] inside the box.
        y: true labels [N].
        threat: norm, eps and box.
        rng: only its key and its samples are used, as the seed of the batch.
        name: class in `art.attacks.evasion`.
        params: arguments of that class, see `settle`.

    Returns:
        x_adv [N, C, H, W], inside the ball and the box in float64.

    Raises:
        ValueError: the attack refuses its arguments or this kind of classifier, or returns something else
            than images. What it raises while it runs is passed on.
    """
    if threat.eps == 0:
        return x.clone(memory_format=torch.preserve_format)
    with frozen(model), hosted(seed_of(rng)), torch.cuda.device(x.device if x.is_cuda else -1):
        view = View(model, x)
        shown = nn.Sequential(view, nn.Softmax(1)) if name in PROBABILITIES else view
        classifier = _classifier(shown, x, view.classes(x.float()), threat)
        attack = _attack(classifier, name, params, threat, len(x))
        images = x.detach().float().cpu().numpy()
        wanted = _labels(view, name, x, y)
        # Some take one image only, and mean something else by a batch.
        pieces = len(x) if name in ONE_IMAGE else 1
        pairs = zip(np.array_split(images, pieces), np.array_split(wanted, pieces), strict=True)
        results = [attack.generate(part.copy(), labels) for part, labels in pairs]
        found = np.concatenate(results) if pieces > 1 else results[0]
    if not isinstance(found, np.ndarray) or found.shape != images.shape:
        got = list(found.shape) if isinstance(found, np.ndarray) else type(found).__name__
        raise ValueError(f"ART's {name} returns {got} instead of images {list(images.shape)}")
    # Where ART did nothing the image is x itself, which float32 may not hold.
    changed = torch.from_numpy(found != images).to(x.device)
    proposal = torch.where(changed, torch.from_numpy(found).to(x.device, x.dtype), x.detach())
    return ball(x, threat).project(proposal)


def settle(name: str, given: Mapping[str, str]) -> dict[str, Any]:
    """Read `art:NAME:key=value,...` and try it on a small network, so that a mistake shows before any work.

    Args:
        name: class in `art.attacks.evasion`.
        given: its arguments as typed; int, float, true or false, or text, as the argument's default is.

    Returns:
        keyword arguments of `art`: `name` and what was given.

    Raises:
        ValueError: an unknown class or argument, an unreadable value, or an attack that does not run on an image
            classifier.
    """
    parameters = _parameters(_find(name))
    if name.startswith("AdversarialPatch"):
        raise ValueError(f"ART's {name} makes a patch, not images within a distance")
    for key in given:
        if key not in parameters:
            raise ValueError(f"ART's {name} has no parameter '{key}'; it has {', '.join(parameters)}")
    params = {key: _read(key, text, parameters[key].default) for key, text in given.items()}
    x = torch.zeros(1, 1, 8, 8)
    threat = Threat(Fraction(1))
    with hosted(0):
        _attack(_classifier(View(_StandIn(), x), x, 4, threat), name, params, threat, 1)
    return {"name": name, **params}


def names() -> list[str]:
    """The evasion attacks that ART has, whether or not they run on images."""
    evasion, base = load("art.attacks.evasion"), load("art.attacks.attack").EvasionAttack
    classes = {name: value for name, value in vars(evasion).items() if inspect.isclass(value)}
    return sorted(name for name, value in classes.items() if issubclass(value, base) and not inspect.isabstract(value))


def _find(name: str) -> type:
    known = names()
    if name not in known:
        lower = {candidate.lower(): candidate for candidate in known}
        close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.3) or ["deepfool"]
        raise ValueError(f"ART has no evasion attack '{name}'; write art:NAME, for example art:{lower[close[0]]}")
    return getattr(load("art.attacks.evasion"), name)  # type: ignore[no-any-return]


def _parameters(attack: type) -> dict[str, inspect.Parameter]:
    """What a user may set: the constructor's arguments but for the classifier and what the harness decides."""
    parameters = inspect.signature(attack.__init__).parameters  # type: ignore[misc]
    own = {key: value for key, value in parameters.items() if key not in (*_NOT_OURS, "classifier", "estimator")}
    return {key: value for key, value in own.items() if value.kind is not inspect.Parameter.VAR_KEYWORD}


def _read(key: str, text: str, default: Any) -> Any:
    if key == "norm" and text == "inf":
        return text
    for convert in _READERS.get(type(default), (int, _number, _boolean, str)):
        try:
            return convert(text)
        except ValueError:
            continue
    expected = {bool: "true or false", int: "an integer", float: "a finite number"}[type(default)]
    raise ValueError(f"{key}={text} is not {expected}")


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _number(text: str) -> float:
    value = float(text)
    if not np.isfinite(value):
        raise ValueError(text)
    return value


_READERS: dict[type, tuple[Callable[[str], Any], ...]] = {
    bool: (_boolean,),
    int: (int,),
    float: (_number,),
    str: (str,),
}


def _attack(classifier: Any, name: str, params: Mapping[str, Any], threat: Threat, batch: int) -> Any:
    """The attack, with what the threat model says in place of ART's defaults."""
    kind = _find(name)
    parameters = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    eps = params.get("eps", float(threat.eps))
    filled: dict[str, Any] = {
        "eps": eps,
        "eps_step": eps * (_OWN_STEP if name.startswith(("Auto", "RescalingAuto")) else _STEP_PER_EPS),
        "verbose": False,
        "targeted": False,
    }
    if name not in ONE_IMAGE:
        filled["batch_size"] = batch
    # Wasserstein calls something else a norm.
    if "norm" in parameters and not isinstance(parameters["norm"].default, str):
        filled["norm"] = np.inf if threat.norm == "linf" else 2
    arguments = {key: value for key, value in filled.items() if key in parameters} | dict(params)
    unset = [key for key, value in _parameters(kind).items() if value.default is value.empty and key not in arguments]
    if unset:
        raise ValueError(f"ART's {name} needs {', '.join(unset)}; write art:{name}:{unset[0]}=...")
    try:
        return kind(classifier, **arguments)
    except Exception as error:
        # ART refuses with exceptions of every type.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"ART's {name} refuses: {reason}") from error


def _classifier(shown: nn.Module, x: Tensor, classes: int, threat: Threat) -> Any:
    """ART's classifier; its gradients are means over as many draws as the attacker wants.

    The loss is summed over the batch, not averaged: an image's gradient must not shrink with the size of its batch.
    """
    classifier = load("art.estimators.classification").PyTorchClassifier(
        shown,
        loss=nn.CrossEntropyLoss(reduction="sum"),
        input_shape=tuple(x.shape[1:]),
        nb_classes=classes,
        clip_values=(threat.low, threat.high),
        device_type="gpu" if x.is_cuda else "cpu",
    )
    draws = active_estimation().draws
    if draws > 1:
        classifier.loss_gradient = _mean(classifier.loss_gradient, draws)
        classifier.class_gradient = _mean(classifier.class_gradient, draws)
    return classifier


def _mean(take: Callable[..., Any], draws: int) -> Callable[..., Any]:
    def averaged(*args: Any, **kwargs: Any) -> Any:
        total = take(*args, **kwargs)
        for _ in range(draws - 1):
            total = total + take(*args, **kwargs)
        return total / draws

    return averaged


def _labels(view: View, name: str, x: Tensor, y: Tensor) -> np.ndarray:
    """One-hot [N, K]: the true classes, or for a targeted attack the likeliest wrong ones."""
    with torch.no_grad():
        logits = view(x.float())
    if name in TARGETED_ONLY:
        y = logits.scatter(1, y[:, None], -torch.inf).argmax(1)
    one_hot: np.ndarray = functional.one_hot(y, logits.shape[1]).float().cpu().numpy()
    return one_hot


class _StandIn(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :4]


def backend() -> str:
    """The release of ART that does the work, `adversarial-robustness-toolbox 1.20.1`."""
    return f"{DISTRIBUTION} {version(DISTRIBUTION)}"


ART = Attack(
    art,
    "an attack of the Adversarial Robustness Toolbox: art:DeepFool:max_iter=50",
    cost=lambda steps: (200, 100),
    own_batches=True,
    settle=settle,
    backend=backend,
)
