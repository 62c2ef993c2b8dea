"""The conversion-based gradient: the same weights run as an ordinary network."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from models.lif import in_rates
from models.neurons import LIF, Replacement


@dataclass(frozen=True)
class Conversion:
    """The input gradient of the ANN twin: each spiking layer is clip(mean_t I / v_threshold, 0, 1) at every step.

    The point is proposed by the twin and judged by the spiking network: a transfer attack that costs no
    second training.

    Source: conversion-based approximation, SNN-RAT (Ding et al., NeurIPS 2022), with a ReLU; later codes clip it
    and round to eighths, the gradient passed through. Here clipped alone, since a firing rate does not exceed 1.
    A threshold that adapts is the mean of what the layer would meet, as a constant.
    Cost: one further forward pass for each gradient, for the spiking network's own logits.
    """

    name: ClassVar[str] = "conversion"
    faithful: ClassVar[bool] = False
    version: ClassVar[int] = 1

    def for_layer(self, layer: LIF) -> Replacement:
        return _rates


def _rates(layer: LIF, current: Tensor) -> Tensor:
    threshold, _ = in_rates(layer.constants(current))
    return (current.mean(0) / threshold).clamp(0, 1).expand(current.shape)
