"""A process that is given work: one whose allocator is as Python left it, or one whose memory is watched.

What tunes the allocator cannot be undone within a process, and what a process once held hides what comes after.
Requests and answers are lines of JSON.
"""

import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.errors import BenchError, describe
from bench.perf.sample import Sample

_ROOT = Path(__file__).resolve().parents[2]


class Child:
    """Such a process; leave the block to end it.

    Args:
        subject: file that `Subject.save` wrote.
        state: `tuned` or `default`.
        threads: of torch.
        device: where to compute.
        T: another number of time steps than the subject's.

    Raises:
        BenchError: on a request, where the work failed.
    """

    def __init__(self, subject: Path, state: str, threads: int, device: str, T: int = 0) -> None:
        environment = {**os.environ}
        path = os.pathsep.join(filter(None, [str(_ROOT), environment.get("PYTHONPATH", "")]))
        environment["PYTHONPATH"] = path
        if state == "default":
            # Ours, set by `share_cores` when this process began.
            environment.pop("GOMP_SPINCOUNT", None)
        command = [sys.executable, "-m", "bench.perf", "--child", str(subject), state, str(threads), device, str(T)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> "Child":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin is not None
        if kind is not None:
            # It may be amid minutes of work that nobody waits for any more.
            self._process.kill()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def ask(self, work: str, *, watch: bool = False, **arguments: Any) -> Sample:
        """Have a piece of work done.

        Args:
            work: a name in `WORK`.
            watch: also measure its peak memory; its network is built before.
            arguments: of the work.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"work": work, "watch": watch, "arguments": arguments}) + "\n")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise BenchError(f"the process that measures ended with status {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(answer["error"])
        return Sample(**answer["sample"])


def serve(arguments: list[str]) -> None:
    """Be such a process: read requests from stdin until it ends.

    Args:
        arguments: subject file, state, threads, device, time steps.
    """
    path, state, threads, device_name, T = arguments
    # Libraries print; the answers' channel is kept from them.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import torch

    from bench.perf.contestants import BY_NAME, OURS
    from bench.perf.lab import Lab
    from bench.perf.memory import peak_of
    from bench.perf.subject import Subject
    from bench.perf.work import WORK
    from bench.runtime import exact_arithmetic, tune_allocator

    if state == "tuned":
        tune_allocator()
    exact_arithmetic()
    torch.set_num_threads(int(threads))
    subject = Subject.load(Path(path))
    device = torch.device(device_name)
    lab = Lab(subject.with_steps(int(T)) if int(T) else subject, device)
    try:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                work, given = WORK[request["work"]], request["arguments"]
                if request["watch"]:
                    contestant = BY_NAME.get(given.get("name", OURS))
                    lab.network(contestant.network if contestant else OURS)
                    sample, peak, how = peak_of(lambda work=work, given=given: work(lab, **given), device)  # type: ignore[misc]
                    sample.extra.update(peak_bytes=peak, how=how)
                else:
                    sample = work(lab, **given)
                answer: dict[str, Any] = {"sample": asdict(sample)}
            except Exception as error:
                answer = {"error": describe(error)}
            answers.write(json.dumps(answer) + "\n")
    except KeyboardInterrupt:
        return
