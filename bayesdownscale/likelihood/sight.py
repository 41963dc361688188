"""What coarse data tell of a mean of a latent field that they do not determine."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Sight:
    """Mean m and standard deviation s of the latent mean over a coarse cell given a score of its physical value.

    The mean rain of a cell says much of its mean latent field where it rains, and little where it is dry: how dry, no
    rain gauge says. A likelihood y ~ Normal(H z, noise) with y = m and noise = s keeps the program linear and Gaussian.
    It is an approximation: by itself a cell would need somewhat more than m and s, but cells and days are seen
    together, and with weather simulated from the prior draws can be checked to have its distribution.

    `knots`, `centre` m and `noise` s (knot, variable); all cells have the same. Make it with `fit`.
    """

    knots: np.ndarray
    centre: np.ndarray
    noise: np.ndarray

    @staticmethod
    def fit(scores: np.ndarray, means: np.ndarray, bins: int = 24) -> "Sight":
        """Learn from `scores` and latent `means` (time, variable, cell) of the same weather, best drawn from the prior,
        in `bins` of as many scores each."""
        n_var = scores.shape[1]
        knots, centre, noise = (np.empty((bins, n_var)) for _ in range(3))
        for v in range(n_var):
            order = np.argsort(scores[:, v].ravel())
            s, m = (np.array_split(x[:, v].ravel()[order], bins) for x in (scores, means))
            knots[:, v], centre[:, v] = [a.mean() for a in s], [b.mean() for b in m]
            noise[:, v] = [np.std(b - np.polyval(np.polyfit(a, b, 1), a)) for a, b in zip(s, m, strict=True)]
        return Sight(knots, centre, noise)

    def __call__(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Data y and their noise, both (time, variable, cell), for scores; beyond the outermost knots y goes on
        linearly, the noise stays."""
        y, noise = np.empty(scores.shape), np.empty(scores.shape)
        for v in range(scores.shape[1]):
            x, a, b = scores[:, v], self.knots[:, v], self.centre[:, v]
            low, high = (b[1] - b[0]) / (a[1] - a[0]), (b[-1] - b[-2]) / (a[-1] - a[-2])
            y[:, v] = np.interp(x, a, b) + low * np.minimum(x - a[0], 0.0) + high * np.maximum(x - a[-1], 0.0)
            noise[:, v] = np.interp(x, a, self.noise[:, v])
        return y, noise
