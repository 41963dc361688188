"""What each bias correction makes of CNRM-CM5 over Iberia: coarse winters against those of RACMO, and BCSD from them.

    python -m benchmarks.iberia_correction --json        # a minute; MBCn, where xsdba is installed, takes another

Learned in the winters 1982/83 to 1994/95, applied there (`past`) and in 1995/96 to 2001/02 (`test`). In the past every
method of quantile mapping agrees with RACMO; in the test each shows what it does with what CNRM-CM5 makes of later
winters, which are drier while RACMO's are wetter: compare errors with `floor`, two samples of seven winters of RACMO.
"""

import json

import click
import numpy as np

import bayesdownscale as bd
from benchmarks.iberia_data import LENGTH, Data, load, scored_cells
from benchmarks.iberia_methods import baselines, corrected_by, over_cells
from benchmarks.iberia_statistics import errors, floor, statistics

SHOWN = ("wet_frequency", "p98", "mean_pr", "tas_pr", "mean_tas")


def of(values: np.ndarray) -> dict:
    """Statistics of values (day, variable, cell)."""
    values = values.astype(np.float64)
    return statistics(values[:, 0], values[:, 1], LENGTH)


def run(data: Data, methods: list[str]) -> dict[str, dict]:
    """By period, method and kind ("coarse" cells, or "BCSD" on fine ones) the errors against RACMO."""
    cells, out = scored_cells(data), {}
    fine = lambda values: values.reshape(*values.shape[:2], -1)[:, :, cells]
    for period, days in (("past", slice(0, data.test)), ("test", slice(data.test, None))):
        right = of(over_cells(data.perfect.values[days], data.inside)), of(fine(data.fine.values[days]))
        for method in methods:
            coarse = over_cells(corrected_by(method, data, data.coarse, days).values, data.inside)
            bcsd = baselines(data, data.coarse, days, method)["BCSD"]
            out[f"{period}, {method}, coarse"] = errors(of(coarse), right[0])
            out[f"{period}, {method}, BCSD"] = errors(of(fine(bcsd)), right[1])
            out[f"{period}, {method}, coarse"]["largest_pr"] = {"value": float(coarse[:, 1].max())}
    return out


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object as the last line.")
@click.option("--method", "methods", multiple=True, help="eqm, dqm, qdm, mbcn (repeat; default: all that can be had).")
def main(as_json: bool, methods: tuple[str, ...]) -> None:
    """Errors of corrected CNRM-CM5 against RACMO."""
    data = load()
    if data is None:
        raise click.ClickException("expected the files of benchmarks.iberia, found none; run that to see which")
    chosen = list(methods) or ["eqm", "dqm", "qdm"]
    if not methods:
        try:
            from bayesdownscale.data.mbcn import load_xsdba

            load_xsdba()
            chosen.append("mbcn")
        except bd.DataError as error:
            click.echo(f"mbcn left out: {error}", err=True)
    rows = run(data, chosen)
    values = over_cells(data.perfect.values, data.inside)
    rows["floor, coarse"] = floor(values[:, 0], values[:, 1], LENGTH, 7)
    for name, row in rows.items():
        said = "  ".join(f"{k} {row[k]['bias']:+.3f} ({row[k]['mae']:.3f})" for k in SHOWN)
        most = f"  largest pr {row['largest_pr']['value']:.0f} mm/d" if "largest_pr" in row else ""
        print(f"{name}\n    {said}{most}")
    if as_json:
        print(json.dumps({"benchmark": "iberia_correction", "errors": rows}))


if __name__ == "__main__":
    main()
