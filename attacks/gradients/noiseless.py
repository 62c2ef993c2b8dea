"""The gradient of a noisy network with its noise averaged out inside the neuron."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.lif import lif
from models.neurons import LIF, NoisyLIF, Replacement
from models.surrogates import Gaussian


@dataclass(frozen=True)
class Noiseless:
    """Noise off in the pass that is differentiated, and the firing probability's exact derivative as surrogate.

    A neuron with noise N(0, s^2) on its potential fires with probability Phi((V - v_threshold) / s), whose
    derivative is the Gaussian surrogate with alpha = 1/s. Layers without noise keep their own surrogate, and random
    gates after a layer (StoG) pass the expectation, each spike times its gate's probability.
    What a random encoding (Poisson) draws stays drawn.
    What an attacker who knows of the noise would do instead of drawing it.

    Source: none; closed form.
    Cost: one further forward pass for each gradient, for the noisy network's own logits.
    """

    name: ClassVar[str] = "noiseless"
    faithful: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def for_layer(self, layer: LIF) -> Replacement:
        return _WithoutNoise()


class _WithoutNoise:
    averages: ClassVar[bool] = True

    def __call__(self, layer: LIF, current: Tensor) -> Tensor:
        params = layer.constants(current)
        if isinstance(layer, NoisyLIF) and layer.stochastic:
            params = params._replace(surrogate=Gaussian(layer.noise_var**-0.5))
        return lif(current, params)[0]
