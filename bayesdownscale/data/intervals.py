"""The stretches of time that means stand for, from their time stamps."""

import numpy as np


def bounds_around(times: np.ndarray) -> np.ndarray | None:
    """Bounds of evenly spaced means whose times can only be their middles, since they lie half a step after a multiple
    of it, as noon of each day does; None for others."""
    steps = np.unique(np.diff(times))
    if steps.size != 1 or np.any((times - times[0].astype("datetime64[D]")) % steps[0] != steps[0] // 2):
        return None
    return interval_bounds(times, "middle")


def interval_bounds(times: np.ndarray, stamp: str = "start") -> np.ndarray:
    """Bounds (n, 2) datetime64[ns] of means whose file has none, from evenly spaced `times` (n,) that mark the
    `stamp` of each: its "start", "middle" or "end".

    **Raises:** ValueError for uneven or fewer than two times, or another `stamp`.
    """
    times = np.asarray(times, "datetime64[ns]")
    back = {"start": 0, "middle": 1, "end": 2}
    steps = np.unique(np.diff(times))
    if stamp not in back or steps.size != 1:
        raise ValueError(
            f"expected evenly spaced times and a stamp among {sorted(back)}, got {steps.size} different steps and "
            f"{stamp!r}; add time_bnds to the file"
        )
    start = times - back[stamp] * steps[0] // 2
    return np.stack([start, start + steps[0]], axis=1)
