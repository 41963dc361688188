"""Where jobs are done: in this process, in processes of this machine, or on a dask cluster.

An executor has one method, `map_jobs(work, jobs, on_done)`: call `work(job)` for each job, anywhere and in any order,
and `on_done(job, outcome)` here as each ends. What `work` raises stops the rest.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, Protocol, runtime_checkable

from bayesdownscale.ensemble.plan import Job

Work = Callable[[Job], str]
OnDone = Callable[[Job, str], None]
ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


@runtime_checkable
class Executor(Protocol):
    """Anything that does jobs."""

    def map_jobs(self, work: Work, jobs: Iterable[Job], on_done: OnDone) -> None: ...


class Serial:
    """One job after the other, in this process, with all its devices and threads."""

    def map_jobs(self, work: Work, jobs: Iterable[Job], on_done: OnDone) -> None:
        for job in jobs:
            on_done(job, work(job))


class Processes:
    """`workers` processes of this machine, one thread of computing each, started afresh (`spawn`: JAX does not survive
    a fork). A script that uses it needs `if __name__ == "__main__":`."""

    def __init__(self, workers: int):
        if workers < 1:
            raise ValueError(f"expected at least one worker, got {workers}")
        self.workers = workers

    def map_jobs(self, work: Work, jobs: Iterable[Job], on_done: OnDone) -> None:
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, as_completed
        from concurrent.futures.process import BrokenProcessPool

        jobs = list(jobs)
        context = multiprocessing.get_context("spawn")
        started = context.Value("i", 0)
        pool = ProcessPoolExecutor(min(self.workers, len(jobs)) or 1, context, one_core, (started,))
        try:
            futures = {pool.submit(work, job): job for job in jobs}
            for future in as_completed(futures):
                on_done(futures[future], future.result())
        except BrokenProcessPool:
            raise ChildProcessError(
                "a worker process ended, killed or out of memory; run the same command again, finished jobs are "
                "safe, with fewer --workers or a shorter --span if it was memory"
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def one_core(started: Any) -> None:
    """Give this worker, the next of those `started` (a shared counter), a processor of its own and one thread: XLA
    makes as many threads as it sees processors, whatever it is told."""
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if hasattr(os, "sched_setaffinity"):
        own = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {own[number % len(own)]})
    one_thread()


def one_thread() -> None:
    """Make JAX, which must not have computed yet, use one thread: workers share the cores instead of fighting."""
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {ONE_THREAD}".strip()


class Dask:
    """The workers of a `dask.distributed.Client`: a LocalCluster, or a cluster behind SLURM and others by
    dask-jobqueue. Workers see the same files under the same paths."""

    def __init__(self, client: Any):
        self.client = client

    def map_jobs(self, work: Work, jobs: Iterable[Job], on_done: OnDone) -> None:
        from distributed import as_completed

        futures = {self.client.submit(work, job, pure=False, key=f"member-{job.member}-span-{job.span}-{id(work)}"): job
                   for job in jobs}  # fmt: skip
        try:
            for future in as_completed(list(futures)):
                on_done(futures[future], future.result())
        finally:
            self.client.cancel(list(futures))
