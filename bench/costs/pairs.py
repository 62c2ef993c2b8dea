"""How far off estimates are: `bench run`, then `bench plan` and `bench run` of something else, beside each other.

python -m bench.costs.pairs -o results/estimates/pairs.json
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.atomic import write_atomically

PAIRS = (
    ("-a fgsm,pgd10 --epochs 5", "-a apgd20 --epochs 5"),
    ("-a pgd20 --epochs 5", "-a pgd20 --eps 0.05,0.2 --epochs 5"),
    ("-a pgd10 --epochs 5", "-a pgd10 --epochs 5 --seed 1,2"),
    ("-a pgd10 --epochs 5", "-d at -a pgd10 --epochs 5"),
    ("-d tgo -a pgd10 --epochs 4 -n 128", "-d tgo -a pgd20 --epochs 4 -n 500"),
    ("-a pgd10 --epochs 5", "-d tgo+at -a pgd10 --epochs 5"),
    ("-a pgd20 --epochs 5 -n 32", "-a pgd40 --epochs 5 -n 500"),
    ("-a pgd20 --iterate any --epochs 10", "-a pgd40 --iterate any --eps 0.08 --epochs 10"),
    ("-a pgd10 --epochs 5", "-a pgd20 --restarts 4 --epochs 5"),
    ("-d nlif -a pgd5 --epochs 4 -n 128", "-d nlif -a pgd10 --eot 4 --epochs 4 -n 128"),
    ("-a mtpgd3 --epochs 5 -n 256", "-a mtpgd6 --epochs 5 -n 256 --eps 0.05"),
    ("-a sweep3 --epochs 10 -n 256", "-a sweep6 --epochs 10 -n 500"),
    ("-a snn-standard --epochs 10 -n 256", "-a snn-standard --eps 0.08 --epochs 10 -n 500"),
    ("-a pgd20 --epochs 5", "-a pgd20 --epochs 5 -T 8"),
    ("--model cnn-medium -a pgd10 --epochs 3", "--model cnn-medium -a apgd10,square200 --epochs 3"),
    ("--model cnn-medium -a pgd10 --epochs 3", "--model cnn-medium -d sr -a pgd20 --epochs 3"),
    ("-a square100 --epochs 5", "-a square500 --epochs 5 -n 256"),
    (
        "-d vanilla,at -a fgsm,pgd7 --epochs 4",
        "-d vanilla,at,tgo,rat -a fgsm,rfgsm,pgd7,pgd20 --epochs 4 --seed 0,1",
    ),
)
"""What a first run measures, and a second one wants: another attack, budget, seed, defense, network, more images."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the pairs that the command line names, and keep a record."""
    parser = argparse.ArgumentParser(prog="python -m bench.costs.pairs", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="a JSON file; kept after each pair")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of pairs; all if not given")
    parser.add_argument("--show", type=Path, help="print the page of a JSON file, and measure nothing")
    parser.add_argument("--threads", type=int, default=1, help="of the processor")
    typed = parser.parse_args(arguments)
    if typed.show:
        print(page(json.loads(typed.show.read_text())))
        return
    chosen = [PAIRS[number] for number in typed.only] if typed.only else PAIRS
    lines: list[dict[str, Any]] = []
    for first, second in chosen:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            lines.append(measure(first, second, typed.threads, Path(folder)))
        line = lines[-1]
        print(f"{line['estimated']:7.1f} {line['measured']:7.1f} {line['ratio']:6.2f}  {second}", flush=True)
        if typed.output:
            record = {"about": _about(typed.threads), "pairs": lines}
            write_atomically(typed.output, (json.dumps(record, indent=1) + "\n").encode())


def measure(first: str, second: str, threads: int, folder: Path) -> dict[str, Any]:
    """One pair, in an empty folder: options of both runs, seconds estimated and measured for each, and the load."""

    def run(command: str, options: str) -> tuple[float, str]:
        words = [sys.executable, "-m", "bench", command, "--threads", str(threads), *shlex.split(options)]
        began = time.perf_counter()
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        # An invalid cell, or one at chance, is no fault of the clock.
        if done.returncode not in (0, 1) or not done.stdout:
            raise SystemExit(done.stderr)
        return time.perf_counter() - began, done.stdout

    found: dict[str, Any] = {"first": first, "second": second}
    for name, options in (("tried", first), ("estimated", second)):
        _, plan = run("plan", f"{options} --json")
        found[name] = json.loads(plan)["seconds"]
        found["first_took" if name == "tried" else "measured"], _ = run("run", options)
    return found | {"ratio": found["estimated"] / found["measured"], "load": os.getloadavg()[0]}


def page(record: dict[str, Any]) -> str:
    """A record as Markdown."""
    about, pairs = record["about"], record["pairs"]
    lines = [
        f"`{about['command']}` on {about['device']}, {about['threads']} thread, torch {about['torch']}, bench "
        f"{about['version']} {(about['commit'] or '')[:12]}. Seconds, estimated / measured, and their ratio; load "
        "is that of the machine at the end.",
        "",
        "| first run | second run | seconds | ratio | load |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| `{pair['first']}` | `{pair['second']}` | {pair['estimated']:.1f} / {pair['measured']:.1f} "
        f"| {pair['ratio']:.2f} | {pair['load']:.1f} |"
        for pair in pairs
    ]
    within = sum(1 / 1.5 <= pair["ratio"] <= 1.5 for pair in pairs)
    first = sorted(pair["tried"] / pair["first_took"] for pair in pairs)
    lines += [
        "",
        f"Within a factor of 1.5: {within} of {len(pairs)}. First runs, judged by a trial: {first[0]:.2f} to "
        f"{first[-1]:.2f} of what they took.",
    ]
    return "\n".join(lines)


def _about(threads: int) -> dict[str, Any]:
    import torch

    from bench.provenance import code_version, device_name

    device = device_name(torch.device("cpu"))
    command = shlex.join(["python", "-m", "bench.costs.pairs", *sys.argv[1:]])
    return {**code_version(), "torch": torch.__version__, "device": device, "threads": threads, "command": command}


if __name__ == "__main__":
    main()
