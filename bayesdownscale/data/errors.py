"""The error a user reads when a file is not what was expected, and the words its messages are made of."""

from collections.abc import Iterable

import numpy as np


class DataError(ValueError):
    """A file, or a value in it, is not what was expected.

    The message is one sentence: what was expected, what came and what to do about it, naming the file and
    the variable. The command line prints it and exits non-zero.
    """


def quoted(names: Iterable[object]) -> str:
    """Names in quotes, separated by commas."""
    return ", ".join(f"'{name}'" for name in names) or "nothing"


def minute(time: np.datetime64) -> str:
    """A date and time to the minute."""
    return str(time.astype("datetime64[m]"))


def span(times: np.ndarray) -> str:
    """The first and the last of `times`, datetime64."""
    return f"{minute(times.min())} to {minute(times.max())}" if times.size else "no times"
