"""What is seen of the twin's flow: psl, uas, vas and tas on a grid of latitudes and longitudes, and truths without end.

    psl = p_0 + density f (psi_2 - U_2 y)                        geostrophic balance: u = -1 / (density f) dpsl/dy
    (uas, vas) = friction's share of the geostrophic wind, turned towards low pressure, more so over land
    tas = mean - G y + T - lapse height + daily cycle            the cycle on land, large where pressure is high

plus, in psl, wind and tas, the mesoscale that such a flow lacks: random waves with an energy spectrum of k^(-5/3)
(Nastrom & Gage 1985, doi:10.1175/1520-0469(1985)042<0950:ACOAWS>2.0.CO;2), an Ornstein-Uhlenbeck process carried by the
mean wind, three times as strong under the clouds of low pressure as under clear skies. Waves are averaged over cells
exactly; all else is a function of these means in each cell.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from bayesdownscale._types import Key
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid
from bayesdownscale.data.twin.flow import (
    Spectral,
    advance,
    complex_of,
    random_state,
    steps_an_hour,
    streamfunctions,
    surface_wind,
    waves,
)
from bayesdownscale.data.twin.planet import GRID, MODEL, PLANET, VARIABLES, Planet, geography

MEAN_PSL = 101_300.0  # [Pa]
CLOUD_PSL = 800.0  # pressure over which skies clear [Pa]
SPIN_UP_DAYS = 30.0
Mesoscale = Complex[Array, "3 ky kx"]  # psl [Pa], streamfunction [m2 s-1] and tas [K]


def mesoscale(planet: Planet, key: Key) -> Mesoscale:
    """A draw of the waves of the mesoscale."""
    w = waves(planet)
    shortest, longest = planet.mesoscale_km
    inside = w.kept & (w.squared >= (2e-3 * np.pi / longest) ** 2) & (w.squared <= (2e-3 * np.pi / shortest) ** 2)
    of_wind = inside * np.where(inside, w.squared, 1.0) ** (-4 / 3)  # variance of a wave, of an energy of k^(-5/3)
    twice = np.where(w.k > 0, 2, 1)
    total_of = max(float(np.sum(twice * of_wind)), np.finfo(np.float32).tiny)  # coarse planes may have no such wave
    normal = lambda variance, total: total * np.sqrt(variance / total_of) * planet.cells
    amplitudes = [normal(of_wind, planet.mesoscale_pa)]
    # Both components of the wind: |k|^2 psi^2 is twice the variance of one.
    rotation = normal(of_wind, planet.mesoscale_wind * np.sqrt(2)) / np.sqrt(np.where(inside, w.squared, 1.0))
    amplitudes += [rotation, normal(of_wind, planet.mesoscale_k)]
    white = jnp.fft.rfft2(jax.random.normal(key, (3, planet.cells, planet.cells)), norm="forward")
    return white * jnp.asarray(np.stack(amplitudes), jnp.float32)


def carried(planet: Planet, old: Mesoscale, hours: float, key: Key) -> Mesoscale:
    """The mesoscale `hours` later, exactly: moved by the mean wind, and partly new."""
    kept = float(np.exp(-hours / planet.mesoscale_hours))
    moved = jnp.asarray(np.exp(-1j * waves(planet).k * planet.westerly * 3600 * hours), jnp.complex64)[None]
    return kept * moved * old + float(np.sqrt(1 - kept**2)) * mesoscale(planet, key)


def observe(planet: Planet, grid: Grid) -> Callable[[Spectral, Mesoscale, Array], Float[Array, "4 lat lon"]]:
    """The function (state, mesoscale, hour of the day [UTC]) -> psl, uas, vas, tas on `grid`, units of `VARIABLES`."""
    (north, east), w = planet.metres(grid.lat, grid.lon), waves(planet)
    land, height = (jnp.asarray(a, jnp.float32) for a in geography(planet, north, east))
    half = 0.5e3 * planet.size_km
    south_to_north, west_to_east = planet.metres(grid.lat_bounds, grid.lon_bounds)
    heights, widths = np.abs(np.diff(south_to_north)), np.abs(np.diff(west_to_east))
    l, k = w.l[:, 0], w.k[0]
    # Means over cells of exp(i (l y + k x)); waves with k > 0 stand for their conjugates too.
    in_y = np.exp(1j * np.outer(north + half, l)) * np.sinc(np.outer(heights, l) / (2 * np.pi))
    in_x = np.exp(1j * np.outer(k, east + half)) * np.sinc(np.outer(k, widths) / (2 * np.pi))
    in_x = in_x * np.where(k > 0, 2, 1)[:, None]
    in_y, in_x = jnp.asarray(in_y, jnp.complex64), jnp.asarray(in_x, jnp.complex64)
    ik, il = (jnp.asarray(1j * a, jnp.complex64) for a in (w.k, w.l))
    y = jnp.asarray(north, jnp.float32)[:, None]
    solar = (grid.lon / 15 - planet.peak_hour).astype(np.float32)[None]

    def fields(state: Spectral, small: Mesoscale, hour: Array) -> Float[Array, "4 lat lon"]:
        q_T = complex_of(state)
        psi = streamfunctions(planet, q_T[:2])[1]
        spectral = jnp.stack([psi, -il * psi, ik * psi, q_T[2], small[0], -il * small[1], ik * small[1], small[2]])
        psi, u, v, T, *waves_of = jnp.einsum("yl,flk,kx->fyx", in_y, spectral, in_x).real
        pressure = planet.density * planet.f * (psi - planet.westerly * y)
        uas, vas = surface_wind(planet, land, u + planet.westerly, v)
        clear = jax.nn.sigmoid(pressure / CLOUD_PSL)
        daily = planet.daily_k * land * (0.3 + 0.7 * clear) * jnp.cos(2 * jnp.pi * (hour + solar) / 24)
        tas = planet.mean_k - planet.warmth * planet.shear * y + T - planet.lapse * height + daily
        return jnp.stack([MEAN_PSL + pressure, uas, vas, tas]) + (1.5 - clear)[None] * jnp.stack(waves_of)

    return fields


@partial(jax.jit, static_argnames=("planet", "grid", "steps", "step_hours", "skip_days"))
def simulate(
    key: Key, first_hour: Array, *, planet: Planet, grid: Grid, steps: int, step_hours: float, skip_days: float
) -> Float[Array, "time 4 lat lon"]:
    """One realization: `steps` fields, `step_hours` apart, after `skip_days` from random eddies; for `jax.vmap`."""
    see, substeps = observe(planet, grid), steps_an_hour(planet)

    def forward(state: Spectral, hours: float) -> Spectral:
        return advance(planet, state, 3600.0 * hours, max(1, round(substeps * hours)))

    def one(carry: tuple[Spectral, Mesoscale], i: Array) -> tuple[tuple[Spectral, Mesoscale], Array]:
        state, small = carry
        seen = see(state, small, jnp.mod(first_hour + i * step_hours, 24.0))
        return (forward(state, step_hours), carried(planet, small, step_hours, jax.random.fold_in(k_small, i))), seen

    k_flow, k_first, k_small = jax.random.split(key, 3)
    state = random_state(planet, k_flow)
    state = jax.lax.fori_loop(0, round(4 * skip_days), lambda _, s: forward(s, 6.0), state)
    return jax.lax.scan(one, (state, mesoscale(planet, k_first)), jnp.arange(steps))[1]


def twin(
    key: Key,
    start: str | np.datetime64 = "2001-01-01",
    days: float = 1.0,
    *,
    grid: Grid = GRID,
    step_hours: float = 1.0,
    planet: Planet = PLANET,
    skip_days: float = SPIN_UP_DAYS,
) -> Fields:
    """A truth: the weather of the twin, as long and as fine as asked for.

    Each `key` is another weather in the same climate; its mesoscale is the same only for the same `step_hours`. It lies
    in an empty part of the North Pacific, so that no real coast is drawn on it, and has no seasons.

    **Arguments:** `start`, the first time [UTC]; `days`, how long, both ends included; `grid`, within 2560 km of the
    planet's middle to each side; `step_hours` between fields; `planet`, its constants; `skip_days`, from random
    eddies to `start`: after 30 days they are forgotten.
    **Returns:** psl [Pa], uas and vas [m s-1], tas [K] at each time: the flow's means over cells, on the geography of
    their middles.
    **Raises:** `ValueError` for a grid that leaves the plane, a turned grid, times that are none, a flow that explodes.
    """
    times, one = _realization(start, days, grid, step_hours, planet, skip_days)
    values = np.asarray(one(key))
    return _labelled(values, times, grid, planet)


def twins(
    key: Key,
    count: int,
    start: str | np.datetime64 = "2001-01-01",
    days: float = 1.0,
    *,
    grid: Grid = GRID,
    step_hours: float = 1.0,
    planet: Planet = PLANET,
    skip_days: float = SPIN_UP_DAYS,
) -> list[Fields]:
    """`count` independent truths over the same times, computed side by side; arguments and errors as `twin`."""
    times, one = _realization(start, days, grid, step_hours, planet, skip_days)
    values = np.asarray(jax.vmap(one)(jax.random.split(key, count)))
    return [_labelled(each, times, grid, planet) for each in values]


def coarse_model(planet: Planet = PLANET, model: Planet = MODEL) -> Planet:
    """`planet` seen through the surface of `model`: the same weather, without mesoscale and with the model's errors of
    mean, variance and daily cycle. `twin(key, ..., planet=coarse_model())` is then the biased twin of `twin(key, ...)`,
    hour by hour, and `twin(key, ..., planet=MODEL)` a climate model that runs freely, in coarser and weaker weather."""
    surface = ("mean_k", "daily_k", "peak_hour", "sea_wind", "land_wind", "sea_turn", "land_turn")
    surface += ("mesoscale_pa", "mesoscale_wind", "mesoscale_k")
    return replace(planet, **{name: getattr(model, name) for name in surface})


def _realization(
    start: str | np.datetime64, days: float, grid: Grid, step_hours: float, planet: Planet, skip_days: float
) -> tuple[np.ndarray, Callable[[Key], Array]]:
    """The times, and the values of a realization from its key, once the arguments are checked."""
    times, first_hour = _times(start, days, step_hours)
    _check(grid, planet)
    settings = {"planet": planet, "grid": grid, "steps": times.size, "step_hours": step_hours, "skip_days": skip_days}
    return times, lambda key: simulate(key, jnp.asarray(first_hour, jnp.float32), **settings)


def _times(start: str | np.datetime64, days: float, step_hours: float) -> tuple[np.ndarray, float]:
    first = np.datetime64(start, "ns")
    if not (days >= 0 and step_hours > 0) or np.isnat(first):
        raise ValueError(f"expected days >= 0 and step_hours > 0 from a date, got {days}, {step_hours} from {start}")
    steps = int(np.floor(24 * days / step_hours + 1e-6)) + 1
    times = first + np.round(np.arange(steps) * step_hours * 3.6e12).astype("timedelta64[ns]")
    return times, float((first - first.astype("datetime64[D]")) / np.timedelta64(1, "h"))


def _check(grid: Grid, planet: Planet) -> None:
    limits = [np.abs(d).max() for d in planet.metres(grid.lat_bounds, grid.lon_bounds)]
    if grid.pole is not None or max(limits) > 500 * planet.size_km:
        raise ValueError(
            f"expected a grid with true poles within {planet.size_km / 2:g} km of {planet.lat:g} N, {planet.lon:g} E, "
            f"got {grid.extent()}; choose a smaller one or another planet"
        )


def _labelled(values: np.ndarray, times: np.ndarray, grid: Grid, planet: Planet) -> Fields:
    if not np.isfinite(values).all():
        raise ValueError(f"expected a flow that stays finite, got one that explodes with {planet}; weaken its shear")
    return Fields(values.astype(np.float32), Coords(times, VARIABLES, grid), "twin climate of bayesdownscale")
