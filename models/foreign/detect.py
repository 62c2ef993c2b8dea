"""Which libraries of spiking neurons a network was built with, told from its modules without importing any."""

from torch import nn

LIBRARIES = ("spikingjelly", "snntorch")


def library_of(module: nn.Module) -> str | None:
    """The library that one module's class, or a class it derives from, comes from; None for others."""
    for kind in type(module).__mro__:
        top = kind.__module__.partition(".")[0]
        if top in LIBRARIES:
            return top
    return None


def libraries_of(net: nn.Module) -> tuple[str, ...]:
    """The libraries that a network's modules come from, sorted; empty for plain torch and for our own networks."""
    return tuple(sorted({library for module in net.modules() if (library := library_of(module))}))
