"""`bench check-model`: can this network be measured at all?"""

import json
import sys
from contextlib import redirect_stdout
from typing import Annotated

import typer

from bench.cli import options as o
from bench.errors import BenchError
from bench.runtime import pick_device

Name = Annotated[
    str, typer.Argument(metavar="MODEL", help="mymodule:build, path/file.py:build, or a name (bench ls models).")
]


def check_model(
    name: Name,
    weights: o.Weights = None,
    dataset: o.DatasetName = None,
    T: o.Steps = None,
    eps: Annotated[
        str | None, typer.Option("--eps", metavar="EPS", help="How far to look around an image; the dataset's eps.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("-n", "--images", metavar="INT", help="The first so many test images; 128.")
    ] = None,
    plugins: o.Plugins = None,
    data_dir: o.DataDir = o.DEFAULT_DATA,
    device: o.Device = "auto",
    threads: o.Threads = None,
    as_json: o.AsJson = False,
) -> None:
    """Say in plain words whether a network can be measured.

    Calls it a few times and looks for what would make any number wrong: outputs that are no logits, state that
    outlives a call, images that depend on their neighbours, randomness that is not declared, train mode, gradients
    that are missing or lie, normalisation left outside. Exit status 1 if there is a fault. Attacks nothing: that is
    what bench audit does.

    Examples:

      bench check-model mymodule:build

      bench check-model nets.py:build --weights w.safetensors --dataset cifar10 -T 4
    """
    chosen = pick_device(device, threads)
    o.load_plugins(plugins)

    from attacks.threat import parse_eps
    from bench.data import load_dataset
    from bench.modelcheck.run import FEWEST, IMAGES, check_network, is_fault
    from bench.modelcheck.subject import built, model_spec
    from bench.report.modelcheck import checks_json, print_checks

    data = load_dataset(dataset or "digits", data_dir)
    n = min(IMAGES, len(data.x_test)) if count is None else count
    if not FEWEST <= n <= len(data.x_test):
        raise BenchError(f"-n must lie in [{FEWEST}, {len(data.x_test)}], got {n}")
    spec = model_spec(name, data, T)
    try:
        budget = data.protocol.eps if eps is None else parse_eps(eps)
    except ValueError as error:
        raise BenchError(str(error)) from error
    # What a network prints is not what the command answers.
    with redirect_stdout(sys.stderr):
        model, findings = built(spec, weights, chosen, steps_given=T is not None)
        if model is not None:
            findings += check_network(model, data, spec, n, budget, chosen, weights is not None)
    about = {"model": name, "dataset": data.name, "weights": str(weights) if weights else None, "n": n}
    if as_json:
        print(json.dumps(checks_json(about, findings), indent=1))
    else:
        with_weights = f" with {weights}" if weights else ", untrained"
        print_checks(f"{name}{with_weights}, on {n} images of {data.name}", findings)
    if any(is_fault(finding) for finding in findings):
        raise typer.Exit(1)
