"""Who takes part: which network, attacked by which library."""

from collections.abc import Mapping
from dataclasses import dataclass

from bench.peers.adapter import Peer
from bench.perf.libraries import LIBRARIES, Library
from bench.perf.neurons import Neuron, PlainLIF, SnnTorchLIF, SpikingJellyLIF

OURS = "ours"


@dataclass(frozen=True)
class Network:
    """A way to write the same network.

    Attributes:
        neuron: class of its spiking layers.
        looped: whether it is called once for each time step.
        peer: the library that its neuron needs, if any.
        pip: the line that installs it.
    """

    neuron: type[Neuron]
    looped: bool = False
    peer: Peer | None = None
    pip: str = ""

    @property
    def installed(self) -> bool:
        """Whether its library is here."""
        return self.peer is None or self.peer.installed


NETWORKS: Mapping[str, Network] = {
    "plain PyTorch": Network(PlainLIF),
    "SpikingJelly": Network(
        SpikingJellyLIF,
        peer=Peer("SpikingJelly", "spikingjelly", ("spikingjelly",), {}),
        pip="pip install --no-deps spikingjelly && pip install loguru h5py requests SciencePlots tensorboard",
    ),
    "snnTorch": Network(
        SnnTorchLIF,
        looped=True,
        peer=Peer("snnTorch", "snntorch", ("snntorch",), {}),
        pip="pip install --no-deps snntorch",
    ),
}


@dataclass(frozen=True)
class Contestant:
    """A network, and the library that attacks it.

    Attributes:
        network: a name in `NETWORKS`, or `OURS`.
        library: a name in `LIBRARIES`, or `OURS`.
    """

    network: str = OURS
    library: str = OURS

    @property
    def name(self) -> str:
        """As tables call it."""
        if self.library == OURS:
            return OURS if self.network == OURS else f"{self.network}, our loop"
        return self.library if self.network == "plain PyTorch" else f"{self.network} + {self.library}"

    @property
    def attacks(self) -> Library:
        """The library."""
        return LIBRARIES[self.library]

    @property
    def installed(self) -> bool:
        """Whether everything that it needs is here."""
        network = self.network == OURS or NETWORKS[self.network].installed
        return network and (self.library == OURS or self.attacks.peer.installed)


ALL: tuple[Contestant, ...] = (
    Contestant(),
    *(Contestant("plain PyTorch", library) for library in LIBRARIES),
    Contestant("SpikingJelly", "torchattacks"),
    Contestant("snnTorch", "torchattacks"),
)
BY_NAME: Mapping[str, Contestant] = {contestant.name: contestant for contestant in ALL}


def missing() -> list[str]:
    """A line for each library that is not installed, with the command that installs it."""
    found = {entry.peer.package: (entry.peer, entry.pip) for entry in LIBRARIES.values()}
    found |= {entry.peer.package: (entry.peer, entry.pip) for entry in NETWORKS.values() if entry.peer}
    return [f"{peer.name}: not installed; {pip}" for peer, pip in found.values() if not peer.installed]


def releases() -> dict[str, str]:
    """Name and version of each installed library."""
    peers = [entry.peer for entry in LIBRARIES.values()] + [entry.peer for entry in NETWORKS.values() if entry.peer]
    return {peer.name: peer.release for peer in peers if peer.installed}
