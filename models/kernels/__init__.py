"""The spiking layer's hot loops for one kind of machine each; `models.lif` is what they must equal."""

from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from models.kernels import gpu, native
from models.kernels.native import Affine, alike, channel_last, dense
from models.surrogates import Surrogate

if TYPE_CHECKING:
    from models.lif import LIFParams
    from models.random import Noise

__all__ = ["Affine", "Kernels", "alike", "channel_last", "dense", "kernels_for"]


class Kernels(Protocol):
    """What `native` and `gpu` are: the layer for one kind of machine. The functions are described there."""

    @property
    def SIMULATES_AGAIN(self) -> bool: ...  # noqa: N802

    @property
    def JOINS(self) -> bool: ...  # noqa: N802

    def simulate(
        self,
        current: Tensor,
        noise: "Noise | Tensor | None",
        params: "LIFParams",
        affine: Affine | None,
        with_membrane: bool,
        keep: bool,
        steps: int = 0,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]: ...

    def differentiates(self, surrogate: Surrogate) -> bool: ...

    def backward(
        self,
        potentials: Tensor,
        params: "LIFParams",
        affine: Affine | None,
        grad_spikes: Tensor | None,
        grad_membrane: Tensor | None,
        *,
        simulated: bool = True,
        steps: int = 0,
    ) -> Tensor: ...

    def fill_normal(self, out: Tensor, key: int, stream: int, samples: Tensor, draws: Tensor) -> None: ...

    def affine(self, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Affine: ...

    def combine(self, x: Tensor, y: Tensor, a: float, b: float) -> Tensor: ...

    def spread(self, grad: Tensor, a: float, b: float) -> tuple[Tensor, Tensor]: ...


def kernels_for(values: Tensor) -> Kernels | None:
    """The kernels for tensors on this device and of this type, or None where torch's operations have to run.

    The GPU's come first: in Triton's interpreter they take the processor's tensors too.
    """
    if gpu.takes(values):
        return gpu
    return native if native.takes(values) else None
