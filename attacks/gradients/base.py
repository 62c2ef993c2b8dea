"""What a way to differentiate spikes must offer."""

from typing import ClassVar, Protocol, runtime_checkable

from models.neurons import LIF, Replacement


@runtime_checkable
class SpikeGradient(Protocol):
    """How an attacker differentiates spiking layers: a frozen dataclass whose fields are its parameters.

    Attributes:
        name: as typed after the `@` of an attack.
        faithful: whether the forward pass that it differentiates gives the network's own output.
        version: part of every result's key; raise it when a change of code may change an outcome.
    """

    name: ClassVar[str]
    faithful: ClassVar[bool]
    version: ClassVar[int]

    def for_layer(self, layer: LIF) -> Replacement:
        """What runs in place of `layer` wherever a gradient is recorded; called anew for each attack run."""
        ...
