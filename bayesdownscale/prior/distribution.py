"""The prior as a NumPyro distribution over fields in physical units."""

import copy

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax, random, vmap
from numpyro.distributions import constraints
from numpyro.util import is_prng_key

from bayesdownscale._types import Field
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.prior.denoiser import AbstractDenoiser, Context
from bayesdownscale.prior.flow import STAGES, log_density, pull, push
from bayesdownscale.prior.gaussian import GaussianDenoiser, GaussianField
from bayesdownscale.prior.noise import NoiseLevels
from bayesdownscale.prior.reverse_sde import reverse_sample
from bayesdownscale.prior.standardise import Standardisation
from bayesdownscale.prior.windows import WindowedDenoiser

SAMPLE_BATCH = 16


class UndatedError(ValueError):
    """Times were asked of a prior that stands for every span of its length."""


class Undated(Coords):
    """The labels of a field of `n_time` times of which nothing else is known: reading `times` raises `UndatedError`."""

    n_time: int

    def __init__(self, n_time: int, variables: tuple[Variable, ...], grid: Grid):
        object.__setattr__(self, "n_time", n_time)
        object.__setattr__(self, "variables", tuple(variables))
        object.__setattr__(self, "grid", grid)

    @property
    def times(self) -> np.ndarray:
        raise UndatedError(
            "expected a program that is the same for every span of time, got one that reads prior.times; read the hour "
            "of day and day of year of each time step from prior.context, or give what you make of the times as an "
            "argument"
        )

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.n_time, len(self.variables), *self.grid.shape

    def _key(self) -> tuple:
        return self.n_time, self.variables, self.grid

    def __repr__(self) -> str:
        return f"Undated({self.n_time}, {self.variables}, {self.grid})"


class FieldPrior(dist.Distribution):
    """A prior over fields (time, variable, lat, lon) in physical units, given by its denoiser.

    `denoiser` (of whole trajectories, standardised units), `standardisation`, `levels` of noise, and the
    labels `coords`. `sample` integrates the reverse SDE with `steps` evaluations a draw, `push` the probability-flow
    ODE, and `log_prob` the change of variables along it. Works in NumPyro programs, handlers, jit and vmap.
    """

    support = constraints.independent(constraints.real, 4)  # pyright: ignore[reportAssignmentType]
    pytree_data_fields = ("denoiser", "standardisation", "context")
    pytree_aux_fields = ("levels", "coords", "steps")

    def __init__(
        self,
        denoiser: AbstractDenoiser,
        standardisation: Standardisation,
        levels: NoiseLevels,
        coords: Coords,
        steps: int = 64,
        *,
        validate_args=None,
    ):
        self.denoiser, self.standardisation, self.levels = denoiser, standardisation, levels
        self.coords, self.steps = coords, steps
        self.context = Context.at(coords.times)
        super().__init__(batch_shape=(), event_shape=coords.shape, validate_args=validate_args)

    @classmethod
    def gather_pytree_data_fields(cls):
        """NumPyro's, which come from a set, in the same order in every process: checksums of a prior depend on it."""
        return tuple(sorted(super().gather_pytree_data_fields()))

    @classmethod
    def gather_pytree_aux_fields(cls):
        return tuple(sorted(super().gather_pytree_aux_fields()))

    @property
    def grid(self) -> Grid:
        return self.coords.grid

    @property
    def times(self) -> np.ndarray:
        return self.coords.times

    @property
    def variables(self) -> tuple[Variable, ...]:
        return self.coords.variables

    def sample(self, key, sample_shape=()):
        assert key is not None
        assert is_prng_key(key)
        n = int(np.prod(sample_shape))
        fields = lax.map(self._draw, random.split(key, n), batch_size=min(n, SAMPLE_BATCH) or None)
        return fields.reshape(*sample_shape, *self.event_shape)

    def _draw(self, key):
        sigmas = self.levels.levels(self.steps)
        x, _ = reverse_sample(key, self.denoiser, self.context, sigmas, self.coords.shape)
        return self.standardisation.backward(x, self.context)

    def log_prob(self, value):
        """log p(value), physical units, of the prior smoothed at sigma_min: `flow.log_density` with about `steps`
        evaluations (at least 48), each followed by as many reverse sweeps as there are cells, or 8 where there are
        more than 512. The random signs of that estimate are the same in every call, so this is one deterministic
        function; its error is the same for all fields only where the denoiser is linear. Gradients cost a few
        times as much: to sample with them is for small grids, and easier in the latent of `push`.
        """
        sigmas = self.levels.levels(max(self.steps // STAGES, 8) + 1)

        def one(x):
            x = self.standardisation.forward(x, self.context)
            return log_density(x, self.denoiser, self.context, sigmas, random.key(0))

        fields = value.reshape(-1, *self.event_shape)
        return lax.map(one, fields).reshape(value.shape[:-4]) - self._log_scale

    @property
    def _log_scale(self):
        """log of the determinant of the change from standardised to physical units."""
        n_time, _, n_lat, n_lon = self.event_shape
        return n_time * n_lat * n_lon * jnp.sum(jnp.log(self.standardisation.scale))

    def push(self, z: Field, steps: int | None = None) -> Field:
        """The physical field that the probability-flow ODE makes of a latent `z` ~ N(0, I) of the same shape, with
        `steps` evaluations (default: those of a draw). Smooth in z, and for z ~ N(0, I) a draw of this prior."""
        sigmas = self.levels.levels(self.steps if steps is None else steps)
        return self.standardisation.backward(push(z, self.denoiser, self.context, sigmas), self.context)

    def pull(self, value: Field, steps: int | None = None) -> Field:
        """The latent z from which `push` comes near the physical field `value`: the probability-flow ODE upwards."""
        sigmas = self.levels.levels(self.steps if steps is None else steps)
        return pull(self.standardisation.forward(value, self.context), self.denoiser, self.context, sigmas)

    def unlabelled(self) -> "FieldPrior":
        """The same prior with the same context but without its times, so that functions compiled for one span of time
        serve every span of that length. Reading the times raises `UndatedError`; grid and variables stay."""
        prior = copy.copy(self)
        prior.coords = Undated(self.event_shape[0], self.variables, self.grid)
        return prior

    def at(self, times: np.ndarray) -> "FieldPrior":
        """The same prior over other `times` (n_time,) datetime64, spaced as in training; a prior of one time knows of
        no spacing. Raises `ValueError` for other spacings and lengths."""
        times = np.asarray(times, dtype="datetime64[ns]")
        spacing, wanted = np.unique(np.diff(self.times)), np.unique(np.diff(times))
        if spacing.size and (wanted.size != 1 or wanted[0] != spacing[0]):
            raise ValueError(
                f"expected times spaced by {spacing[0] / np.timedelta64(1, 'h'):g} h as in training, got "
                f"{[float(w / np.timedelta64(1, 'h')) for w in wanted]} h; ask for evenly spaced times"
            )
        shortest, longest = self.lengths
        if not shortest <= times.size <= longest:
            raise ValueError(
                f"expected at least {shortest} times, the window of this prior, got {times.size}; "
                "ask for a longer span and keep the hours you need"
                if times.size < shortest
                else f"expected at most {longest} times, all this prior describes, got {times.size}"
            )
        prior = copy.copy(self)
        prior.coords = Coords(times, self.variables, self.grid)
        prior.context = Context.at(times)
        prior._event_shape = prior.coords.shape
        return prior

    @property
    def lengths(self) -> tuple[int, float]:
        """The shortest and the longest trajectory this prior describes, in time steps."""
        if isinstance(self.denoiser, WindowedDenoiser):
            return self.denoiser.window, np.inf
        return self.times.size, self.times.size

    def spanning(self, coarse_times: np.ndarray) -> "FieldPrior":
        """The same prior over evenly spaced times from the first to the last of `coarse_times`, extended where
        the prior's window is longer. Raises `ValueError` as `at`, and for several times where the prior has but one."""
        first, last = coarse_times.min(), coarse_times.max()
        if self.times.size == 1:
            if first != last:
                raise ValueError(
                    f"expected data at one time, as this prior describes one and no spacing, got {first} to {last}; "
                    "choose one time, or take a prior of several"
                )
            return self.at(np.array([first]))
        step = np.diff(self.times)[0]
        n = max(int((last - first) // step) + 1, self.lengths[0])
        return self.at(first + step * np.arange(n))


class GaussianPrior(FieldPrior):
    """The exact Gaussian case: `sample` is exact, `log_prob` is closed form. `field` in standardised units."""

    pytree_data_fields = ("field",)

    def __init__(
        self,
        field: GaussianField,
        standardisation: Standardisation,
        levels: NoiseLevels,
        coords: Coords,
        *,
        validate_args=None,
    ):
        self.field = field
        super().__init__(GaussianDenoiser(field), standardisation, levels, coords, validate_args=validate_args)

    def _draw(self, key):
        return self.standardisation.backward(self.field.draw(key), self.context)

    def log_prob(self, value):
        def one(x):
            return self.field.log_prob(self.standardisation.forward(x, self.context)) - self._log_scale

        return vmap(one)(value.reshape(-1, *self.event_shape)).reshape(value.shape[:-4])
