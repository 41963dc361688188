"""From training data to a folder that holds a prior, and from that folder to the prior."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.lazy import LazyFields
from bayesdownscale.prior import checkpoint as ckpt
from bayesdownscale.prior.calibrate import LEVELS, calibrate, measure_errors
from bayesdownscale.prior.denoiser import Context
from bayesdownscale.prior.diffusion import DiffusionDenoiser
from bayesdownscale.prior.distribution import FieldPrior, GaussianPrior
from bayesdownscale.prior.feed import Anomalies, Remembered, Windows, scan, some_steps
from bayesdownscale.prior.fit_gaussian import fit_gaussian
from bayesdownscale.prior.gaussian import GaussianField
from bayesdownscale.prior.network import UNet, UNetConfig
from bayesdownscale.prior.noise import SIGMA_MIN, NoiseLevels
from bayesdownscale.prior.standardise import Standardisation, fit_standardisation
from bayesdownscale.prior.training import (
    Progress,
    TrainingConfig,
    TrainingState,
    finish,
    start,
    train,
    usual_step,
    window_starts,
)
from bayesdownscale.prior.windows import WindowedDenoiser

PRIOR, STATE = "prior", "training"
_FOLDER = Path(__file__).parent / "shipped"
SHIPPED = {"era5-uk": _FOLDER / "era5-uk-t2m", "twin": _FOLDER / "twin"}


def static_channels(standardisation: Standardisation, grid: Grid, extra: np.ndarray | None) -> np.ndarray:
    """What the network is told of each cell: position, climatology (its mean and daily cycle tell land from
    sea and high from low) and `extra` fields (lat, lon, n), each with mean 0 and variance 1: (lat, lon, n)."""
    lat, lon = np.meshgrid(grid.lat, grid.lon, indexing="ij")
    climate = np.asarray(standardisation.coefficients[:5]).reshape(-1, *grid.shape)
    channels = [lat, lon, *climate] + ([] if extra is None else list(np.moveaxis(extra, -1, 0)))
    stacked = np.stack(channels, axis=-1).astype(np.float64)
    spread = stacked.std((0, 1))
    return ((stacked - stacked.mean((0, 1))) / np.where(spread > 0, spread, 1)).astype(np.float32)


def train_prior(
    fields: Fields | LazyFields,
    folder: str | Path,
    *,
    window: int = 25,
    stride: int | None = None,
    network: UNetConfig | None = None,
    training: TrainingConfig | None = None,
    statics: np.ndarray | None = None,
    validation_share: float = 1 / 8,
    n_modes: int = 100,
    block: int = 1,
    n_tail: int = 400,
    shrink: tuple[float, float] = (0.4, 0.6),
    floor: float = 1e-6,
    sigma_min: float = SIGMA_MIN,
    statistics: int = 2**27,
    provenance: dict[str, Any] | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_step: Callable[[int], None] = lambda step: None,
) -> FieldPrior:
    """Train a prior on `fields` and write it to `folder`; started again, it resumes and ends bit-identical.

    `window` time steps are seen at once; `stride` (default: half the window) is used between windows of longer
    trajectories. The last `validation_share` of the times decides when to stop. `statics` (lat, lon, n): for
    example orography and land-sea mask. `n_modes`, `block`, `n_tail`, `shrink` and `floor`: of the Gaussian's
    covariance, see `fit_gaussian`; for years of data larger blocks and less of the others. `sigma_min`: the
    lowest noise level, in standard deviations of a variable, below which draws resolve nothing. `provenance` is stored.
    Raises `ValueError` for data that cannot be trained on, `CheckpointError` where `folder` holds another run.

    Of `LazyFields` windows are read as they are needed, one batch ahead, and climatology and covariance come from
    `statistics` numbers, in 24 spans.
    """
    folder, network, training = Path(folder), network or UNetConfig(), training or TrainingConfig()
    values, times = fields.values, fields.times
    missing, fingerprint = scan(values)
    if missing.all():
        raise ValueError(f"{fields.source}: every time step has missing values; fill them or crop the grid")
    context, cells = Context.at(times), int(np.prod(values.shape[1:]))
    used = some_steps(~missing, cells, statistics, window)
    read = np.concatenate([np.asarray(values[a:b]) for a, b in _runs(used)])
    standardisation, anomalies = fit_standardisation(read, Context(context.hour[used], context.day[used]))
    if used.size == (~missing).sum():
        whole = np.zeros(values.shape, np.float32)
        whole[used] = anomalies
    else:
        whole = Anomalies(values, standardisation, context)
    n_train = round(times.size * (1 - validation_share))
    part = lambda lo, hi: lo + window_starts(times[lo:hi], window, ~missing[lo:hi])
    train_starts, valid_starts = part(0, n_train), part(n_train, times.size)
    unseen = Windows(Remembered(whole), context, valid_starts)
    step = usual_step(times)
    n_used = int((used < n_train).sum())
    breaks = np.flatnonzero(np.diff(times[used[:n_used]]) != step) + 1
    spans = [slice(a, b) for a, b in pairwise([0, *breaks.tolist(), n_used])]
    covariance: dict[str, Any] = {"n_modes": n_modes, "block": block, "n_tail": n_tail, "floor": floor}
    covariance |= {"shrink_space": shrink[0], "shrink_time": shrink[1]}
    gaussian = fit_gaussian(anomalies[:n_used], fields.grid, window, spans, **covariance)
    largest = float(jnp.sqrt(jnp.max(gaussian.variances)))
    levels = NoiseLevels.covering(largest, sigma_min)
    channels = static_channels(standardisation, fields.grid, statics)
    n_in, n_out = DiffusionDenoiser.n_channels(gaussian, channels.shape[-1])
    net = UNet(n_in, n_out, network, key=jax.random.key(training.seed))
    modes = gaussian.modes.shape[0]
    unknown = jnp.geomspace(1e-2, 1.0, LEVELS), jnp.zeros(LEVELS), jnp.ones((LEVELS, modes + 1))  # measured below
    denoiser = DiffusionDenoiser(gaussian, net, jnp.asarray(channels), *unknown, standardisation.season)
    learned = NoiseLevels(levels.sigma_min, min(levels.sigma_max, training.sigma_max))
    digest = lambda array: hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    run = {
        "network": network.to_json(),
        "training": training.to_json(),
        "window": window,
        "validation_share": validation_share,
        **covariance,
        "sigma_min": sigma_min,
        "data": fingerprint,
        "times": digest(times),
        "statics": None if statics is None else digest(statics),
    }
    run = json.loads(json.dumps(run))  # as a checkpoint gives it back: tuples become lists

    state = start(denoiser, training)
    if (folder / f"{STATE}.json").exists():
        record = ckpt.load_description(folder, STATE)
        if {"sigma_min": SIGMA_MIN, "n_tail": 0, **record["run"]} != run:  # older runs name neither
            raise ckpt.CheckpointError(
                f"{folder}: holds a training run with other settings or data; choose another folder"
            )
        file, arrays = ckpt.load_arrays(folder, record)
        state = ckpt.unflatten(state, arrays, file)

    def description(state: TrainingState, linear_loss: float | None) -> dict[str, Any]:
        return {
            "window": window,
            "stride": stride or max(window // 2, 1),
            "step_seconds": int(step / np.timedelta64(1, "s")),
            "start": str(times[0]),
            "variables": [dataclasses.asdict(v) for v in fields.variables],
            "grid": fields.grid.to_json(),
            "levels": {"sigma_min": levels.sigma_min, "sigma_max": levels.sigma_max},
            "architecture": {
                "network": network.to_json(),
                "modes": gaussian.modes.shape[0],
                "block": gaussian.bases.shape[-1] // window,
                "tail": gaussian.n_tail,
                "statics": channels.shape[-1],
                "harmonics": standardisation.coefficients.shape[0],
            },
            "provenance": {
                "source": fields.source,
                "data_sha256": fingerprint,
                "first_time": str(times[0]),
                "last_time": str(times[-1]),
                "time_steps": int(times.size),
                "training": training.to_json(),
                "covariance": covariance,
                "steps_done": int(state.step),
                "best_step": int(state.best_step),
                "validation_loss": float(state.best_loss),
                "linear_validation_loss": linear_loss,
                "versions": {p: version(p) for p in ("jax", "equinox", "optax")},
                "python": sys.version.split()[0],
                **(provenance or {}),
            },
        }

    def on_validation(state: TrainingState, progress: Progress) -> None:
        best = measure_errors(calibrate(finish(denoiser, state), unseen, learned), unseen)
        ckpt.save_checkpoint(folder, PRIOR, description(state, progress.linear_loss), (best, standardisation))
        ckpt.save_checkpoint(folder, STATE, {"run": run}, state)
        on_progress(progress)

    train(denoiser, learned, Windows(whole, context, train_starts), unseen, training, state, on_validation, on_step)
    return load_prior(folder)


def _runs(steps: np.ndarray) -> list[tuple[int, int]]:
    """First and last but one of each run of consecutive `steps`."""
    edges = np.flatnonzero(np.diff(steps) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(steps, edges)]


def _shapes(record: dict[str, Any]) -> tuple[DiffusionDenoiser, Standardisation]:
    """The tree of a checkpoint, shapes only."""
    window, arch = record["window"], record["architecture"]
    n_var, n_lat, n_lon = len(record["variables"]), len(record["grid"]["lat"]), len(record["grid"]["lon"])
    network = UNetConfig(**{**arch["network"], "widths": tuple(arch["network"]["widths"])})

    def build():
        # Checkpoints from before there were blocks or a tail name none.
        modes, block, tail = arch["modes"], arch.get("block", 1), arch.get("tail", 0)
        gaussian = GaussianField(
            jnp.zeros((modes, n_var, n_lat, n_lon)),
            jnp.zeros(((modes - tail) // block, block * window, block * window)),
            jnp.zeros((modes, window)),
            jnp.zeros(()),
            jnp.zeros((window, window)) if tail else None,
        )
        n_in, n_out = DiffusionDenoiser.n_channels(gaussian, arch["statics"])
        net = UNet(n_in, n_out, network, key=jax.random.key(0))
        statics, gain = jnp.zeros((n_lat, n_lon, arch["statics"])), jnp.zeros(LEVELS)
        ratio = jnp.zeros((LEVELS, modes + 1))
        denoiser = DiffusionDenoiser(gaussian, net, statics, gain, gain, ratio, arch["harmonics"] == 15)
        cells = (n_var, n_lat, n_lon)
        return denoiser, Standardisation(jnp.zeros((arch["harmonics"], *cells)), jnp.ones(n_var))

    return eqx.filter_eval_shape(build)


def load_prior(folder: str | Path | None = None, times: np.ndarray | None = None, steps: int = 64) -> FieldPrior:
    """The prior stored in `folder`, over `times` (default: one window from the start of its training data).

    `folder` may name a prior that ships with the package: "era5-uk" (the default), hourly ERA5 2 m temperature over
    the UK, or "twin", pressure, wind and temperature of the twin climate (`twin`). A folder of that name is "./twin".
    Raises `CheckpointError`, naming the file, for anything missing, truncated, altered or of another format.
    """
    folder = SHIPPED.get(str(folder or "era5-uk")) or Path(str(folder))
    record = ckpt.load_description(folder, PRIOR)
    try:
        template = _shapes(record)
        grid = Grid.from_json(record["grid"])
        variables = tuple(Variable(**v) for v in record["variables"])
        step = np.timedelta64(record["step_seconds"], "s").astype("timedelta64[ns]")
        default = np.datetime64(record["start"], "ns") + step * np.arange(record["window"])
        coords = Coords(default, variables, grid)
        levels, window, stride = NoiseLevels(**record["levels"]), record["window"], record["stride"]
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise ckpt.CheckpointError(
            f"{folder / PRIOR}.json: altered, {error!r} is wrong or missing; fetch or train it again"
        ) from None
    file, arrays = ckpt.load_arrays(folder, record)
    denoiser, standardisation = ckpt.unflatten(template, arrays, file)
    windowed = WindowedDenoiser(denoiser, window, stride)
    prior = FieldPrior(windowed, standardisation, levels, coords, steps)
    return prior if times is None else prior.at(times)


def load_gaussian_prior(folder: str | Path | None = None) -> GaussianPrior:
    """The Gaussian that the network of this prior corrects: the kriging prior, over one window, exact."""
    prior = load_prior(folder)
    assert isinstance(prior.denoiser, WindowedDenoiser)
    inner = prior.denoiser.inner
    assert isinstance(inner, DiffusionDenoiser)
    return GaussianPrior(inner.gaussian, prior.standardisation, prior.levels, prior.coords)
