"""Seasons: calendar months, or moving windows of some days around every fifth day of the year.

A time belongs to one season, and with moving windows it helps to know several.
"""

import numpy as np

EVERY, YEAR = 5, 366  # days between the middles of moving windows, and in all


def season_of(times: np.ndarray, window: int | None) -> np.ndarray:
    """The number (n,) of the season of each of `times` (n,) datetime64: its month, or the middle of its window."""
    if window is None:
        return times.astype("datetime64[M]").astype(int) % 12 + 1
    middles = np.arange(1, YEAR + 1, EVERY)
    return middles[np.argmin(_distance(times, middles[:, None]), axis=0)]


def in_season(times: np.ndarray, season: int, window: int | None) -> np.ndarray:
    """Which of `times` (n,) datetime64 are in the `season` with that number, or less than half a window from it."""
    return season_of(times, None) == season if window is None else _distance(times, season) <= window / 2


def _distance(times: np.ndarray, day: int | np.ndarray) -> np.ndarray:
    """Days (..., n) between the days of the year of `times` (n,) and `day` (...), around the end of the year."""
    of_year = (times.astype("datetime64[D]") - times.astype("datetime64[Y]")).astype(int) + 1
    return np.abs((of_year - day + YEAR // 2) % YEAR - YEAR // 2)
