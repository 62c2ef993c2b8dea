"""What stands where in the paper's tables."""

from dataclasses import dataclass

from bench.errors import BenchError


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        strategy: how the paper trains: BPTT, AT or RAT.
        method: what it calls the row.
        defense: our name of it.
        published: the `method` of the published numbers.
    """

    strategy: str
    method: str
    defense: str
    published: str


@dataclass(frozen=True)
class Column:
    """One column: head, our attack (empty for clean accuracy), attack and steps of the published numbers."""

    head: str
    attack: str
    published: tuple[str, str]


@dataclass(frozen=True)
class Block:
    """Rows of one architecture: our name of it, the paper's, and the rows."""

    model: str
    architecture: str
    rows: tuple[Row, ...]


EPOCHS, T, DECAY, LR, EPS, SEEDS = 300, 4, 0.5, 0.1, "8/255", 3
"""What the paper says of all its runs (Sec. 5.1, Appendix E)."""


@dataclass(frozen=True)
class PaperTable:
    """One table.

    Attributes:
        name: `table1`.
        subject: what it shows, without the dataset.
        source: `table` of the published numbers.
        dataset, published_dataset: our name, and the paper's.
        images: size of the paper's test set.
        abreast: whether the strategies stand beside each other, not below.
        alone: whether no other dataset stands in for its own unasked.
        time_steps: T; None where the paper does not say.
        unstated: what else it does not say, as a sentence.
    """

    name: str
    subject: str
    source: str
    dataset: str
    published_dataset: str
    images: int
    blocks: tuple[Block, ...]
    columns: tuple[Column, ...]
    abreast: bool = False
    alone: bool = False
    time_steps: int | None = T
    unstated: str = ""


def _attack(name: str, head: str = "") -> Column:
    family = name.rstrip("0123456789")
    return Column(head or name.upper().replace("PGD", "PGD-"), name, (family.upper(), name[len(family) :] or "1"))


_CLEAN = Column("Clean", "", ("Clean", "0"))
_STANDARD = (_CLEAN, *(_attack(name) for name in ("fgsm", "rfgsm", "pgd7", "pgd10", "pgd20", "pgd40")))


def _row(strategy: str, method: str, defense: str) -> Row:
    return Row(strategy, method, defense, method)


_BPTT, _AT, _RAT = (
    _row("BPTT", "Vanilla", "vanilla"),
    _row("AT", "AT", "at"),
    _row("RAT", "RAT", "rat"),
)
_TGO = {s: _row(s, "TGO", d) for s, d in (("BPTT", "tgo"), ("AT", "tgo+at"), ("RAT", "tgo+rat"))}
_SR = {s: _row(s, "SR", d) for s, d in (("BPTT", "sr"), ("AT", "sr+at"))}
_DLIF, _STOG = (
    {s: _row(s, method, defense + with_it) for s, with_it in (("BPTT", ""), ("AT", "+at"), ("RAT", "+rat"))}
    for method, defense in (("DLIF", "dlif+mppd"), ("StoG", "stog"))
)


def _with_eot(head: str, published: str, family: str) -> tuple[Column, ...]:
    return tuple(
        Column(f"{head}-{steps}", f"{family}{steps}:eot=3", (published, str(steps))) for steps in (7, 10, 20, 40)
    )


_ABLATION = tuple(
    Row(strategy, method, part + ("+rat" if strategy == "RAT" else ""), f"TGO ablation: {printed}")
    if part
    else Row(strategy, method, "rat" if strategy == "RAT" else "vanilla", f"TGO ablation: {printed}")
    for strategy in ("BPTT", "RAT")
    for method, part, printed in (
        ("neither", "", "none (baseline)"),
        ("MC", "mc", "MC only"),
        ("NLIF", "nlif", "NLIF only"),
        ("MC+NLIF", "tgo", "MC+NLIF (TGO)"),
    )
)

TABLES = {
    table.name: table
    for table in (
        PaperTable(
            "table1", "Robust accuracy", "Table 1", "cifar10", "CIFAR-10", 10_000,
            (Block("wrn16-4", "WRN-16", (_BPTT, _TGO["BPTT"], _AT, _TGO["AT"], _RAT, _TGO["RAT"])),),
            _STANDARD,
        ),
        PaperTable(
            "table2", "Robust accuracy", "Table 2", "cifar100", "CIFAR-100", 10_000,
            (
                Block("vgg11", "VGG-11", (
                    _BPTT, _DLIF["BPTT"], _STOG["BPTT"], _TGO["BPTT"], _AT, _STOG["AT"], _TGO["AT"],
                    _RAT, _STOG["RAT"], _TGO["RAT"],
                )),
                Block("wrn16-4", "WRN-16", (
                    _BPTT, _DLIF["BPTT"], _SR["BPTT"], _TGO["BPTT"], _AT, _DLIF["AT"], _SR["AT"], _TGO["AT"],
                    _RAT, _DLIF["RAT"], _TGO["RAT"],
                )),
            ),
            _STANDARD,
            unstated="Whether the paper ran DLIF and StoG again or copied them it does not say; their own papers have "
            "T 8 and decay 0.99 and 1.0 (bench run --preset lineage).",
        ),
        PaperTable(
            "table3", "MTPGD and APGD, EoT over 3 draws for TGO", "Table 3", "cifar100", "CIFAR-100", 10_000,
            (Block("wrn16-4", "WRN-16", (_AT, _SR["AT"], _TGO["AT"])),),
            (*_with_eot("MTPGD", "MTPGD", "mtpgd"), *_with_eot("APGD", "APGD(CE)", "apgd")),
        ),
        PaperTable(
            "table4", "The parts of TGO", "Table 4", "cifar100", "CIFAR-100", 10_000,
            (Block("vgg11", "VGG-11", _ABLATION),),
            (_CLEAN, _attack("fgsm"), _attack("rfgsm"), _attack("pgd40")), abreast=True,
        ),
        PaperTable(
            "table5", "Robust accuracy", "Table 5 (App. A)", "cifar10-dvs", "CIFAR10-DVS", 1_000,
            (Block("wrn16-4", "WRN-16", (_AT, _TGO["AT"])),),
            (_CLEAN, *(_attack(name) for name in ("fgsm", "rfgsm", "pgd7", "pgd10", "pgd30", "pgd50"))),
            # Frames of events are no images.
            alone=True,
            time_steps=None,
            unstated="The paper does not say how many frames its recordings have, how they are made and split, nor "
            "in which unit of theirs eps is.",
        ),
    )
}  # fmt: skip


def paper_table(name: str) -> PaperTable:
    """A table of the paper.

    Raises:
        BenchError: no such table.
    """
    if name not in TABLES:
        raise BenchError(f"unknown table '{name}'; choose from {', '.join(TABLES)}, or leave the name out")
    return TABLES[name]
