"""`bench plan`: what `bench run` would do."""

import json

from bench.cli import options as o


def plan(
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
    """Show the cells of a matrix, which are stored already, and how long the rest will take.

    Takes the options of `bench run` and computes nothing but a trial of a second.
    """
    o.load_plugins(plugins)
    from bench.plan import estimate, make_plan
    from bench.report.results import plan_json, print_plan

    matrix = o.Matrix(
        defenses, attacks, dataset, model, preset, weights, eps, norm, alpha, restarts, random_start,
        attack_surrogate, count, draws, attack_seed, seeds, T, decay, surrogate, epochs, batch_size, lr, train_size,
    )  # fmt: skip
    target = o.pick_device(device, threads)
    opened = o.open_existing_store(results, store)
    made = make_plan(matrix.request(), o.checkpoints_in(results), data_dir)
    made = made.known_to(opened) if opened else made
    expected = estimate(made, opened, target)
    if as_json:
        print(json.dumps(plan_json(made, expected), indent=1))
    else:
        print_plan(made, expected)
