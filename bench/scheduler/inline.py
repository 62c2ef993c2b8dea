"""All tasks in the process of the command."""

import time

from bench.scheduler.dispatch import Dispatcher
from bench.scheduler.worker import Worker

_PAUSE = 0.1


def run_inline(dispatcher: Dispatcher, worker: Worker) -> None:
    """Do a plan's tasks one after another.

    Raises:
        BenchError: the store or the folder of checkpoints can no longer be written.
    """
    while not dispatcher.over:
        task = dispatcher.next()
        if task is None:
            time.sleep(_PAUSE)
        else:
            dispatcher.finish(task, worker.do(task))
