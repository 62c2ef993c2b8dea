"""`bench peers`: our attacks beside other libraries'."""

import json
import sys
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError


def peers(
    defenses: o.Defenses = None,
    contests: Annotated[
        list[str] | None,
        typer.Option(
            "--attack",
            "-a",
            metavar="NAME",
            help="What to compare: pgdK, apgdK, mtpgdK, autoattack; pgd40, apgd40, mtpgd20 and autoattack if not "
            "given. Several: repeat, or separate by commas.",
        ),
    ] = None,
    dataset: o.DatasetName = None,
    model: o.ModelName = None,
    weights: o.Weights = None,
    plugins: o.Plugins = None,
    eps: Annotated[
        str | None, typer.Option("--eps", metavar="EPS", help="Budget in pixel units; the dataset's if not given.")
    ] = None,
    alpha: o.Alpha = None,
    count: Annotated[
        int, typer.Option("-n", "--images", metavar="INT", help="The first so many test images, 0 means all.")
    ] = 200,
    draws: o.Draws = None,
    attack_seed: o.AttackSeed = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="INT", help="Training seed.")] = 0,
    T: o.Steps = None,
    decay: o.Decay = 0.5,
    surrogate: o.SurrogateName = "triangular",
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    lr: o.LearningRate = None,
    train_size: o.TrainSize = None,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    device: o.Device = "auto",
    threads: o.Threads = None,
    form: Annotated[str, typer.Option("--format", help="text, md or json.")] = "text",
    as_json: o.AsJson = False,
) -> None:
    """Compare our attacks with ART's, torchattacks', foolbox's and official AutoAttack.

    On one network: the same images, budget and step size, every proposal scored by one
    rule, every pass of the network counted. Networks that are not trained yet are trained.

    Example:

      bench peers -d vanilla,at,tgo,tgo+at -a pgd40,apgd40
    """
    from bench.cli.matrix import Matrix
    from bench.names import split_list
    from bench.peers.contest import DEFAULT, parse_contest
    from bench.report.peers import FORMATS, peers_json, render
    from bench.runtime import pick_device

    if form not in FORMATS:
        raise BenchError(f"unknown format '{form}'; choose from {', '.join(FORMATS)}")
    wanted = [parse_contest(name) for name in split_list(contests or DEFAULT)]

    def matrix(attacks: list[str]) -> Matrix:
        return Matrix(
            defenses=defenses,
            attacks=attacks,
            dataset=dataset,
            model=model,
            weights=weights,
            plugins=plugins,
            eps=[eps] if eps else None,
            alpha=alpha,
            count=count,
            draws=draws,
            attack_seed=attack_seed,
            seeds=None if weights else [str(seed)],
            T=T,
            decay=decay,
            surrogate=surrogate,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            train_size=train_size,
            data_dir=data_dir,
            results=results,
        )

    chosen = pick_device(device, threads)
    plan = matrix(list(dict.fromkeys(name for contest in wanted for name in contest.ours))).plan()
    training = matrix(["clean"])

    from bench.peers.compare import matches, missing_peers, releases
    from bench.peers.networks import trained

    found = list(
        matches(
            plan,
            wanted,
            trained(training.plan(), o.open_store(results, store), training.checkpoints, chosen),
            chosen,
            lambda what: print(what, file=sys.stderr, flush=True),
        )
    )
    missing, known = missing_peers(), releases()
    if as_json or form == "json":
        print(json.dumps(peers_json(found, missing, known), indent=1))
    else:
        render(found, form, missing, known)
    if any(row.measured.error and not row.measured.refused for match in found for row in match.rows):
        raise typer.Exit(1)
