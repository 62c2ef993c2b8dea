"""How a network computes: the values of `bench.spec.ARITHMETICS`, as blocks."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from models.neurons import written_out


def computing(model: nn.Module, arithmetic: str, device: torch.device) -> AbstractContextManager[object]:
    """Inside the block the network computes in this way; its weights stay float32.

    Args:
        model: any network.
        arithmetic: `fast` changes nothing; with `bf16` convolutions, linear layers and neurons work on bfloat16;
            with `reference` the neurons run as their equations and nothing is fused.
        device: of the network.
    """
    if arithmetic == "bf16":
        return torch.autocast(device.type, torch.bfloat16)
    return written_out(model) if arithmetic == "reference" else nullcontext()
