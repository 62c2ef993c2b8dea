"""Normal numbers from random words, by operations that every processor rounds alike.

Libraries' logarithms and cosines differ in the last bit, by version and by vector unit, and a bit can flip a spike.
These are polynomials of additions, multiplications, one division and one square root, each rounded once as IEEE 754
says, so that the noise of a neuron is the same number on every machine. The kernels repeat them operation by operation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

_SQRT_HALF, _ONE = 0x3F3504F3, 0x3F800000


def unit(word: Tensor) -> Tensor:
    """Float32 in (0, 1] from words in [0, 2^32): 24 bits, centred, so never 0, whose log is infinite."""
    return (word >> 8).to(torch.float32).add_(0.5).mul_(2.0**-24)


def log_unit(u: Tensor) -> Tensor:
    """Natural logarithm of float32 numbers in (0, 1], to 1 ulp or so (the series of FreeBSD's `logf`)."""
    bits = u.view(torch.int32) + (_ONE - _SQRT_HALF)
    exponent = ((bits >> 23) - 127).to(torch.float32)
    m = ((bits & 0x7FFFFF) + _SQRT_HALF).view(torch.float32)
    f = m - 1
    s = f / (f + 2)
    z = s * s
    w = z * z
    odd = w * (w * 0.24279078841 + 0.40000972152)
    even = z * (w * 0.28498786688 + 0.66666662693)
    half = f * 0.5 * f
    low = s * (half + (even + odd)) + exponent * 9.0580006145e-06
    return ((low - half) + f) + exponent * 0.69313812256


def box_muller(words: Sequence[Tensor]) -> list[Tensor]:
    """Four independent standard normal float32 numbers from four random words (Box and Muller, 1958)."""
    return [*_pair(words[0], words[1]), *_pair(words[2], words[3])]


def _pair(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    # Vector libraries may be an ulp off in single precision; rounded from double it is exact.
    radius = (log_unit(unit(first)) * -2).double().sqrt().float()
    turn = second >> 8
    quarter = (turn + (1 << 21)) >> 22
    # In turns the reduction to an eighth is exact.
    x = ((turn - (quarter << 22)).to(torch.float32) + 0.5) * 2.0**-24 * 6.2831853072
    z = x * x
    sine = ((z * -1.9515295891e-4 + 8.3321608736e-3) * z + -1.6666654611e-1) * z * x + x
    cosine = ((z * 2.4433157118e-5 + -1.3887316255e-3) * z + 4.1666645683e-2) * z * z + (1 - z * 0.5)
    odd = (quarter & 1).bool()
    first_sign = 1 - ((quarter + 1) & 2).to(torch.float32)
    second_sign = 1 - (quarter & 2).to(torch.float32)
    return (
        radius * (torch.where(odd, sine, cosine) * first_sign),
        radius * (torch.where(odd, cosine, sine) * second_sign),
    )
