"""`bench doctor`: does everything work on this machine?"""

import json
import time

import typer

from bench.cli import options as o
from bench.runtime import pick_device


def doctor(
    plugins: o.Plugins = None,
    results: o.Results = o.DEFAULT_RESULTS,
    device: o.Device = "auto",
    threads: o.Threads = None,
    as_json: o.AsJson = False,
) -> None:
    """Test attacks, gradients, arithmetic and storage on this machine and device.

    Every attack must reach the worst point of a linear network, stay in the ball,
    leave the network as it was, and cost what it states; a plug-in's too. Takes
    less than a minute. Exit status 1 if anything fails.
    """
    from bench.report.doctor import about_lines, doctor_json, heading, lines_of, verdict

    began = time.perf_counter()
    o.load_plugins(plugins)
    chosen = pick_device(device, threads)

    from bench.doctor.about import about
    from bench.doctor.run import findings

    known, group = about(chosen), ""
    found = []
    for part in findings(chosen, results):
        found += part
        if as_json:
            continue
        if part[0].group != group:
            group = part[0].group
            print(heading(group))
        print("\n".join(lines_of(part)), flush=True)
    seconds = time.perf_counter() - began
    if as_json:
        print(json.dumps(doctor_json(found, known, seconds), indent=1))
    else:
        print("\n".join([*about_lines(known), verdict(found, seconds)]))
    if any(finding.status == "failed" for finding in found):
        raise typer.Exit(1)
