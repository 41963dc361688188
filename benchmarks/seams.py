"""Do seams show? Between jobs and between windows, on the prior of the twin climate: `python -m benchmarks.seams`.

Weather of the twin climate that the prior was not trained on, observed as in `benchmarks.twin`, is drawn three times
with the same noise: in jobs of a day, in one job, and in one job with windows twice as close. The same noise makes the
comparison exact but for what seams change, so that few members do:

- the gap: how far jobs are from one job in the hours beside a seam, in standard deviations of the posterior;
- second differences in time that reach over a seam: their mean square in jobs over that in one job;
- lag-1 autocorrelation of anomalies over a seam, in jobs and in one job;
- the same of seams between windows: one job over the one with closer windows, whose seams lie at other hours, and the
  mean square of second differences over that of the truth, at each hour between two data.

The standard deviation of the posterior is that of the error of a draw over the root of two.
"""

import json
from typing import Any

import click
import jax
import numpy as np

import bayesdownscale as bd
from bayesdownscale.demo import EVERY, TWIN_BLOCK, TWIN_NOISE_SD, coarsen
from bayesdownscale.ensemble.guide import GUIDANCE
from bayesdownscale.ensemble.plan import Plan
from bayesdownscale.ensemble.problem import CoarseInMemory, Problem
from bayesdownscale.ensemble.solve import Solver, windows_of
from bayesdownscale.prior.windows import window_layout
from bayesdownscale.recipes import find_recipe, load_recipe

HOUR = np.timedelta64(1, "h")


def drawn(problem: Problem, hours: int, span: int, stride: int | None, members: int, how: dict[str, Any]):
    """Members (member, time, variable, lat, lon) in physical units, and the plan; `how` goes to `Solver`."""
    seen, _ = problem.cadence
    window = windows_of(problem.prior).window
    halo = Plan.of(seen, HOUR, window, members).halo
    plan = Plan.of(seen, HOUR, window, members, span * HOUR, halo, stride)
    solver = Solver(problem, plan, seed=0, batch=16, **how)
    spans = [np.concatenate([np.asarray(solver([m], k)) for m in range(members)]) for k in range(plan.spans)]
    return np.concatenate(spans, axis=1)[:, :hours], plan


def curvature(x: np.ndarray) -> np.ndarray:
    """Squares of second differences around each time step but the first and last, means over members and cells:
    (time - 2, variable)."""
    return np.square(np.diff(x, n=2, axis=-4)).mean((0, -2, -1))


def lag_one(x: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Correlation of steps at - 1 and at, of departures from the mean of each cell over time: (variable,)."""
    x = x - x.mean(1, keepdims=True)
    a, b = x[:, at - 1], x[:, at]
    over = (0, 1, 3, 4)
    return (a * b).mean(over) / np.sqrt(np.square(a).mean(over) * np.square(b).mean(over))


def window_seams(plan: Plan) -> np.ndarray:
    """Hours of the record whose window is another than that of the hour before."""
    _, chosen, _ = window_layout(plan.block, plan.window, plan.stride)
    at = np.flatnonzero(np.diff(chosen)) + 1 + plan.first(0)
    return at[(at > 1) & (at < plan.length - 1)]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--days", default=6, show_default=True)
@click.option("--members", default=1, show_default=True)
@click.option("--steps", default=16, show_default=True)
@click.option("--guidance", type=click.Choice(list(GUIDANCE)), default="moment_matching", show_default=True)
def main(as_json: bool, days: int, members: int, steps: int, guidance: str) -> None:
    """Seams of jobs and of windows on the twin climate."""
    truth = bd.twin(jax.random.key(40_000), "2201-01-01", days)
    coarse = coarsen(truth, jax.random.key(1), TWIN_BLOCK, EVERY, TWIN_NOISE_SD)
    model = load_recipe(find_recipe("models", "area_mean")).model
    problem = Problem(bd.load_prior("twin"), CoarseInMemory(coarse), model, {"sigma": TWIN_NOISE_SD})
    hours = int((coarse.times[-1] - coarse.times[0]) / HOUR) + 1
    how = {"steps": steps, "guidance": GUIDANCE[guidance]}
    jobs, plan = drawn(problem, hours, 24, None, members, how)
    one, whole = drawn(problem, hours, hours, None, members, how)
    closer, close = drawn(problem, hours, hours, plan.stride // 2, members, how)
    names = [v.name for v in truth.variables]
    at = np.arange(plan.span, hours - 1, plan.span)
    around = np.concatenate([at - 2, at - 1])  # rows of `curvature` that reach over a seam
    error = np.sqrt(np.square(one - truth.values[:hours]).mean((0, 1, 3, 4)) / 2)  # a draw and the truth: twice
    gap = np.sqrt(np.square(jobs - one)[:, np.concatenate([at - 1, at])].mean((0, 1, 3, 4))) / error
    ratio = curvature(jobs)[around].mean(0) / curvature(one)[around].mean(0)
    per = lambda values: dict(zip(names, np.round(values.astype(float), 5).tolist(), strict=True))
    windows = window_seams(whole)
    beside = np.concatenate([windows - 2, windows - 1])
    elsewhere = np.setdiff1d(np.arange(hours - 2), beside)
    known = curvature(truth.values[None, :hours]).mean(0)
    phases = [np.arange((k - 1) % EVERY, hours - 2, EVERY) for k in range(EVERY)]
    result = {
        "benchmark": "seams", "hours": hours, "members": members, "steps": steps, "guidance": guidance,
        "span": plan.span, "halo": plan.halo, "stride": plan.stride,
        "jobs": {
            "seams": at.size,
            "gap_in_posterior_sd": per(gap),
            "second_difference_ratio": per(ratio),
            "autocorrelation": per(lag_one(jobs, at)),
            "autocorrelation_in_one_job": per(lag_one(one, at)),
        },
        "windows": {
            "seams": windows.size,
            "second_difference_ratio_at_seams": per(curvature(one)[beside].mean(0) / curvature(closer)[beside].mean(0)),
            "second_difference_ratio_elsewhere": per(
                curvature(one)[elsewhere].mean(0) / curvature(closer)[elsewhere].mean(0)
            ),
            "autocorrelation_at_seams": per(lag_one(one, windows)),
            "autocorrelation_with_closer_windows": per(lag_one(closer, windows)),
            "stride_of_closer_windows": close.stride,
            "hours_after_a_datum_of_seams": np.unique(windows % EVERY).tolist(),
            "over_truth_by_hours_after_a_datum": [per(curvature(one)[p].mean(0) / known) for p in phases],
            "closer_over_truth": [per(curvature(closer)[p].mean(0) / known) for p in phases],
        },
    }  # fmt: skip
    for kind in ("jobs", "windows"):
        for name, value in result[kind].items():
            print(f"{kind}: {name} {json.dumps(value)}")
    if as_json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
