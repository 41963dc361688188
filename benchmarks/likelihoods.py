"""Likelihoods of a Gaussian field against long NUTS: `python -m benchmarks.likelihoods [--quick] [--json]`.

A field of 9 times x 4 x 8 cells, covariance exp(-|dt| / 5) x Matern-3/2 of 120 km and unit variance, is seen through
16 means eta = H x (2 x 2 cells, times 0 and 8), each datum drawn from one of the families below at its eta. The
posterior of eta is 16-dimensional: NUTS on its whitened coordinates (10 chains of 1000) gives its mean and covariance,
and the Gaussian those of the field given eta. Reported for guided draws, over all cells: the root mean square of the
error of the mean in posterior standard deviations (the Monte-Carlo error of the draws is included, and given), the
same relative to the size of the mean, and the mean ratio of standard deviations. Means over several data sets. The
third row of a family is an exact kernel, noise-denoise Metropolis-Hastings (chains from guided draws, steps of 0.1 in
log sigma): what guidance got wrong must be gone there, up to a Monte-Carlo error somewhat above that of as many
independent draws.
"""

import json
from collections.abc import Callable
from functools import partial

import click
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS

import bayesdownscale as bd
from bayesdownscale.recipes import find_recipe, load_recipe

TIMES, EVERY, LAT, LON, BLOCK = 9, 8, 4, 8, 2
N_DATA = 2 * (LAT // BLOCK) * (LON // BLOCK)
DISTANCE = np.abs(np.arange(N_DATA)[:, None] - np.arange(N_DATA))
FAMILIES: dict[str, Callable] = {  # the distribution of the data at eta (16,)
    "normal": lambda eta: dist.Normal(eta, 0.3).to_event(1),
    "correlated": lambda eta: dist.MultivariateNormal(eta, 0.09 * np.exp(-DISTANCE / 2)),
    "lognormal": lambda eta: dist.LogNormal(eta, 0.3).to_event(1),
    "logistic": lambda eta: dist.Logistic(eta, 0.3).to_event(1),
    "poisson": lambda eta: dist.Poisson(jnp.exp(1 + eta)).to_event(1),
    "gamma": lambda eta: dist.Gamma(4.0, 4.0 * jnp.exp(-eta)).to_event(1),
    "bernoulli": lambda eta: dist.Bernoulli(logits=3 * eta).to_event(1),
    "censored": lambda eta: Censored(eta, 0.3, 0.0).to_event(1),
    "laplace": lambda eta: dist.Laplace(eta, 0.3).to_event(1),
    "student_t": lambda eta: dist.StudentT(4.0, eta, 0.3).to_event(1),
    "hurdle": lambda eta: bd.Hurdle(
        dist.Gamma(2.0, 2.0 * jnp.exp(-eta)), logits=1.5 * eta
    ).to_event(1),
}  # fmt: skip
LOG_CONCAVE = tuple(name for name in FAMILIES if name not in ("student_t", "hurdle"))
METHODS = {
    "moment_matching": partial(bd.MomentMatching, iterations=12),
    "fixed_covariance": bd.FixedCovariance,
}
CHAIN = {"draws": 8, "warmup": 300, "thin": 100, "spacing": 0.1}  # of the exact kernel


class Censored(dist.Distribution):
    """Normal, reported as `low` below it."""

    support = dist.constraints.real  # pyright: ignore[reportAssignmentType]
    pytree_data_fields = ("loc", "scale", "low")

    def __init__(self, loc, scale, low, *, validate_args=None):
        self.loc, self.scale, self.low = loc, scale, low
        super().__init__(jnp.shape(loc), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        return jnp.maximum(dist.Normal(self.loc, self.scale).sample(key, sample_shape), self.low)

    def log_prob(self, value):
        normal = dist.Normal(self.loc, self.scale)
        below = jax.scipy.stats.norm.logcdf((self.low - self.loc) / self.scale)
        return jnp.where(value <= self.low, below, normal.log_prob(value))


def problem() -> tuple[bd.GaussianPrior, bd.LinearOperator]:
    """The prior, with mean 0 and scale 1, and H."""
    grid = bd.Grid(55 - 0.25 * np.arange(LAT), -3 + 0.25 * np.arange(LON))
    times = np.datetime64("2020-03-01T00", "ns") + np.timedelta64(1, "h") * np.arange(TIMES)
    dt = np.abs(np.arange(TIMES)[:, None] - np.arange(TIMES))
    cov_space = bd.matern(grid.distances_km(), 120.0, 1.5)
    field = bd.GaussianField.separable(np.exp(-dt / 5), cov_space, (1, LAT, LON))
    levels = bd.NoiseLevels.covering(float(jnp.sqrt(field.variances.max())))
    standard = bd.Standardisation(jnp.zeros((5, 1, LAT, LON)), jnp.ones(1))
    prior = bd.GaussianPrior(field, standard, levels, bd.Coords(times, (bd.Variable("anomaly", "1"),), grid))
    return prior, bd.area_mean(grid, grid.coarsen(BLOCK)) @ bd.snapshots(times, times[::EVERY])


def program(prior, H, family, y=None):
    x = numpyro.sample("weather", prior)
    numpyro.sample("coarse", FAMILIES[family](H(x).ravel()), obs=y)


def reference(prior, H, family: str, y, key) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the field given y, (cells,) each: NUTS in eta, exact given eta."""
    n = int(np.prod(prior.event_shape))
    identity = jnp.eye(n).reshape(n, *prior.event_shape)
    A = np.asarray(jax.lax.map(lambda e: H(e).ravel(), identity, batch_size=64), np.float64).T
    cov = np.asarray(jax.lax.map(prior.field.covariance, identity, batch_size=64), np.float64).reshape(n, n)
    root = np.linalg.cholesky(A @ cov @ A.T)

    def model():
        z = numpyro.sample("z", dist.Normal(jnp.zeros(N_DATA), 1.0).to_event(1))
        numpyro.sample("y", FAMILIES[family](jnp.asarray(root, jnp.float32) @ z), obs=y)

    chains = {"num_chains": 10, "chain_method": "vectorized", "progress_bar": False}
    mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=1000, **chains)
    mcmc.run(key)
    eta = np.asarray(mcmc.get_samples()["z"], np.float64) @ root.T
    gain = cov @ A.T @ np.linalg.inv(A @ cov @ A.T)
    posterior = cov - gain @ A @ cov + gain @ np.cov(eta.T) @ gain.T
    return gain @ eta.mean(0), np.sqrt(np.diag(posterior))


def compare(draws: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> dict[str, float]:
    """How far draws (n, cells) are from the reference."""
    draws = draws.reshape(draws.shape[0], -1).astype(np.float64)
    error = draws.mean(0) - mean
    return {
        "mean_error": float(np.sqrt(np.mean((error / sd) ** 2))),
        "mean_error_relative": float(np.sqrt(np.mean(error**2) / np.mean(mean**2))),
        "sd_ratio": float(np.mean(draws.std(0) / sd)),
    }


def exact_draws(prior, H, family: str, y, key, n: int) -> tuple[np.ndarray, dict[str, float]]:
    """`n` draws of the field by noise-denoise Metropolis-Hastings, (n, *shape), and the mean of its statistics."""
    chain = load_recipe(find_recipe("inference", "noise_denoise_mh")).sampler
    settled, _ = bd.read_model(program, (prior, H, family), {"y": y})
    keys = jax.random.split(key, n // CHAIN["draws"])
    drawn = jax.jit(jax.vmap(chain(settled, prior, **CHAIN)))(keys)
    fields = np.asarray(drawn["field"]).reshape(-1, *prior.event_shape)
    return fields, {k.removeprefix("stats/"): float(v.mean()) for k, v in drawn.items() if k.startswith("stats/")}


def run(family: str, methods: dict[str, Callable], data_sets: int, n: int, steps: int) -> list[dict]:
    """Every method on the same data sets."""
    prior, H = problem()
    rows: list[dict] = []
    for seed in range(data_sets):
        k_truth, k_data, k_nuts, k_guided = jax.random.split(jax.random.key(seed), 4)
        y = FAMILIES[family](H(prior.sample(k_truth)).ravel()).sample(k_data)
        mean, sd = reference(prior, H, family, y, k_nuts)
        for name, guidance in methods.items():
            guided = bd.GuidedSDE(program, guidance=guidance, steps=steps, batch=256)
            posterior = guided.run(k_guided, prior, H, family, y=y, draws=n)
            row = {"family": family, "method": name, "data_set": seed, **compare(posterior.fields, mean, sd)}
            rows.append({**row, "products": float(posterior.stats["n_products"].mean())})
        fields, stats = exact_draws(prior, H, family, y, jax.random.fold_in(k_guided, 1), n)
        name = "noise_denoise_mh"
        rows.append({"family": family, "method": name, "data_set": seed, **compare(fields, mean, sd), **stats})
    return rows


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="Two families, one data set, few draws; about a minute.")
@click.option("--only", multiple=True, help="Families to run (default: all).")
def main(as_json: bool, quick: bool, only: tuple[str, ...]) -> None:
    """Guided draws under each likelihood against NUTS."""
    data_sets, n = (1, 512) if quick else (2, 2048)
    families = only or (("normal", "poisson") if quick else tuple(FAMILIES))
    print(f"{n} draws, 32 evaluations; Monte-Carlo error of the mean {n**-0.5:.3f} sd")
    print("family       method             mean error [sd]  relative  sd ratio  products")
    results = []
    for family in families:
        rows = run(family, METHODS, data_sets, n, 32)
        results += rows
        for name in (*METHODS, "noise_denoise_mh"):
            mine = [row for row in rows if row["method"] == name]
            average = lambda key, mine=mine: float(np.mean([row.get(key, 0) for row in mine]))
            print(
                f"{family:<12} {name:<17} {average('mean_error'):16.3f} {average('mean_error_relative'):9.3f} "
                f"{average('sd_ratio'):9.3f} {average('products'):9.1f}",
                flush=True,
            )
    if as_json:
        print(json.dumps({"benchmark": "likelihoods", "draws": n, "rows": results}))


if __name__ == "__main__":
    main()
