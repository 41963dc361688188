"""The command line. Thin: it parses, calls and prints; heavy packages are imported inside the commands."""

from pathlib import Path
from typing import Any

import click

from bayesdownscale.cli_data import data
from bayesdownscale.options import (
    at_option,
    guidance_option,
    overwrite_option,
    parse_days,
    parse_settings,
    parse_span,
    parse_words,
    path,
    precision_option,
    seed_option,
    stamp_option,
)
from bayesdownscale.progress import progress_bar
from bayesdownscale.study import Study, command_line, prior_from, problem_from_files

EXPECTED = (ValueError, ChildProcessError, FileExistsError, FileNotFoundError, FloatingPointError, PermissionError)


class OneSentence(click.Group):
    """A group whose commands end bad input with one sentence and exit code 1, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except EXPECTED as error:
            raise click.ClickException(" ".join(str(error).split())) from None


@click.group(cls=OneSentence, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="bayesdownscale")
def main() -> None:
    """Bayesian downscaling: a diffusion prior, a NumPyro likelihood, a calibrated posterior."""


main.add_command(data)


@main.command(epilog="Example: bayesdownscale train era5-uk --out prior --steps 5000")
@click.argument("data", nargs=-1, required=True)
@at_option
@click.option("--out", type=path, required=True, help="Folder of the prior; an unfinished run there goes on.")
@click.option("--variable", "variables", multiple=True, help="Variable to learn (repeat; default: all).")
@click.option("--static", type=path, help="NetCDF of fields (lat, lon) such as orography and land-sea mask.")
@click.option("--window", default=25, show_default=True, help="Time steps seen at once.")
@click.option("--widths", default="32,64,96", show_default=True, help="Channels of each level of the network.")
@click.option("--blocks", default=1, show_default=True, help="Residual blocks a level.")
@click.option("--dropout", default=0.2, show_default=True)
@click.option("--modes", default=100, show_default=True, help="Modes of the Gaussian, each with a basis in time.")
@click.option("--tail", default=400, show_default=True, help="Modes after those, which share one.")
@click.option("--steps", default=5000, show_default=True, help="Training steps at most.")
@click.option("--batch", default=16, show_default=True, help="Windows a step, shared by all devices.")
@click.option("--accumulate", default=1, show_default=True, help="Parts of a batch, one after the other.")
@click.option("--on-disk", is_flag=True, help="Leave the data on disk: for data larger than memory.")
@click.option("--learning-rate", default=5e-4, show_default=True)
@click.option("--weight-decay", default=0.1, show_default=True)
@click.option("--validate-every", default=250, show_default=True, help="Steps between validations (and saves).")
@seed_option
def train(data, at, out, variables, static, window, widths, blocks, dropout, modes, tail, steps, batch, accumulate,
          on_disk, learning_rate, weight_decay, validate_every, seed):  # fmt: skip
    """Train a prior on DATA: NetCDF, Zarr or GRIB with dimensions time, lat, lon, files that follow each other in time
    or their names with wildcards, or the name era5-uk."""
    from bayesdownscale.data.datasets import era5_uk, split
    from bayesdownscale.data.lazy import open_lazy
    from bayesdownscale.data.read import open_fields
    from bayesdownscale.data.results import open_statics
    from bayesdownscale.prior.network import UNetConfig
    from bayesdownscale.prior.trained import train_prior
    from bayesdownscale.prior.training import Progress, TrainingConfig

    read = open_lazy if on_disk else open_fields
    known = data == ("era5-uk",)
    fields = split(era5_uk())[0] if known else read(data, list(variables) or None, at=parse_words(at))
    settings = TrainingConfig(
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        validate_every=validate_every,
        seed=seed,
    )

    with progress_bar("training", steps) as advance:

        def report(p: Progress) -> None:
            better = 100 * (1 - p.best_loss / p.linear_loss)
            advance.note(f"validation {p.validation_loss:.4f}, best {better:+.1f} % on the linear denoiser")

        train_prior(
            fields,
            out,
            window=window,
            network=UNetConfig(tuple(int(w) for w in widths.split(",")), blocks, dropout=dropout),
            training=settings,
            statics=None if static is None else open_statics(static, fields.grid),
            n_modes=modes,
            n_tail=tail,
            provenance={"command": command_line(out)},
            on_progress=report,
            on_step=advance,
        )
    click.echo(f"prior written to {out}")


@main.command(epilog="Example: bayesdownscale downscale esm.nc --out posterior.zarr --set sigma=0.05")
@click.argument("coarse", nargs=-1, required=True)
@at_option
@click.option("--out", type=path, required=True, help="Posterior, an ArviZ DataTree: .zarr or .nc.")
@click.option("--cf", type=path, help="Also the members as CF NetCDF or Zarr with a realization dimension.")
@click.option("--prior", "prior_folder", type=path, help="Folder of a trained prior, or era5-uk (default) or twin.")
@click.option("--name", "names", multiple=True, metavar="OURS=THEIRS", help="What the file calls a variable: t2m=tas.")
@click.option("--units", multiple=True, metavar="NAME=UNITS", help="Units of a variable where the file lacks them.")
@stamp_option
@click.option("--model", default="area_mean", show_default=True, help="Program in models/, or a path.")
@click.option("--inference", help="Recipe in inference/, or a path (default: the engine's guided SDE).")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Fix an argument of the model.")
@click.option("--members", default=16, show_default=True, help="Draws.")
@click.option("--steps", default=32, show_default=True, help="Evaluations of the network a draw.")
@click.option("--batch", default=8, show_default=True, help="Draws in memory at once.")
@precision_option
@seed_option
@overwrite_option
def downscale(coarse, at, out, cf, prior_folder, names, units, stamp, model, inference, settings, members, steps,
              batch, precision, seed, overwrite):  # fmt: skip
    """Draw fine fields given COARSE, a NetCDF, Zarr or GRIB file of coarse fields, or the address of one.

    Several files, or one name with wildcards in quotes ('tas_*.nc'), follow each other in time, or hold a variable
    each. Whether its values are snapshots or means it says itself, in cell_methods and time_bnds."""
    from bayesdownscale.data.coarse import open_coarse
    from bayesdownscale.data.write import check_output

    for output in filter(None, (out, cf)):
        check_output(output, overwrite)
    prior = prior_from(prior_folder, precision)
    called = {v.name: v.name for v in prior.variables} | parse_words(names)
    fields = open_coarse(coarse, prior, called, units=parse_words(units), at=parse_words(at))
    if stamp is not None:
        fields = fields.stamped_at(stamp)
    needed = fields.first_and_last(prior.times[1] - prior.times[0])
    study = Study(prior.spanning(needed), fields, model, parse_settings(settings))
    tree = study.run(out, inference, members, steps, batch, seed)
    study.write(tree, out, cf, overwrite)
    click.echo(f"{members} members written to {out}")


@main.command(epilog="Example: bayesdownscale ensemble esm.nc --members 30 --set sigma=0.05 --out ens.zarr")
@click.argument("coarse", nargs=-1, required=True)
@at_option
@click.option("--out", type=path, required=True, help="Zarr store; an unfinished run there goes on.")
@click.option("--prior", "prior_folder", type=path, help="Folder of a trained prior, or era5-uk (default) or twin.")
@click.option("--name", "names", multiple=True, metavar="OURS=THEIRS", help="What the file calls a variable: t2m=tas.")
@click.option("--units", multiple=True, metavar="NAME=UNITS", help="Units of a variable where the file lacks them.")
@stamp_option
@click.option("--model", default="area_mean", show_default=True, help="Program in models/, or a path.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Fix an argument of the model.")
@click.option("--members", default=16, show_default=True, help="Draws of the whole record.")
@click.option("--span", default="30D", show_default=True, help="Time that one job draws: 36h, 10D or 2W.")
@click.option("--steps", default=32, show_default=True, help="Evaluations of the network a draw.")
@click.option("--batch", type=int, help="Windows in memory at once (default: all of a span).")
@click.option("--workers", default=1, show_default=True, help="Processes of one thread; 1: this one, all threads.")
@click.option("--job-index", default=0, show_default=True, help="Which share of the jobs to do, from 0 ...")
@click.option("--num-jobs", default=1, show_default=True, help="... of how many: for array jobs of a cluster.")
@click.option("--verify", is_flag=True, help="Compare finished chunks with their checksums; do bad ones again.")
@guidance_option
@precision_option
@seed_option
def ensemble(coarse, at, out, prior_folder, names, units, stamp, model, settings, members, span, steps, batch, workers,
             job_index, num_jobs, verify, guidance, precision, seed):  # fmt: skip
    """Draw an ensemble of a record of any length given COARSE, snapshots or means over intervals of one length; run
    it again to go on after an interruption."""
    from functools import partial

    from bayesdownscale.ensemble.executors import Processes, Serial
    from bayesdownscale.ensemble.guide import GUIDANCE
    from bayesdownscale.ensemble.run import Ensemble

    files = prior_folder, coarse, model, parse_settings(settings)
    called, given, level = (parse_words(each) for each in (names, units, at))
    build = partial(problem_from_files, *files, called, given, precision, stamp, level)
    run = Ensemble(
        build, out, members=members, span=parse_span(span), steps=steps, seed=seed, batch=batch,
        guidance=GUIDANCE[guidance],
    )  # fmt: skip
    plan, share = run.plan, len(run.plan.jobs()[job_index::num_jobs])
    click.echo(f"{members} members x {plan.spans} spans of {plan.span} time steps: {share} jobs to do here", err=True)
    executor = Processes(workers) if workers != 1 else Serial()
    attrs = {"command": command_line(out), "coarse": " ".join(coarse)}
    with progress_bar("drawing spans", share) as advance:
        damaged = run.run(executor, share=(job_index, num_jobs), verify=verify, on_done=advance, attrs=attrs)
    for job in damaged:
        click.echo(f"member {job.member}, span {job.span} was damaged and is drawn again")
    click.echo(f"{share} jobs done, in {out}")


@main.command(epilog="Example: bayesdownscale correct esm.nc --reference obs.nc --ratio pr --wet pr=1 --out better.nc")
@click.argument("model", nargs=-1, required=True)
@at_option
@click.option("--reference", help="Fields to agree with, on the same cells or finer ones; wildcards for several files.")
@click.option("--reference-at", multiple=True, metavar="DIM=VALUE", help="Level or member of the reference.")
@click.option("--fitted", type=path, help="Instead of --reference: a folder of corrections that --save kept.")
@click.option("--save", type=path, help="Folder to keep the corrections in, to use again.")
@click.option("--past", help="The model in the time of the reference (default: MODEL).")
@click.option("--out", type=path, required=True, help="NetCDF of the corrected fields.")
@click.option("--learn", metavar="FIRST/LAST", help="Days of past and reference to learn from (default: all).")
@click.option("--variable", "variables", multiple=True, help="Variable to correct (repeat; default: all they share).")
@click.option(
    "--method",
    type=click.Choice(["eqm", "dqm", "qdm", "mbcn"]),
    default="qdm",
    show_default=True,
    help="mbcn: several variables together; needs the extra bayesdownscale[mbcn].",
)
@click.option("--window", type=int, help="Days of a moving window (default: calendar months).")
@click.option("--ratio", "ratios", multiple=True, metavar="NAME", help="Variable whose ratios are kept, as rain.")
@click.option("--wet", multiple=True, metavar="NAME=VALUE", help="Below it is dry: make up for missing wet days.")
@click.option("--units", multiple=True, metavar="NAME=UNITS", help="Units of the model where the file lacks them.")
@overwrite_option
def correct(model, at, reference, reference_at, fitted, save, past, out, learn, variables, method, window, ratios, wet,
            units, overwrite):  # fmt: skip
    """Correct the bias of a coarse MODEL, one file or several, by quantile mapping against a reference."""
    from bayesdownscale.data.correct import apply, correct, in_period, load_corrections, save_corrections, with_units
    from bayesdownscale.data.read import open_fields
    from bayesdownscale.data.write import as_cf, check_output, write_atomic

    check_output(out, overwrite)
    wanted, named = list(variables) or None, parse_words(units)
    if method == "mbcn" and save is not None:
        raise ValueError("expected eqm, dqm or qdm to --save, got mbcn, which is learned anew; leave --save out")
    if (reference is None) == (fitted is None):
        raise ValueError("expected --reference to learn from or --fitted corrections, got both or none; give one")
    level = parse_words(at)
    own = with_units(open_fields(model, wanted, at=level), named)
    said = {"title": "Weather of a coarse climate model, its bias corrected", "history": command_line(out)}
    if fitted is not None:
        corrections = load_corrections(fitted)
        better, methods = (
            apply(own, corrections),
            sorted({str(c.parameters.attrs["method"]) for c in corrections.values()}),
        )
        said |= {"bias_correction": ", ".join(methods), "reference": f"corrections in {fitted}"}
        write_atomic(as_cf(better.to_dataset(), better.grid, said), out, overwrite)
        click.echo(f"{len(better.variables)} variables, {better.times.size} times, corrected and written to {out}")
        return
    before = own if past is None else with_units(open_fields(past, wanted, at=level), named)
    known = open_fields(reference, wanted, at=parse_words(reference_at))
    if learn is not None:
        days = parse_days(learn)
        before, known = (in_period(f, *days, what) for f, what in ((before, "the model"), (known, "the reference")))
    better, corrections = correct(own, known, before, method, ratios, parse_settings(wet), window)
    if save is not None:
        save_corrections(corrections, save, overwrite)
    said |= {"bias_correction": method, "reference": str(reference)}
    write_atomic(as_cf(better.to_dataset(), better.grid, said), out, overwrite)
    click.echo(f"{len(better.variables)} variables, {better.times.size} times, corrected and written to {out}")


@main.command(epilog="Example: bayesdownscale report posterior.zarr --truth fine.nc --out report.html")
@click.argument("posterior", type=path)
@click.option("--out", type=path, default=Path("report.html"), show_default=True)
@click.option("--truth", type=path, help="Fine fields to score against.")
@click.option("--compare", "others", type=path, multiple=True, help="Another posterior of the same data; repeatable.")
@click.option("--training", type=path, help="Past fine fields, for climatology and BCSD among the baselines.")
@overwrite_option
def report(posterior, out, truth, others, training, overwrite):
    """Judge a POSTERIOR: one HTML file and a JSON file with every number beside it."""
    from bayesdownscale.data.coarse import open_coarse
    from bayesdownscale.data.results import coords_of, open_posterior, open_truth
    from bayesdownscale.diagnostics.report import report as write_report
    from bayesdownscale.memory import return_freed_memory

    return_freed_memory()
    tree = open_posterior(posterior)
    known = None if truth is None else open_truth(truth, tree)
    beside = {str(other): open_posterior(other) for other in others}
    past = None if training is None else open_coarse(training, coords_of(tree))
    page = write_report(tree, out, truth=known, compare=beside, training=past, overwrite=overwrite)
    click.echo(f"report written to {page}")


@main.command(epilog="Example: bayesdownscale demo --out demo")
@click.option("--out", type=path, default=Path("demo"), show_default=True, help="Folder for the results.")
@click.option(
    "--data",
    type=click.Choice(["twin", "prior", "era5-uk"]),
    default="twin",
    show_default=True,
    help="Truth: weather of the twin climate, a draw from the prior of UK temperature, or a day of its ERA5 test week.",
)
@click.option("--members", default=16, show_default=True, help="Draws.")
@click.option("--steps", default=32, show_default=True, help="Evaluations of the network a draw.")
@seed_option
@overwrite_option
def demo(out, data, members, steps, seed, overwrite):
    """Downscale weather whose truth is known, from coarse blocks every 6 hours, and judge the members against it."""
    from bayesdownscale.data.write import as_cf, check_output, write_atomic
    from bayesdownscale.demo import demo_truth
    from bayesdownscale.diagnostics.report import report as write_report

    out.mkdir(parents=True, exist_ok=True)
    for name in ("truth.nc", "coarse.nc", "posterior.zarr"):
        check_output(out / name, overwrite)
    page = out / "report.html"
    if page.exists() and not overwrite:
        raise FileExistsError(f"{page} exists; choose another --out or pass --overwrite")
    click.echo("making the truth and its coarse view")
    prior, truth, coarse, noise_sd = demo_truth(data, seed)
    write_atomic(as_cf(truth.to_dataset(), truth.grid, {"title": "Truth of the demo"}), out / "truth.nc", overwrite)
    write_atomic(as_cf(coarse.to_dataset(), coarse.grid, {"title": "Coarse view of it"}), out / "coarse.nc", overwrite)
    study = Study(prior, coarse, "area_mean", {"sigma": noise_sd})
    tree = study.run(out / "posterior.zarr", None, members, steps, 8, seed)
    study.write(tree, out / "posterior.zarr", None, overwrite)
    write_report(tree, page, truth=truth, overwrite=overwrite)
    click.echo(f"posterior written to {out / 'posterior.zarr'}, report to {page}")


@main.command(epilog="Example: bayesdownscale new my_study")
@click.argument("study", type=path)
def new(study):
    """Copy the programs (models/, inference/) into a folder STUDY of your own, with a script to start from."""
    from bayesdownscale.recipes import copy_recipes

    copy_recipes(study)
    click.echo(f"study written to {study}; start with {study / 'study.py'}")
