"""From what a user types to values: `tgo:lam_max=0.6+at`, `pgd40:alpha=0.01`, `8/255`."""

import inspect
import re
from collections.abc import Mapping
from contextlib import nullcontext
from fractions import Fraction
from typing import Any

from attacks.base import Attack
from attacks.events.threat import EVENTS, RULES, EventThreat, read_rules
from attacks.gradients import SpikeGradient, format_gradient, read_gradient
from attacks.losses import LOSSES
from attacks.projections import VERSIONS
from attacks.threat import WHOLE, Box, Threat, continuous, parse_eps
from bench.errors import BenchError, describe
from bench.names import defense_terms, without
from bench.parameters import converted, matched, shown_value, split_parameters
from bench.recount import RECOUNT_VERSION
from bench.registry import ATTACKS, DEFENSES, GRADIENTS, MODELS, Entry
from bench.spec import ARITHMETICS, AttackSpec, ModelSpec
from bench.usermodel import UserModel, quiet
from defenses.base import ConflictError, Defense
from models.encoding import build_encoder
from models.net import SpikingNet
from models.neurons import number_layers
from models.shaped import settle_shapes
from models.surrogates import Surrogate

PIXELS = Box()


def parse_defense(text: str) -> Defense:
    """Read a sum of registered defenses, each with optional hyper-parameters.

    Args:
        text: for example `tgo`, `tgo+at`, `mc:lam_max=0.6,delta=0.25+rat`.

    Raises:
        BenchError: unknown name or hyper-parameter, unreadable value, or a sum whose terms conflict.
    """
    terms = [_defense_term(term) for term in defense_terms(text)]
    try:
        return sum(terms[1:], start=terms[0])
    except ConflictError as error:
        raise BenchError(f"defense '{text}': {error}") from error


def _defense_term(text: str) -> Defense:
    name, given = split_parameters(text)
    build = DEFENSES.get(name)
    arguments = {
        key: converted(f"defense '{name}'", key, value, parameter.annotation, parameter.default)
        for key, value, parameter in matched(f"defense '{name}'", given, inspect.signature(build).parameters)
    }
    try:
        defense: Defense = build(**arguments)
    except (ValueError, TypeError) as error:
        raise BenchError(str(error)) from error
    if not isinstance(defense, Defense):
        raise BenchError(f"defense '{name}' must return a Defense, got {type(defense).__name__}")
    return Defense(text, defense.parts, defense.strategy) if given else defense


def parse_attack(
    text: str,
    eps: str,
    norm: str = "linf",
    surrogate: str | None = None,
    overrides: Mapping[str, str] | None = None,
    box: Box = PIXELS,
) -> AttackSpec:
    """Resolve an attack's name, parameters and threat model into one value.

    Args:
        text: a family, its step count if it has steps, its parameters, and the gradient it differentiates
            spikes by: `fgsm`, `pgd40`, `pgd40:alpha=0.01`, `sapgd100@assg`, `art:DeepFool:max_iter=50`.
            Attacks on events also have the rules of `EventThreat`: `random-edits:max_shift=5000,added=0.02`.
        eps: budget in pixel units, of frames in units of their scale: `8/255` or `0.15`. Of attacks on events it is
            the number of edits for each event.
        norm: `linf`, `l2`, or `linf-int`, which is linf over whole counts. Attacks on events have `events`, which the
            default stands for.
        surrogate: the gradient where `text` names none; None is the model's own.
        overrides: parameters set for every attack that has them, for example from `--alpha` or `--eot`.
        box: what inputs may hold, the dataset's `box`.

    Raises:
        BenchError: anything in it is unknown, unreadable or out of range.
    """
    text, at, after = (part.strip() for part in text.partition("@"))
    if at and not after:
        raise BenchError(f"attack '{text}@': name a gradient after the @; see: bench ls gradients")
    family, steps = _family(text.partition(":")[0].strip())
    entry = ATTACKS.entry(family)
    attack: Attack = entry.load()
    _check_steps(text, family, steps, attack)
    edits = attack.domain == EVENTS
    if edits and norm == "linf":
        norm = EVENTS
    if continuous(norm) not in attack.norms:
        raise BenchError(f"attack '{family}' works in {' and '.join(attack.norms)}, not in {norm}")
    grid = box.scale if norm == WHOLE else 0
    if norm == WHOLE and not grid:
        raise BenchError(f"--norm {WHOLE} is for whole counts: frames of events or 8-bit images; these are floats")
    overrides = dict(overrides or {})
    everywhere = overrides.pop("event_rules", "")
    rules = ""
    try:
        threat: Threat | EventThreat
        if edits:
            text, own = _without_rules(text)
            threat = EventThreat(parse_eps(eps), **read_rules(everywhere) | read_rules(own))
            rules = threat.rules
        else:
            threat = Threat(parse_eps(eps), continuous(norm), box.low, box.high, grid=grid)
    except ValueError as error:
        raise BenchError(f"attack '{text}': {error}" if edits else str(error)) from error
    if after and attack.own_gradients:
        raise BenchError(f"attack '{family}' brings its own gradients; leave out @{after}")
    blind = attack.own_gradients or attack.cost(max(steps or 1, 1))[1] == 0
    typed = "" if blind else after or surrogate or ""
    gradient = parse_gradient(typed) if typed else None
    if attack.settle is None:
        params, shown = _declared_params(text, attack, family, threat.eps, overrides)
    else:
        params, shown = _foreign_params(text, attack, overrides)
    if "loss" in attack.defaults and params["loss"] not in LOSSES:
        raise BenchError(f"attack '{text}': unknown loss '{params['loss']}'; choose from {', '.join(LOSSES)}")
    for key in ("restarts", "eot"):
        if params.get(key, 1) < 1:
            raise BenchError(f"attack '{text}': {key} must be at least 1")
    if attack.settle is None and params.get("alpha", 0) < 0:
        raise BenchError(f"attack '{text}': alpha must not be negative")
    for key, value in params.items():
        if isinstance(value, Fraction) and value > 1e300:
            raise BenchError(f"attack '{text}': {key} is too large")
    restarts, eot, arithmetic = params.pop("restarts", 1), params.pop("eot", attack.eot), params.pop("arithmetic")
    if arithmetic not in ARITHMETICS:
        raise BenchError(f"attack '{text}': arithmetic must be one of {', '.join(ARITHMETICS)}, got '{arithmetic}'")
    if arithmetic == "bf16" and attack.cost(max(steps or 1, 1)) == (0, 0):
        # There is nothing to compute but the score.
        arithmetic, shown = "fast", without("arithmetic", shown)
    try:
        attack.refuse(params, threat)
    except ValueError as error:
        raise BenchError(f"attack '{text}': {error}") from error
    params = {k: v for k, v in params.items() if k not in attack.added or v != attack.defaults[k]}
    written = format_gradient(gradient) if gradient is not None else None
    if rules:
        shown += f"{',' if ':' in shown else ':'}{rules}"
    return AttackSpec(
        family=family,
        steps=steps or 0,
        params=tuple(sorted(params.items())),
        restarts=restarts,
        version=attack.version,
        norm=norm,
        eps=threat.eps,
        low=0.0 if edits else box.low,
        high=0.0 if edits else box.high,
        surrogate=written,
        name=shown + (f"@{format_gradient(gradient, short=True)}" if gradient is not None else ""),
        shares_trajectory=attack.shares_trajectory,
        fingerprint=_fingerprint(entry, attack, typed),
        eot=eot,
        surrogate_version=getattr(gradient, "version", 1),
        ball_version=ball_version(norm),
        arithmetic=arithmetic,
        grid=grid,
        rules=rules,
    )


def _without_rules(text: str) -> tuple[str, str]:
    """An attack on events as it is typed, and the rules that are among its parameters."""
    name, given = split_parameters(text)
    rules, others = (
        ",".join(f"{key}={value}" for key, value in given.items() if (key in RULES) == wanted)
        for wanted in (True, False)
    )
    return ":".join(filter(None, [name, others])), rules


def ball_version(norm: str) -> int:
    """The version of the code that says what a threat model of this norm allows."""
    return RECOUNT_VERSION if norm == EVENTS else VERSIONS[norm]


def edits_events(text: str) -> bool:
    """Whether the attack that `text` names edits recordings of events.

    Raises:
        BenchError: an unknown attack.
    """
    return _named(text).domain == EVENTS


def has_budget(text: str) -> bool:
    """Whether the attack that `text` names does anything that an eps could bound; `clean` does not.

    Raises:
        BenchError: an unknown attack.
    """
    return _named(text).cost(1) != (0, 0)


def _named(text: str) -> Attack:
    found: Attack = ATTACKS.get(_family(text.partition("@")[0].partition(":")[0].strip())[0])
    return found


def takes(text: str, parameter: str) -> bool:
    """Whether the attack that `text` names has a parameter.

    Raises:
        BenchError: an unknown attack.
    """
    attack = _named(text)
    if parameter == "event_rules":
        return attack.domain == EVENTS
    return parameter in (_declared(attack) if attack.settle is None else ("eot", "arithmetic"))


def _declared(attack: Attack) -> dict[str, Any]:
    """Parameters that an attack of ours has, with their defaults."""
    params = dict(attack.defaults) | {"arithmetic": "fast"}
    if attack.cost(1) != (0, 0) and not attack.own_batches:
        params["eot"] = attack.eot
    if attack.takes_steps:
        params["restarts"] = 1
    return params


def _check_steps(text: str, family: str, steps: int | None, attack: Attack) -> None:
    if attack.takes_steps and steps is None:
        raise BenchError(f"attack '{family}' needs a step count, for example {family}10")
    if steps is not None and not attack.takes_steps:
        raise BenchError(f"attack '{family}' takes no step count; write {family}")
    if steps is not None and steps < 1:
        raise BenchError(f"attack '{text}': the step count must be at least 1")


def _declared_params(
    text: str, attack: Attack, family: str, eps: Fraction, overrides: Mapping[str, str]
) -> tuple[dict[str, Any], str]:
    """The parameters of an attack that declares them, and what a table calls it."""
    head, given = split_parameters(text)
    params = _declared(attack)
    if "alpha" in params and params["alpha"] is None:
        params["alpha"] = eps * Fraction(attack.alpha_per_eps)
    settled = dict(params)
    wanted = {key: value for key, value in overrides.items() if key in params} | given
    for key, value, default in matched(f"attack '{family}'", wanted, params):
        params[key] = converted(f"attack '{family}'", key, value, type(default), default)
    changed = [f"{key}={shown_value(params[key])}" for key in sorted(wanted) if params[key] != settled[key]]
    return params, ":".join(filter(None, [head, ",".join(changed)]))


def _foreign_params(text: str, attack: Attack, overrides: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """As `_declared_params`, for an attack whose parameters are another library's."""
    assert attack.settle is not None
    family, _, rest = text.strip().partition(":")
    name, given = split_parameters(rest) if rest else ("", {})
    eot, arithmetic = (
        given.pop(key, overrides.get(key, default))
        for key, default in (("eot", str(attack.eot)), ("arithmetic", "fast"))
    )
    try:
        params = attack.settle(name, given)
    except ValueError as error:
        raise BenchError(f"attack '{text}': {error}") from error
    params |= {"eot": converted(f"attack '{family}'", "eot", eot, int, 1), "arithmetic": arithmetic}
    changed = [f"{key}={value}" for key, value in given.items()]
    if params["eot"] != attack.eot:
        changed.append(f"eot={eot}")
    if arithmetic != "fast":
        changed.append(f"arithmetic={arithmetic}")
    return params, ":".join(filter(None, [family, name, ",".join(changed)]))


def _fingerprint(entry: Entry, attack: Attack, gradient: str) -> str:
    """Identifies code that carries no version number of ours: plug-ins by source, other libraries by release."""
    try:
        parts = [entry.fingerprint(), attack.backend() if attack.backend else ""]
    except (ValueError, ImportError) as error:
        raise BenchError(f"attack '{entry.name}': {error}") from error
    if gradient:
        parts.append(GRADIENTS.entry(gradient.partition(":")[0].strip()).fingerprint())
    return " ".join(filter(None, parts))


def parse_gradient(text: str) -> Surrogate | SpikeGradient:
    """Read the way an attacker differentiates spikes: `rga`, `arctan:alpha=4`, `assg:tolerance=0.9`.

    Raises:
        BenchError: unknown name or parameter, or a value out of range.
    """
    name = text.partition(":")[0].strip()
    try:
        return read_gradient(text, GRADIENTS.get(name))
    except ValueError as error:
        raise BenchError(str(error)) from error


def event_threat_of(spec: AttackSpec) -> EventThreat:
    """The threat model of a resolved attack on events."""
    return EventThreat(spec.eps, **read_rules(spec.rules), surrogate=spec.surrogate)


def threat_of(spec: AttackSpec) -> Threat:
    """The threat model of a resolved attack on images or frames.

    Raises:
        BenchError: it edits events, so that no box or ball says what it may do.
    """
    if spec.norm == EVENTS:
        raise BenchError(
            f"attack '{spec.name}' edits recordings, not images or frames; name an attack on frames, such as pgd40"
        )
    return Threat(spec.eps, continuous(spec.norm), spec.low, spec.high, spec.surrogate, spec.grid)


def attack_arguments(spec: AttackSpec) -> dict[str, Any]:
    """The keyword arguments of a resolved attack; exact fractions become floats only here."""
    return {key: float(value) if isinstance(value, Fraction) else value for key, value in spec.params}


def build_model(spec: ModelSpec) -> Any:
    """Build the network of a spec; its weights come from torch's current generator.

    A builder that the user names by its place may take fewer arguments than a registered one. What was built with
    another library's neurons is adapted (`models.foreign`).

    Raises:
        BenchError: the architecture refuses the input shape or the number of classes, the builder wants an argument
            that it is not given, or returns no module.
    """
    entry = MODELS.entry(spec.name)
    builder = entry.load()
    arguments = {
        "num_classes": spec.num_classes,
        "in_shape": spec.in_shape,
        "T": spec.T,
        "neuron": spec.neuron.build,
        "mean": spec.mean,
        "std": spec.std,
    }
    if ":" in spec.name:
        arguments = {key: arguments[key] for key in taken_of(builder, spec.name)}
    try:
        if entry.builtin:
            model = builder(**arguments)
        else:
            with quiet(), entry.building() if isinstance(entry, UserModel) else nullcontext():
                model = _adapted(builder(**arguments), spec)
        if spec.encoder:
            _encode(model, spec)
        settle_shapes(model, spec.in_shape, spec.T, frames=spec.frames)
    except BenchError:
        raise
    except (Exception, SystemExit) as error:
        # A builder may be anyone's code.
        what = str(error) if isinstance(error, ValueError) else describe(error)
        raise BenchError(f"model '{spec.name}' on {list(spec.in_shape)} inputs: {what}") from error
    number_layers(model)
    return model


def _encode(model: Any, spec: ModelSpec) -> None:
    """Give a network its encoder."""
    if not isinstance(model, SpikingNet):
        raise BenchError(
            f"model '{spec.name}' has an encoding of its own, so '{spec.encoder}' cannot take its place; derive it "
            "from models.SpikingNet, or leave that defense out"
        )
    model.encoder = build_encoder(spec.encoder, spec.mean)


def _adapted(model: Any, spec: ModelSpec) -> Any:
    from torch import nn

    from models.foreign import adapted

    if not isinstance(model, nn.Module):
        raise BenchError(f"model '{spec.name}' must return a torch.nn.Module, got {type(model).__name__}")
    return adapted(model, spec.in_shape, spec.T, spec.frames)


ARGUMENTS = ("num_classes", "in_shape", "T", "neuron", "mean", "std")
"""What the builder of a model may ask for."""


def taken_of(builder: Any, name: str) -> tuple[str, ...]:
    """Those of `ARGUMENTS` that a builder takes.

    Raises:
        BenchError: it needs another.
    """
    try:
        parameters = inspect.signature(builder).parameters.values()
    except (TypeError, ValueError) as error:
        raise BenchError(f"model '{name}': its builder has no signature ({error}); wrap it in a function") from error
    named = {p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY)}
    needed = [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    unknown = [key for key in needed if key not in ARGUMENTS or key not in named]
    if unknown:
        raise BenchError(
            f"model '{name}': its builder needs '{unknown[0]}', which is not among {', '.join(ARGUMENTS)}; give it a "
            "default, or name a function that fills it in"
        )
    return tuple(key for key in ARGUMENTS if key in named)


def _family(head: str) -> tuple[str, int | None]:
    """Split `pgd40` into family and steps."""
    match = re.fullmatch(r"([A-Za-z][\w-]*?)(-?\d+)", head)
    if head in ATTACKS:
        stem = match[1] if match else ""
        if stem in ATTACKS and ATTACKS.get(stem).takes_steps:
            raise BenchError(
                f"attack '{head}' is ambiguous: it is registered by {ATTACKS.entry(head).origin()}, and it is "
                f"'{stem}' with {head.removeprefix(stem)} steps; rename the registered one"
            )
        return head, None
    if not match:
        return head, None
    family, steps = match[1], match[2]
    if steps.startswith("-"):
        # `PGD-10` is how papers write it.
        meant = f"{family.lower()}{steps[1:]}" if family.lower() in ATTACKS and int(steps) else ""
        mend = f"; did you mean '{meant}'?" if meant else ""
        raise BenchError(f"attack '{head}': the step count must be at least 1, got {steps}{mend}")
    return family, int(steps)
