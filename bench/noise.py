"""Which networks draw noise when they are run: the one rule for all that is planned, stored or submitted."""

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.neurons import NeuronSpec


@functools.cache
def draws_noise(neuron: "NeuronSpec", encoder: str) -> bool:
    """Whether networks of such neurons, whose pixels become spikes by such an encoding, draw noise.

    Args:
        neuron: of every spiking layer.
        encoder: written form, see `build_encoder`.

    Raises:
        ValueError: there is no such encoding.
    """
    from models.encoding import build_encoder

    encoding = build_encoder(encoder)
    return bool(neuron.build().stochastic or (encoding is not None and encoding.stochastic))


def is_noisy_cell(spec: Mapping[str, Any]) -> bool:
    """Whether the network under a cell draws noise.

    Args:
        spec: identity of the cell, as it is stored.
    """
    # Of a network with code of its own only this says it; cells of older versions say it by their neurons alone.
    if spec.get("noise_version", 1) > 1:
        return True
    model = spec["model"]
    if model["neuron"]["kind"] == "lif" and not model.get("encoder"):
        # Most cells are such: nothing has to be imported and built for them.
        return False
    from bench.errors import BenchError
    from bench.respec import model_from_json

    try:
        known = model_from_json(model)
        return draws_noise(known.neuron, known.encoder)
    except (BenchError, LookupError, TypeError, ValueError):
        # A newer version's, whose cells would have said it.
        return False
