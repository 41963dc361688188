"""What a network in bfloat16 changes: draws by the same keys, their scores, and what they cost.

    python -m benchmarks.precision --json

The first window of `benchmarks.era5_uk`: 25 hours of ERA5 that the shipped prior has not seen, block means of 8 x 8
cells every six hours. Draws by the same keys in float32 and in bfloat16 are compared: root mean square over cells and
hours of their difference, over that of the posterior's standard deviation (independent draws are 1.41 apart). The CRPS
of the two has the same Monte-Carlo error, since the keys are the same. Seconds are those of the processor, which has
no units for bfloat16 unless its name says so.
"""

import json
import time

import click
import jax
import numpy as np

import bayesdownscale as bd
from bayesdownscale.data.datasets import split
from bayesdownscale.demo import NOISE_SD, coarsen
from bayesdownscale.recipes import find_recipe, load_recipe
from benchmarks.era5_uk import HOURS, labelled


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--draws", default=8, show_default=True)
@click.option("--steps", default=32, show_default=True)
def main(as_json: bool, draws: int, steps: int) -> None:
    """bfloat16 against float32."""
    truth = split(bd.era5_uk())[1].isel_times(slice(0, HOURS))
    coarse = coarsen(truth, jax.random.key(0))
    model = load_recipe(find_recipe("models", "area_mean")).model
    known, shipped = labelled(truth, truth.values[None])[0], bd.load_prior()
    rows, fields = {}, {}
    for name, prior in {"float32": shipped, "bfloat16": bd.in_bfloat16(shipped)}.items():
        prior = prior.at(truth.times)
        H = bd.area_mean(prior.grid, coarse.grid) @ bd.snapshots(prior.times, coarse.times)
        marks = []
        posterior = bd.GuidedSDE(model, steps=steps, batch=1).run(
            jax.random.key(1), prior, H, y=coarse, sigma=NOISE_SD, draws=draws,
            on_batch=lambda done, marks=marks: marks.append(time.process_time()),
        )  # fmt: skip
        fields[name] = posterior.fields
        rows[name] = {
            "crps": float(bd.crps(labelled(truth, posterior.fields), known).mean()),
            "spread": float(np.sqrt(posterior.fields.var(0, ddof=1).mean())),
            "processor_seconds_a_draw": (marks[-1] - marks[0]) / (draws - 1),
        }
        print(f"{name:<9} CRPS {rows[name]['crps']:.4f} K, spread {rows[name]['spread']:.4f} K, "
              f"{rows[name]['processor_seconds_a_draw']:.1f} s a draw", flush=True)  # fmt: skip
    root = lambda a: float(np.sqrt(np.mean(np.square(a))))
    difference = fields["bfloat16"] - fields["float32"]
    result = {
        "benchmark": "precision",
        "draws": draws,
        "steps": steps,
        "rows": rows,
        "apart_in_posterior_sd": root(difference) / rows["float32"]["spread"],
        "largest_difference": float(np.abs(difference).max()),
        "mean_shift_in_posterior_sd": root(difference.mean(0)) / rows["float32"]["spread"],
        "device": jax.devices()[0].device_kind,
    }
    print(f"draws by the same keys are {result['apart_in_posterior_sd']:.4f} posterior standard deviations apart")
    if as_json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
