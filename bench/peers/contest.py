"""What is compared with what."""

import re
from dataclasses import dataclass

from bench.errors import BenchError
from bench.peers.adapter import Peer
from bench.peers.art import ART
from bench.peers.autoattack import AUTOATTACK
from bench.peers.foolbox import FOOLBOX
from bench.peers.torchattacks import TORCHATTACKS

PEERS: tuple[Peer, ...] = (ART, TORCHATTACKS, FOOLBOX, AUTOATTACK)
DEFAULT = ("pgd40", "apgd40", "mtpgd20", "autoattack")


@dataclass(frozen=True)
class Contest:
    """Attacks of one kind at one budget.

    Attributes:
        name: as typed, `pgd40`.
        kind: which of each peer's attacks takes part.
        steps: gradient steps, for each target where there are several; 0 where a library's ensemble decides.
        ours: our attacks; the first is what the peers are compared with.
        summary: what is equal and what is not.
        deterministic_only: whether it means nothing on noisy networks.
    """

    name: str
    kind: str
    steps: int
    ours: tuple[str, ...]
    summary: str
    deterministic_only: bool = False


_ENSEMBLES = ("snn-standard", "sapgd100@assg")
_KINDS: dict[str, tuple[tuple[str, ...], str]] = {
    "pgd": (("pgd{}:random_start=false",), "cross-entropy, all from the image, one step size"),
    "apgd": (("apgd{}", "sapgd{}@assg"), "cross-entropy, one random start each"),
    "mtpgd": (("mtpgd{}",), "every other class in turn, one random start each"),
}


def parse_contest(text: str) -> Contest:
    """Read `pgd40`, `apgd100`, `mtpgd20` or `autoattack`.

    Raises:
        BenchError: another name, or no step count.
    """
    if text == "autoattack":
        return Contest(text, text, 0, _ENSEMBLES, "whole ensembles, each at its own cost", deterministic_only=True)
    match = re.fullmatch(r"(apgd|mtpgd|pgd)(\d+)", text)
    if not match or int(match[2]) < 1:
        raise BenchError(f"'{text}' is not compared with anything; choose from {', '.join(DEFAULT)}, any step count")
    ours, summary = _KINDS[match[1]]
    return Contest(text, match[1], int(match[2]), tuple(name.format(match[2]) for name in ours), summary)
