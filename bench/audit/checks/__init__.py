"""Every check of a network: a function from its measurements to one finding."""

from collections.abc import Callable

from bench.audit.checks.gradients import blind_gradient, direction, saturated_ce, zero_gradient
from bench.audit.checks.hygiene import after_exception, state, undeclared_noise
from bench.audit.checks.orderings import (
    black_box,
    iterative,
    monotone_eps,
    more_restarts,
    more_steps,
    noise,
    surrogate_spread,
    transfer,
    unbounded,
)
from bench.audit.checks.outputs import chance, nan, probabilities, silent, ties
from bench.audit.checks.randomness import eot, fresh_noise
from bench.audit.finding import Finding
from bench.audit.lab import Lab

Check = Callable[[Lab], Finding]

CHECKS: dict[str, Check] = {
    "state": state,
    "after exception": after_exception,
    "undeclared noise": undeclared_noise,
    "chance": chance,
    "silent": silent,
    "probabilities": probabilities,
    "zero gradient": zero_gradient,
    "blind gradient": blind_gradient,
    "direction": direction,
    "steps": more_steps,
    "saturated ce": saturated_ce,
    "iterative": iterative,
    "noise": noise,
    "eps": monotone_eps,
    "restarts": more_restarts,
    "unbounded": unbounded,
    "black box": black_box,
    "transfer": transfer,
    "surrogate spread": surrogate_spread,
    "eot": eot,
    "fresh noise": fresh_noise,
    # These look at what all the others measured.
    "ties": ties,
    "nan": nan,
}
