"""The commands that list, show and get public data sets."""

import click

from bayesdownscale.options import overwrite_option, parse_words, path
from bayesdownscale.study import command_line


@click.group()
def data() -> None:
    """Public data sets: list, show and get them."""


@data.command("list", epilog="Example: bayesdownscale data list")
def list_() -> None:
    """The data sets, a line each."""
    from bayesdownscale.data.catalogue import list_data

    for name, what in list_data().items():
        click.echo(f"{name:20} {what}")


@data.command(epilog="Example: bayesdownscale data show arco-era5")
@click.argument("name")
def show(name):
    """Licence, address, variables and notes of the data set NAME."""
    from bayesdownscale.data.catalogue import described

    click.echo(described(name))


@data.command(
    epilog="Example: bayesdownscale data get arco-era5 --region 50,58,-10,2 --times 2019-03-01/2019-03-31 --out uk.nc"
)
@click.argument("name")
@click.option("--out", type=path, help="CF NetCDF or Zarr to write (era5-uk: none, its file is fetched as it is).")
@click.option("--variable", "variables", multiple=True, help="Variable, by CMIP's name (repeat; default: all).")
@click.option("--times", metavar="FIRST/LAST", help="Dates to keep, both ends included.")
@click.option("--region", metavar="S,N,W,E", help="South, north, west, east in degrees.")
@click.option("--choose", multiple=True, metavar="PART=VALUE", help="A part of the address, such as month=199502.")
@click.option("--address", help="A copy of yours, laid out as the original.")
@overwrite_option
def get(name, out, variables, times, region, choose, address, overwrite):
    """Get the data set NAME, or a part of it."""
    from bayesdownscale.data.catalogue import open_data
    from bayesdownscale.data.datasets import fetch
    from bayesdownscale.data.write import as_cf, check_output, write_atomic

    if name == "era5-uk":
        click.echo(fetch(name))
        return
    if out is None:
        raise ValueError(f"expected --out for '{name}', of which a part is written, got none; give a .nc or .zarr")
    check_output(out, overwrite)
    period = None if times is None else slice(*times.split("/", 1))
    box = None if region is None else tuple(float(side) for side in region.split(","))
    if (box is not None and len(box) != 4) or (period is not None and period.start is None):
        raise ValueError(f"expected --region S,N,W,E and --times FIRST/LAST, got {region} and {times}; correct them")
    fields = open_data(name, list(variables) or None, times=period, region=box, address=address, **parse_words(choose))
    said = {"title": name, "history": command_line(out)}
    write_atomic(as_cf(fields.to_dataset(), fields.grid, said), out, overwrite)
    click.echo(f"{len(fields.variables)} variables, {fields.times.size} times, written to {out}")
