"""What is installed and what there is to compute on."""

import os
from typing import Any

import torch

from bench.provenance import device_name, provenance


def about(device: torch.device) -> dict[str, str]:
    """Versions and devices, by name."""
    known: dict[str, Any] = provenance(device)
    processor = device_name(torch.device("cpu")).removeprefix("cpu (").removesuffix(")")
    built = torch.version.cuda
    cards = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    found = {
        "bench": " ".join(filter(None, [known["version"], (known["commit"] or "")[:12]])),
        "Python": known["python"],
        "packages": ", ".join(f"{name} {version}" for name, version in known["packages"].items()),
        "CUDA": f"{built}, cuDNN {torch.backends.cudnn.version()}" if built else "not in this build of torch",
        "GPUs": ", ".join(cards) or "none",
        "processor": f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "system": known["machine"],
        "tested on": device,
    }
    return {key: str(value) for key, value in found.items()}
