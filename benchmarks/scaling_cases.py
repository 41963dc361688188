"""The cases of `benchmarks.scaling`: synthetic data, priors of any grid, and one ensemble measured in this process."""

import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HOUR = np.timedelta64(1, "h")


def fields(prior, hours: int, block: int = 8):
    """Coarse values every six hours: red noise about 281 K."""
    import bayesdownscale as bd

    rng = np.random.default_rng(0)
    grid = prior.grid.coarsen(block)
    n = max(hours // 6, 1)
    times = np.datetime64("2019-01-01", "ns") + 6 * HOUR * np.arange(n)
    values = np.empty((n, len(prior.variables), *grid.shape), np.float32)
    state = rng.normal(size=values.shape[1:])
    for t in range(n):
        state = 0.8 * state + 0.6 * rng.normal(size=state.shape)
        values[t] = 281 + 3 * state
    return bd.Fields(values, bd.Coords(times, prior.variables, grid), "synthetic")


def prior_of(n_lat: int, n_lon: int, n_var: int):
    """The shipped prior, or (for another grid) an untrained network of the same make on a Gaussian with 200 modes: no
    covariance between cells is ever formed."""
    import bayesdownscale as bd

    shipped = bd.load_prior()
    if (n_lat, n_lon, n_var) == (*shipped.grid.shape, 1):
        return shipped
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from bayesdownscale.prior.diffusion import DiffusionDenoiser
    from bayesdownscale.prior.gaussian import GaussianField
    from bayesdownscale.prior.network import UNet
    from bayesdownscale.prior.windows import WindowedDenoiser

    assert isinstance(shipped.denoiser, WindowedDenoiser)
    window, inner = shipped.denoiser.window, shipped.denoiser.inner
    assert isinstance(inner, DiffusionDenoiser)
    rng, modes = np.random.default_rng(0), inner.gaussian.modes.shape[0]
    random = rng.standard_normal((n_var * n_lat * n_lon, modes), np.float32)
    basis = np.linalg.qr(random)[0].T
    gaussian = GaussianField(
        jnp.asarray(basis.reshape(modes, n_var, n_lat, n_lon)),
        jnp.broadcast_to(inner.gaussian.bases[:1], (modes, window, window)),
        jnp.broadcast_to(inner.gaussian.variances[:1], (modes, window)),
        jnp.asarray(0.1),
    )
    channels = DiffusionDenoiser.n_channels(gaussian, 7)
    make = lambda: UNet(*channels, bd.UNetConfig(inner.net.config.widths), key=jax.random.key(0))
    shapes = eqx.filter_eval_shape(make)  # filled with numbers of the usual size: nothing has to be compiled
    fill = lambda leaf: jnp.asarray(0.02 * rng.standard_normal(leaf.shape, np.float32))
    net = jax.tree.map(fill, shapes)
    denoiser = DiffusionDenoiser(
        gaussian, net, jnp.zeros((n_lat, n_lon, 7)), inner.gain_sigma, inner.gain,
        jnp.ones((inner.gain_sigma.size, modes + 1)), inner.season,
    )  # fmt: skip
    grid = bd.Grid(60 - 0.25 * np.arange(n_lat), -10 + 0.25 * np.arange(n_lon))
    variables = tuple(bd.Variable(f"v{k}", "K") for k in range(n_var))
    standardisation = bd.Standardisation(jnp.zeros((5, n_var, n_lat, n_lon)).at[0].set(281.0), 3 * jnp.ones(n_var))
    coords = bd.Coords(shipped.times, variables, grid)
    return bd.FieldPrior(WindowedDenoiser(denoiser, window, 12), standardisation, shipped.levels, coords)


def build(hours: int, n_lat: int, n_lon: int, n_var: int, precision: str):
    import bayesdownscale as bd
    from bayesdownscale.ensemble.problem import CoarseInMemory, Problem
    from bayesdownscale.recipes import find_recipe, load_recipe

    prior = prior_of(n_lat, n_lon, n_var)
    prior = bd.in_bfloat16(prior) if precision == "bf16" else prior
    model = load_recipe(find_recipe("models", "area_mean")).model
    return Problem(prior, CoarseInMemory(fields(prior, hours)), model, {"sigma": 0.1})


def forward_seconds(prior, windows: int, clock: Callable[[], float]) -> float:
    """Seconds on the `clock` of the denoiser alone on one of `windows` windows, done at once."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    inner, context = prior.denoiser.inner, prior.context
    x = jax.random.normal(jax.random.key(0), (windows, *prior.event_shape))
    call = eqx.filter_jit(lambda d, x: jax.vmap(lambda x: d(x, jnp.asarray(1.0), context))(x))
    jax.block_until_ready(call(inner, x))
    best = np.inf
    for _ in range(3):
        began = clock()
        jax.block_until_ready(call(inner, x))
        best = min(best, clock() - began)
    return best / windows


def one(case: dict[str, Any]) -> dict[str, Any]:
    """Draw an ensemble of one span a job here, and say what its jobs took. Without `workers` in this process, in
    processor seconds, which other programs disturb little; with them, or `clock`, in seconds of the clock."""
    from bayesdownscale.ensemble.executors import Processes, Serial
    from bayesdownscale.ensemble.guide import GUIDANCE
    from bayesdownscale.ensemble.run import Ensemble

    make = partial(build, case["hours"], case["n_lat"], case["n_lon"], case["n_var"], case["precision"])
    workers, devices = case["workers"], case["devices"]
    clock = time.monotonic if workers or case["clock"] else time.process_time
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "ens.zarr"
        run = Ensemble(
            make, out, members=case["members"], span=case["span"] * HOUR, steps=case["steps"], batch=case["batch"],
            devices=None if devices == 1 else devices, guidance=GUIDANCE[case["guidance"]],
        )  # fmt: skip
        plan, written, writing = run.plan, run.store.write, [0.0]

        def write(job, values):
            began = clock()
            written(job, values)
            writing[0] += clock() - began

        if not workers:
            run.store.write = write
        marks = []
        began = time.monotonic()
        run.run(Processes(workers) if workers else Serial(), on_done=lambda done: marks.append(clock()))
        elapsed = time.monotonic() - began
        size = sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
        # one job a member and a span; the first, or the first of each worker, compiles
        took, skip = np.diff(marks), max(workers, 1)
        job = float(np.sum(took[skip:]) / max(took.size - skip, 1)) if workers else float(np.median(took[skip:]))
    windows = (plan.block - plan.window) // plan.stride + 1
    jobs = len(plan.jobs())
    kept = plan.span * case["n_lat"] * case["n_lon"] * case["n_var"]
    peak = lambda who: resource.getrusage(who).ru_maxrss / 2**20
    row = case | {
        "jobs": jobs,
        "seconds": elapsed,
        "seconds_a_job": job,
        "seconds_first_job": float(took[0]),
        "windows_a_job": windows,
        "seconds_a_window_evaluation": job / windows / case["steps"],
        "seconds_a_cell_hour_evaluation": job / kept / case["steps"],
        "seconds_writing_a_job": writing[0] / jobs,
        "peak_gib": peak(resource.RUSAGE_SELF),
        "peak_gib_worker": peak(resource.RUSAGE_CHILDREN),
        "bytes_stored_a_byte": size / (4 * plan.length * kept / plan.span * case["members"]),
        "stride": plan.stride,
        "cost_factor": plan.cost,
    }
    if case["parts"]:
        row["seconds_a_window_forward"] = forward_seconds(make().prior, min(case["batch"], windows), clock)
    if jobs > 2 and not workers:
        some = [2**k for k in range(jobs.bit_length()) if 2**k <= jobs]
        row["cumulative_jobs"], row["cumulative_seconds"] = some, [marks[k] - marks[0] for k in some]
    return row
