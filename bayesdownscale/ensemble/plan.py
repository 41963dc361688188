"""How a long record is cut into jobs: spans that are kept, blocks that are solved, and the rows of data in each.

A job is one member over one span of time. It solves the reverse SDE on a block, the span with a halo on both sides,
and keeps the span. The noise of every time step is keyed by its absolute number (`noise.py`), so two neighbouring
jobs drive what they share with the same noise, and agree there up to what the halo cuts off.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

DAY = np.timedelta64(1, "D").astype("timedelta64[ns]")
SPAN = 30 * DAY  # kept by a job; halos of 18 hours cost 5 % of it


class Job(NamedTuple):
    """One member over one span."""

    member: int
    span: int


@dataclass(frozen=True)
class Plan:
    """The cutting of a record of `length` steps of `step` nanoseconds from `start` (nanoseconds since 1970), with
    data every `every` steps, for a prior of `window` steps. A datum is a snapshot, or (`mean` > 0) a mean over so many
    steps from its time.

    Windows start every `stride` steps, spans every `span` steps, blocks `halo` steps before their span. All three are
    multiples of the stride and of `every`, so that the windows of two blocks coincide where the blocks overlap and
    all blocks hold their data at the same places; a mean lies wholly inside one span. Blocks at the ends of the record
    reach over them: there are no data there, and an exact posterior would not notice.
    """

    start: int
    step: int
    length: int
    every: int
    window: int
    stride: int
    span: int
    halo: int
    members: int
    mean: int = 0

    @staticmethod
    def of(
        coarse_times: np.ndarray,
        step: np.timedelta64,
        window: int,
        members: int,
        span: np.timedelta64 | None = None,
        halo: int | None = None,
        stride: int | None = None,
        mean: int = 0,
    ) -> "Plan":
        """The plan for data at `coarse_times` (n,) datetime64, sorted, and a prior of `window` times spaced by `step`;
        means over `mean` steps are given by where they start.

        `span` is lengthened to a whole number of strides; `halo` and `stride` [steps] are usually left out. Raises
        `ValueError` for data between the prior's time steps and for settings that do not fit together.
        """
        times, step = coarse_times.astype("datetime64[ns]"), step.astype("timedelta64[ns]")
        if members < 1:
            raise ValueError(f"expected at least one member, got {members}")
        offsets = times - times[0]
        hours = step / np.timedelta64(1, "h")
        between = np.flatnonzero(offsets % step != np.timedelta64(0, "ns"))
        if between.size:
            raise ValueError(
                f"expected coarse times a whole number of the prior's steps of {hours:g} h after the first, got "
                f"{times[between[0]]} after {times[0]}; choose data on the prior's times"
            )
        places = (offsets // step).astype(int)
        every = int(np.gcd.reduce(places)) or max(mean, 1)
        if mean > every:
            raise ValueError(
                f"expected means that do not overlap, got some over {mean * hours:g} h every {every * hours:g} h; "
                "leave some out"
            )
        stride = usual_stride(window, every) if stride is None else stride
        if not 1 <= stride <= window or (stride % every and every % stride):
            raise ValueError(
                f"expected a stride from 1 to the window of {window} steps that divides, or is a multiple of, the "
                f"{every} steps between data, got {stride}; leave it out to get {usual_stride(window, every)}"
            )
        unit = math.lcm(stride, every)
        length = int(places[-1]) + max(mean, 1)
        wanted = min(int((SPAN if span is None else span) // step), length)
        if wanted < 1:
            raise ValueError(f"expected a span of at least one time step of {hours:g} h, got {span}")
        halo = usual_halo(window, unit, mean) if halo is None else halo
        if halo < 0 or halo % unit:
            raise ValueError(f"expected a halo of a multiple of {unit} steps (stride and data), got {halo}")
        as_int = lambda value: int(value.astype(np.int64))
        span_steps = math.ceil(wanted / unit) * unit
        return Plan(as_int(times[0]), as_int(step), length, every, window, stride, span_steps, halo, members, mean)

    @property
    def spans(self) -> int:
        return math.ceil(self.length / self.span)

    @property
    def block(self) -> int:
        """Steps that a job solves: span and halos, and what completes the last window."""
        n = max(self.span + 2 * self.halo, self.window)
        return self.window + math.ceil((n - self.window) / self.stride) * self.stride

    @property
    def rows(self) -> int:
        """Data that lie wholly in a block."""
        return (self.block - max(self.mean, 1)) // self.every + 1

    @property
    def cost(self) -> float:
        """Time steps that the prior's network sees for each step kept, over that of windows side by side."""
        windows = (self.block - self.window) // self.stride + 1
        return windows * self.window / self.span

    def jobs(self) -> list[Job]:
        """All jobs, member by member."""
        return [Job(m, s) for m in range(self.members) for s in range(self.spans)]

    def kept(self, span: int) -> slice:
        """The time steps of the record that a span holds; the last one may be shorter."""
        return slice(span * self.span, min((span + 1) * self.span, self.length))

    def first(self, span: int) -> int:
        """The number of the first time step of a span's block, which may be negative."""
        return span * self.span - self.halo

    def times(self, first: int, n: int, every: int = 1) -> np.ndarray:
        """`n` times every so many steps from the time step `first`: (n,) datetime64[ns]."""
        return np.datetime64(self.start + first * self.step, "ns") + np.timedelta64(
            every * self.step, "ns"
        ) * np.arange(n)

    def record(self) -> np.ndarray:
        """The times of the whole record: (length,) datetime64[ns]."""
        return self.times(0, self.length)


def usual_stride(window: int, every: int) -> int:
    """The longest stride up to three quarters of the window that fits the data, every so many steps: it denoises
    each step 1.3 times or a little more often and leaves an eighth of the window on either side as margin."""
    longest = max(3 * window // 4, 1)
    return next(s for s in range(longest, 0, -1) if s % every == 0 or every % s == 0)


def usual_halo(window: int, unit: int, mean: int = 0) -> int:
    """The shortest halo that covers two thirds of a window and two means over `mean` steps: on Gauss-Markov processes
    the two blocks at a seam then differ by about 1 % of a posterior standard deviation, and second differences there
    are those inside within 0.2 % (`python -m benchmarks.windows`; `--means 24`: a halo of one mean would make those of
    a smooth process 3.8 times as large)."""
    return math.ceil((2 * window / 3 + 2 * mean) / unit) * unit
