"""The command line. Thin: it parses, calls and prints; heavy packages are imported inside the commands."""

from pathlib import Path

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="bayesdownscale")
def main() -> None:
    """Bayesian downscaling: a diffusion prior, a NumPyro likelihood, a calibrated posterior."""


@main.command()
@click.argument("data", type=str)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the prior.")
@click.option("--steps", default=20_000, show_default=True)
@click.option("--batch", default=16, show_default=True)
@click.option("--window", default=25, show_default=True, help="Time steps seen at once.")
@click.option("--widths", default="32,64,96", show_default=True)
@click.option("--blocks", default=2, show_default=True)
@click.option("--learning-rate", default=1e-3, show_default=True)
@click.option("--dropout", default=0.1, show_default=True)
@click.option("--weight-decay", default=0.05, show_default=True)
@click.option("--validate-every", default=250, show_default=True)
@click.option("--seed", default=0, show_default=True)
def train(data, out, steps, batch, window, widths, blocks, learning_rate, dropout, weight_decay, validate_every, seed):
    """Train a prior."""
    from bayesdownscale.data.datasets import era5_uk, split
    from bayesdownscale.prior.network import UNetConfig
    from bayesdownscale.prior.trained import train_prior
    from bayesdownscale.prior.training import TrainingConfig
    import sys
    fields, _ = split(era5_uk())
    train_prior(fields, out, window=window,
        network=UNetConfig(widths=tuple(map(int, widths.split(","))), blocks=blocks, dropout=dropout),
        training=TrainingConfig(steps=steps, batch=batch, learning_rate=learning_rate, weight_decay=weight_decay, validate_every=validate_every, seed=seed),
        provenance={"command": "bayesdownscale " + " ".join(sys.argv[1:])},
        on_progress=lambda p: print(p, flush=True))

if __name__ == "__main__":
    main()
