"""`bench truth`: attacks beside the exact robust accuracy of small networks."""

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError

_FORMATS = ("text", "md", "csv", "json")


def truth(
    defenses: o.Defenses = None,
    attacks: o.Attacks = None,
    dataset: Annotated[str, typer.Option("--dataset", metavar="NAME", help="Images with few pixels.")] = "digits4",
    model: Annotated[
        str, typer.Option("--model", metavar="NAME", help="A spiking perceptron with a narrow first layer.")
    ] = "tiny",
    weights: o.Weights = None,
    plugins: o.Plugins = None,
    eps: o.Eps = None,
    count: o.Count = None,
    attack_seed: o.AttackSeed = 0,
    nodes: Annotated[
        int,
        typer.Option("--nodes", metavar="INT", help="Give an image up, as unknown, after so many partial patterns."),
    ] = 2_000_000,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="X", help="Give an image up, as unknown, after so long.")
    ] = None,
    seeds: o.Seeds = None,
    T: o.Steps = None,
    decay: o.Decay = 0.5,
    surrogate: o.SurrogateName = "triangular",
    epochs: o.Epochs = None,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    results: o.Results = o.DEFAULT_RESULTS,
    store: o.StoreTarget = None,
    threads: o.Threads = None,
    iterate: Annotated[
        str,
        typer.Option(
            "--iterate", help="last (as in the literature), or any (also the strongest iterate on the way; stricter)."
        ),
    ] = "last",
    form: Annotated[str, typer.Option("--format", help="text, md, csv or json.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to a file instead of printing.")] = None,
    as_json: o.AsJson = False,
) -> None:
    """Compare attacks with the exact robust accuracy, found by enumeration on networks small enough for that.

    An attack's number is only an upper bound of robust accuracy. Here the bound's error is known, image by
    image: for each image either a proof that nothing in the ball fools the network, or an image that does.
    Noisy networks are judged with their noise off, and everything is computed in float64.

    Example:

      bench truth -d vanilla,at,tgo+at -a fgsm,pgd7,pgd40,pgd40:restarts=5 --eps 0.02,0.05
    """
    if form not in _FORMATS:
        raise BenchError(f"unknown format '{form}'; choose from {', '.join(_FORMATS)}")
    if iterate not in ("last", "any"):
        raise BenchError(f"--iterate must be last or any, got '{iterate}'")
    if nodes < 1 or (seconds is not None and not seconds > 0):
        raise BenchError("--nodes and --seconds must be positive")
    from bench.cli.display import Display
    from bench.cli.matrix import Matrix
    from bench.cli.truth_display import TruthDisplay
    from bench.names import split_list
    from bench.provenance import provenance
    from bench.report.truth import problems, render
    from bench.resolve import parse_attack
    from bench.runtime import pick_device
    from bench.scheduler import run_plan
    from bench.truth.compare import compare, refuse_frames
    from bench.truth.exact import Limits

    device = pick_device("cpu", threads)
    names = split_list(attacks or ["fgsm", "pgd40"])
    # The networks come from an ordinary run; its one attack is none.
    matrix = Matrix(
        defenses=defenses, attacks=["clean"], dataset=dataset, model=model, weights=weights, plugins=plugins,
        count=count, seeds=seeds, T=T, decay=decay, surrogate=surrogate, epochs=epochs,
        data_dir=data_dir, results=results, store=store,
    )  # fmt: skip
    plan = matrix.plan()
    refuse_frames(plan.dataset)
    budgets = split_list(eps or [str(plan.dataset.protocol.eps)])
    for text in names:
        for budget in budgets:
            parse_attack(text, budget)
    opened = o.open_store(results, store)
    plan = plan.known_to(opened)
    with Display(plan) as display:
        trained = run_plan(plan, opened, matrix.checkpoints, device, display)
    if trained.failures:
        raise typer.Exit(1)
    with TruthDisplay() as shown:
        rows = compare(
            plan, names, budgets, attack_seed=attack_seed, limits=Limits(nodes, seconds=seconds), store=opened,
            run=opened.begin_run(provenance(device)), checkpoints=matrix.checkpoints, folder=results / "truth",
            listener=shown,
        )  # fmt: skip
        wrong = problems(rows)
        for line in wrong:
            shown.complain(line)
    text = render(rows, "json" if as_json else form, iterate)
    if output is None:
        print(text)
    else:
        from bench.atomic import write_atomically

        write_atomically(output, (text + "\n").encode())
        print(f"wrote {output}")
    if wrong:
        raise typer.Exit(1)
