"""`bench run`: train, attack, store, show."""

import json
import sys

import typer

from bench.cli import options as o


def run(
    defenses: o.Defenses = None,
    attacks: o.Attacks = None,
    dataset: o.DatasetName = None,
    model: o.ModelName = None,
    preset: o.Preset = None,
    weights: o.Weights = None,
    plugins: o.Plugins = None,
    eps: o.Eps = None,
    norm: o.NormName = "linf",
    alpha: o.Alpha = None,
    restarts: o.Restarts = None,
    random_start: o.RandomStart = None,
    attack_surrogate: o.AttackSurrogate = None,
    count: o.Count = None,
    draws: o.Draws = None,
    attack_seed: o.AttackSeed = 0,
    seeds: o.Seeds = None,
    T: o.Steps = 4,
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
    as_json: o.AsJson = False,
) -> None:
    """Train each defense, run each attack on it, and store every image's outcome.

    What the store already holds is not computed again, so an interrupted command
    continues where it was cut off. Several defenses, attacks, eps or seeds make a matrix.

    Examples:

      bench run --defense tgo --attack pgd40

      bench run -d vanilla,at,tgo,tgo+at -a fgsm,rfgsm,pgd7,pgd10,pgd20,pgd40

      bench run -d at -a pgd20 --eps 0.05,0.1,0.15,0.2
    """
    o.load_plugins(plugins)
    from bench.cli.display import Display
    from bench.plan import make_plan
    from bench.report.results import next_commands, print_results, results_json
    from bench.scheduler import run_plan

    matrix = o.Matrix(
        defenses, attacks, dataset, model, preset, weights, eps, norm, alpha, restarts, random_start,
        attack_surrogate, count, draws, attack_seed, seeds, T, decay, surrogate, epochs, batch_size, lr, train_size,
    )  # fmt: skip
    target = o.pick_device(device, threads)
    checkpoints = o.checkpoints_in(results)
    plan = make_plan(matrix.request(), checkpoints, data_dir)
    opened = o.open_store(results, store)
    plan = plan.known_to(opened)
    with Display(plan) as display:
        report = run_plan(plan, opened, checkpoints, target, display)
    if as_json:
        print(json.dumps(results_json(plan, report, opened.target), indent=1))
    else:
        print_results(plan, report, opened.target)
        next_commands(plan, report, results)
    if report.failures:
        for failure in report.failures:
            print(f"failed: {failure}", file=sys.stderr)
        raise typer.Exit(1)
