"""Make the prior of the twin climate that ships with the package: simulate, train, write.

    python tools/train_twin_prior.py --out bayesdownscale/prior/shipped/twin

Weather of the twin is made from seeds that nothing else uses, in stretches of 50 days. Started again, it goes on
where it stopped. The folder then also holds the weather and the state of the training, which are not shipped: only
`prior*` is.
"""

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from bayesdownscale.data.fields import Fields
from bayesdownscale.data.read import open_fields
from bayesdownscale.data.twin.planet import GRID, PLANET, geography
from bayesdownscale.data.twin.weather import twin
from bayesdownscale.data.write import write_atomic
from bayesdownscale.prior.network import UNetConfig
from bayesdownscale.prior.trained import train_prior
from bayesdownscale.prior.training import Progress, TrainingConfig

SEED, DAYS = 20_000, 50


def weather(stretches: int, folder: Path) -> Fields:
    """Hourly fields of `stretches` independent realizations, each from 1 January of another year; kept in `folder`."""
    key, parts = jax.random.key(SEED), []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(stretches):
        file = folder / f"weather-{i}.nc"
        if not file.exists():
            write_atomic(twin(jax.random.fold_in(key, i), f"{2001 + i}-01-01", DAYS).to_dataset(), file)
        parts.append(open_fields(file))
        print(f"stretch {i + 1} of {stretches}: sd {parts[-1].values.std((0, 2, 3)).round(2)}", flush=True)
    values, times = np.concatenate([p.values for p in parts]), np.concatenate([p.times for p in parts])
    coords = replace(parts[0].coords, times=times)
    return Fields(values, coords, f"twin climate, seed {SEED}, {stretches} stretches of {DAYS} days")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stretches", type=int, default=48)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--widths", default="16,24,32")
    parser.add_argument("--modes", type=int, default=192)
    parser.add_argument("--block", type=int, default=24)
    parser.add_argument("--tail", type=int, default=276)
    parser.add_argument("--sigma-min", type=float, default=0.01)
    parser.add_argument("--validate-every", type=int, default=300)
    arguments = parser.parse_args()
    fields = weather(arguments.stretches, arguments.out)
    land, height = geography(PLANET, *PLANET.metres(GRID.lat, GRID.lon))
    words = [arguments.out.name if word == str(arguments.out) else word for word in sys.argv[1:]]
    began = time.monotonic()

    def report(p: Progress) -> None:
        print(f"{p.step}: training {p.training_loss:.4f}, validation {p.validation_loss:.4f}, "
              f"linear {p.linear_loss:.4f}, {time.monotonic() - began:.0f} s", flush=True)  # fmt: skip

    train_prior(
        fields,
        arguments.out,
        window=13,
        network=UNetConfig(tuple(int(w) for w in arguments.widths.split(",")), blocks=1, dropout=0.0),
        training=TrainingConfig(
            steps=arguments.steps, batch=arguments.batch, validate_every=arguments.validate_every,
            learning_rate=1e-3, warmup=100, weight_decay=0.05, amplitude=0.0, ema=0.995,
        ),
        statics=np.stack([land, height], axis=-1),
        validation_share=1 / 48,
        n_modes=arguments.modes,
        block=arguments.block,
        n_tail=arguments.tail,
        shrink=(0.0, 0.0),  # 2400 days of weather need none
        floor=1e-10,
        sigma_min=arguments.sigma_min,
        provenance={"command": " ".join(["python tools/train_twin_prior.py", *words])},
        on_progress=report,
    )  # fmt: skip


if __name__ == "__main__":
    main()
