"""How often do tests of calibration fail what is right and find what is wrong? `python -m benchmarks.calibration`.

Fields of some hours x 12 x 12 cells, covariance exp(-|dt| / 6 h) x exp(-distance / length) in cells, are drawn for the
truth and for an ensemble that is calibrated, 30 % too narrow, or shifted by half a standard deviation. Reported is how
often each test has p <= 0.05: the rate of false alarms (asked for: 3 to 8 %), and the power (asked for: 90 %). Half a
day of a long correlation is a handful of independent patches, too few for tests of values; five days are not. Of
simulation-based calibration, ranks of two functionals of a Gaussian posterior, and TARP of both, over 300 replicates
with 31 draws.
"""

import json

import click
import numpy as np
import xarray as xr

import bayesdownscale as bd
from bayesdownscale.diagnostics.calibration import exchangeability, piet_c
from bayesdownscale.diagnostics.scores import pit

CELLS, LEVEL = 12, 0.05
CASES = ((2.0, 13, 100, 1), (4.0, 13, 50, 1), (4.0, 121, 50, 3))  # length [cells], hours, members, fewer replicates
SHIFT = 0.5  # [sd]
DIMS = ("time", "lat", "lon")


def roots(length: float, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Square roots of the covariance in time and in space."""
    place = np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS), indexing="ij"), -1).reshape(-1, 2)
    distance = np.linalg.norm(place[:, None] - place[None], axis=-1)
    hours = np.abs(np.arange(times)[:, None] - np.arange(times))
    return np.linalg.cholesky(np.exp(-hours / 6)), np.linalg.cholesky(np.exp(-distance / length))


def field_tests(
    length: float, times: int, members: int, replicates: int, scale: float = 1.0, shift: float = 0.0
) -> dict[str, float]:
    """How often each test of one truth rejects an ensemble whose spread is `scale` times right, `shift` too high."""
    rng, rejected = np.random.default_rng(0), []
    in_time, in_space = roots(length, times)
    axes = {"time": np.arange(times), "lat": 50.0 + np.zeros(CELLS), "lon": np.arange(CELLS)}
    for k in range(replicates):
        noise = rng.standard_normal((members + 1, times, CELLS**2))
        fields = (in_time @ noise @ in_space.T).reshape(-1, times, CELLS, CELLS)
        truth = xr.DataArray(fields[0], axes, DIMS)
        ensemble = xr.DataArray(scale * fields[1:] + shift, axes, ("draw", *DIMS))
        p = exchangeability(ensemble, truth)
        rejected.append({str(t): float(p.sel(test=t)) <= LEVEL for t in p["test"].values})
        rejected[-1]["piet_c"] = piet_c(pit(ensemble, truth, k)) <= LEVEL
    return {name: float(np.mean([row[name] for row in rejected])) for name in rejected[0]}


def nearer(drawn: np.ndarray, truth: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """How many of `drawn` (quantity, replicate, draw) are nearer to the reference than the truth: (replicate,)."""
    pool = np.concatenate([drawn, truth[..., None]], -1)
    distance = np.sum(((pool - reference[..., None]) / pool.std(-1, keepdims=True)) ** 2, 0)
    return np.sum(distance[:, :-1] < distance[:, -1:], -1)


def rank_tests(scale: float, studies: int, replicates: int = 300, draws: int = 31) -> dict[str, float]:
    """How often KS tests of ranks reject a Gaussian posterior `scale` times as wide as it should be."""
    rng, rejected = np.random.default_rng(1), []
    for _ in range(studies):
        mean = 2 * rng.standard_normal((2, replicates))  # of the posterior, given data
        truth = mean + rng.standard_normal(mean.shape)
        drawn = mean[..., None] + scale * rng.standard_normal((*mean.shape, draws))
        reference = np.sqrt(5.0) * rng.standard_normal(mean.shape)  # from the prior
        rank = np.concatenate([(drawn < truth[..., None]).sum(-1), nearer(drawn, truth, reference)[None]])
        names = {"quantity": ["first", "second", "tarp"]}
        p = bd.uniformity(xr.Dataset({"rank": (("quantity", "replicate"), rank)}, names, {"draws": draws}))["p"]
        rejected.append({"sbc": float(p[0]) <= LEVEL, "tarp": float(p[2]) <= LEVEL})
    return {name: float(np.mean([row[name] for row in rejected])) for name in rejected[0]}


def show(rows: list[dict]) -> None:
    for row in rows:
        size = "    -      -" if row["length"] is None else f"{row['length']:5.0f} {row['hours']:6d}"
        shifted = "-" if row["power_shift"] is None else f"{row['power_shift']:.3f}"
        print(
            f"{size}  {row['members']:7d}  {row['test']:<10} {row['alarms']:13.3f} {row['power']:23.3f} {shifted:>23}",
            flush=True,
        )


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--quick", is_flag=True, help="A twentieth of the replicates; about a minute.")
def main(as_json: bool, quick: bool) -> None:
    """False alarms and power of the tests of calibration."""
    rows = []
    print("cells  hours  members  test        false alarms  power, 30 % too narrow  power, 0.5 sd too high")
    for length, times, members, fewer in CASES:
        many, some = (50 // fewer, 20 // fewer) if quick else (1000 // fewer, 400 // fewer)
        right = field_tests(length, times, members, many)
        narrow = field_tests(length, times, members, some, scale=0.7)
        high = field_tests(length, times, members, some, shift=SHIFT)
        of = {"length": length, "hours": times, "members": members}
        rows += [{**of, "test": t, "alarms": right[t], "power": narrow[t], "power_shift": high[t]} for t in right]
        show(rows[-len(right) :])
    right, narrow = rank_tests(1.0, 50 if quick else 1000), rank_tests(0.7, 20 if quick else 400)
    of = {"length": None, "hours": None, "members": 31, "power_shift": None}
    rows += [{**of, "test": t, "alarms": right[t], "power": narrow[t]} for t in right]
    show(rows[-len(right) :])
    if as_json:
        print(json.dumps({"benchmark": "calibration", "rows": rows}))


if __name__ == "__main__":
    main()
