"""An ensemble: a problem, a plan and a store, brought together by an executor."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bayesdownscale.data.grid import Coords
from bayesdownscale.ensemble import hosts
from bayesdownscale.ensemble.executors import Executor, Serial
from bayesdownscale.ensemble.guide import GUIDANCE, Guidance, name_of
from bayesdownscale.ensemble.plan import Job, Plan
from bayesdownscale.ensemble.problem import Problem
from bayesdownscale.ensemble.solve import Solver, windows_of
from bayesdownscale.ensemble.store import EnsembleStore
from bayesdownscale.posterior.batches import fingerprint
from bayesdownscale.posterior.guidance import MomentMatching
from bayesdownscale.posterior.result import provenance

POLL = 1.0  # seconds between looks at jobs that another run has in hand


class Settings(NamedTuple):
    """How a block is drawn: evaluations a draw, the seed, windows in memory at once, devices for members, windows, and
    the guidance."""

    steps: int
    seed: int
    batch: int | None
    devices: tuple[int, int] | None
    guidance: Guidance = MomentMatching


class Ensemble:
    """Draws of a long record, in jobs, into the Zarr store at `out`.

    **Arguments:** `build`, a function without arguments that makes the `Problem` (top-level, or a `functools.partial`
    of one, where other processes must call it); `members`; `span`, the time that one job keeps (default 30 days) and
    one chunk holds; `steps`, evaluations of the network a draw; `seed`; `batch`, windows in memory at once; `halo` and
    `stride` [time steps], see `Plan`; `devices` among which the windows of a job are divided; `guidance`, a class of
    `bayesdownscale.posterior.guidance` or a partial of one, as in `GuidedSDE`: `FixedCovariance` takes no product with
    the network's Jacobian.

    Draws depend on these alone, not on the executor, the order of jobs or interruptions: `run` again after a kill, a
    full disk or an error, and it goes on and ends with the same bytes (on the same kind of processor). A member is one
    coherent draw over the whole record, approximate as guided draws are, and coherent over seams as far as the halo
    reaches (`python -m benchmarks.windows`).

    In several processes of `jax.distributed` call `run` in all of them alike, without an executor and with `devices` of
    all: they draw each job together, and the first one writes.
    """

    def __init__(
        self,
        build: Callable[[], Problem],
        out: str | Path,
        *,
        members: int,
        span: np.timedelta64 | None = None,
        steps: int = 32,
        seed: int = 0,
        batch: int | None = None,
        halo: int | None = None,
        stride: int | None = None,
        devices: int | None = None,
        guidance: Guidance = MomentMatching,
    ):
        settings = Settings(steps, seed, batch, None if devices is None else (1, devices), guidance)
        self.build, self.settings = build, settings
        problem = build()
        prior = problem.prior
        window = windows_of(prior).window
        step = np.diff(prior.times)[0]
        starts, mean = problem.cadence
        self.plan = Plan.of(starts, step, window, members, span, halo, stride, mean)
        solver = Solver(problem, self.plan, **self.settings._asdict())
        solver.program(0)  # refuses what cannot be drawn before anything is written
        coords = Coords(self.plan.times(0, 1), prior.variables, prior.grid)
        self.store = EnsembleStore(Path(out), self.plan, coords, record_of(problem, self.plan, self.settings))
        _SOLVERS[self.store.path, _key(self.store)] = solver

    def run(
        self,
        executor: Executor | None = None,
        *,
        share: tuple[int, int] = (0, 1),
        verify: bool = False,
        on_done: Callable[[int], None] = lambda done: None,
        attrs: dict[str, Any] | None = None,
    ) -> list[Job]:
        """Do every job that is not done; returns the jobs whose chunks were damaged and are now done again.

        `share` (i, n): only jobs i, i + n, i + 2n, ..., for array jobs. `verify` compares every finished chunk with
        its checksum first; without it damage shows where a file's size is wrong. `on_done` hears how many jobs of the
        share are done. Raises `DataError` for a store of another run, a full disk or a store that cannot be written, in
        the first of several processes, and `ChildProcessError` in the others.
        """
        index, number = share
        if not 0 <= index < number:
            raise ValueError(f"expected a job index from 0 to {number - 1} of {number} jobs, got {index}")
        jobs = self.plan.jobs()[index::number]

        def look() -> np.ndarray:
            self.store.create(self._attributes() | (attrs or {}))
            found = np.zeros((2, len(jobs)), int)
            for k, job in enumerate(jobs):
                marked = self.store.marker(job).exists()
                found[:, k] = marked, marked and self.store.done(job, thorough=verify)
                if marked and not found[1, k]:
                    self.store.forget(job)
            return found.ravel()

        marked, whole = hosts.decided(look, 2 * len(jobs)).reshape(2, -1)
        chosen = lambda which: sorted(job for job, yes in zip(jobs, which, strict=True) if yes)
        damaged, left, finished = chosen(marked > whole), chosen(whole == 0), int(whole.sum())
        on_done(finished)

        def count(job: Job, outcome: str) -> None:
            nonlocal finished
            if outcome == "busy":
                busy.append(job)
            else:
                finished += 1
                on_done(finished)

        work = Work(self.build, self.store, self.settings)
        while left:
            busy: list[Job] = []
            (executor or Serial()).map_jobs(work, left, count)
            left = busy
            if left:
                time.sleep(POLL)
        hosts.decided(self.store.tidy)
        return damaged

    def _attributes(self) -> dict[str, Any]:
        name = name_of(self.settings.guidance)
        words = name.replace("_", " ") if name in GUIDANCE else name
        made = provenance(f"guided reverse SDE, {words}", approximate=1, steps=self.settings.steps)
        return made | {"seed": self.settings.seed, "cost_factor": round(self.plan.cost, 3)}


@dataclasses.dataclass(frozen=True)
class Work:
    """What a worker does for a job: hold it, draw it, write it. Goes to other processes; each makes its solver once."""

    build: Callable[[], Problem]
    store: EnsembleStore
    settings: Settings

    def __call__(self, job: Job) -> str:
        """'done', or 'busy' where another run has the job in hand."""
        with ExitStack() as held:

            def take() -> list[int]:
                mine = held.enter_context(self.store.lock(job))
                return [not mine, mine and self.store.done(job)]

            busy, done = hosts.decided(take, 2)
            if busy:
                return "busy"
            if not done:
                drawn = np.asarray(self._solver()([job.member], job.span))[0]
                hosts.decided(lambda: self.store.write(job, drawn))
        return "done"

    def _solver(self) -> Solver:
        key = self.store.path, _key(self.store)
        if key not in _SOLVERS:
            _SOLVERS[key] = Solver(self.build(), self.store.plan, **self.settings._asdict())
        return _SOLVERS[key]


_SOLVERS: dict[tuple[Path, str], Solver] = {}  # of this process


def _key(store: EnsembleStore) -> str:
    return json.dumps(store.record, sort_keys=True)


def record_of(problem: Problem, plan: Plan, settings: Settings) -> dict[str, Any]:
    """What the draws of a run depend on, as JSON: two runs with the same record may share a store."""
    coarse = hashlib.sha256()
    for rows in problem.every_row():
        coarse.update(np.ascontiguousarray(rows).tobytes())
    coarse.update(fingerprint(problem.coarse.coords)["sha256"].encode())
    return {
        "members": plan.members,
        "seed": settings.seed,
        "steps": settings.steps,
        "guidance": name_of(settings.guidance),
        "settings": {k: v if isinstance(v, int | float | str) else fingerprint(v) for k, v in problem.settings.items()},
        "prior": fingerprint((problem.prior, dataclasses.astuple(problem.prior.levels)))["sha256"],
        "coarse data": coarse.hexdigest(),
        "model": fingerprint(problem.model)["sha256"],
        "plan": dataclasses.asdict(plan),
    }
