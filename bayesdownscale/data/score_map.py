"""The data of a coarse model as a program expects them: mapped to the distribution of what the program simulates.

Quantile mapping makes the values of each coarse cell those of a reference, each variable by itself. If the reference is
the truth on coarse cells, the data have no noise, while the likelihood says that they do, and draws from the posterior
are too narrow. Here the reference is H z + e, latent fields seen with the noise of the likelihood. The dependence
between the variables of a cell is mapped as well, by the linear map between two Gaussians that moves them least
(Olkin and Pukelsheim 1982, doi:10.1016/0024-3795(82)90112-4; compare Bardossy and Pegram 2012,
doi:10.1029/2011WR011524).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from .quantiles import map_between, plotting_positions, sample_quantiles, untied

LEVELS = 200


@dataclass(frozen=True, eq=False)
class ScoreMap:
    """From coarse values (time, variable, cell) to scores like the `wanted` ones; make it with `fit`.

    `own` quantiles (level, variable, cell) of the model's past; `turns` (group, n, n) of the normal scores of each
    group of `groups` (group, n), positions among variables and cells; quantiles `before` and `after` that bring the
    result to the distribution wanted. `ties` (variable,) as for `fit`.
    """

    own: np.ndarray
    groups: np.ndarray
    turns: np.ndarray
    before: np.ndarray
    after: np.ndarray
    ties: np.ndarray
    seed: int

    @staticmethod
    def fit(
        model: np.ndarray,
        wanted: np.ndarray,
        ties: np.ndarray,
        recorrelate: bool = True,
        everywhere: bool = False,
        seed: int = 0,
    ) -> "ScoreMap":
        """Learn from `model` (time, variable, cell) and `wanted` (other times, variable, cell), no missing values.

        `ties` (variable,): values below it, as of dry days, are equal but for chance, and get their ranks at random
        (-inf for none). `recorrelate`: whether the correlations between the variables of a cell become those of
        `wanted`; `everywhere`, those between all cells too, which takes many more times than variables and cells.
        """
        levels = plotting_positions(min(LEVELS, len(model), len(wanted)))
        normal = np.broadcast_to(ndtri(levels)[:, None, None], (levels.size, *model.shape[1:]))
        x = untied(model, ties, np.random.default_rng([seed, 0]))
        own, target = sample_quantiles(x, levels), sample_quantiles(wanted, levels)
        s = _between(x, own, normal)
        n_var, n_cell = s.shape[1:]
        places = np.arange(n_var * n_cell).reshape(n_var, n_cell)
        groups = places.reshape(1, -1) if everywhere else places.T
        turns = np.broadcast_to(np.eye(groups.shape[1]), (*groups.shape, groups.shape[1])).copy()
        if recorrelate:
            two = [x.reshape(len(x), -1) for x in (s, _between(wanted, target, normal))]
            for turn, group in zip(turns, groups, strict=True):
                turn[:] = least_motion(*(np.atleast_2d(np.corrcoef(x[:, group].T)) for x in two))
        before = sample_quantiles(_turned(s, groups, turns), levels)
        return ScoreMap(own, groups, turns, before, target, ties, seed)

    def __call__(self, model: np.ndarray) -> np.ndarray:
        """The scores (time, variable, cell) of coarse values."""
        normal = np.broadcast_to(ndtri(plotting_positions(len(self.own)))[:, None, None], self.own.shape)
        x = untied(model, self.ties, np.random.default_rng([self.seed, 1]))
        turned = _turned(_between(x, self.own, normal), self.groups, self.turns)
        return _between(turned, self.before, self.after)


def least_motion(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The symmetric T with T a T = b for positive definite `a` and `b` (n, n): A^-1/2 (A^1/2 B A^1/2)^1/2 A^-1/2."""
    root = _power(a, 0.5)
    inverse = _power(a, -0.5)
    return inverse @ _power(root @ b @ root, 0.5) @ inverse


def _between(x: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`map_between`, but linear beyond the outermost quantiles too, with the slope over the outermost twentieth: `a`
    and `b` may be in different units, so that to add their difference makes no sense."""
    inner = max(1, len(a) // 20)
    out = map_between(np.clip(x, a[0], a[-1]), a, b)
    for end, further, sign in ((0, inner, -1.0), (-1, -1 - inner, 1.0)):
        run = a[end] - a[further]
        slope = np.divide(b[end] - b[further], run, out=np.zeros_like(run), where=run != 0)
        out = out + np.where(sign * (x - a[end]) > 0, slope * (x - a[end]), 0.0)
    return out


def _power(a: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(a)
    return (vectors * np.maximum(values, 1e-12) ** exponent) @ vectors.T


def _turned(s: np.ndarray, groups: np.ndarray, turns: np.ndarray) -> np.ndarray:
    flat = s.reshape(len(s), -1)
    out = np.empty_like(flat)
    out[:, groups] = np.einsum("gvw,tgw->tgv", turns, flat[:, groups])
    return out.reshape(s.shape)
