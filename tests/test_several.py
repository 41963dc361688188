"""Several files as one, and levels chosen: from Python, from the command line, and left on disk."""

import itertools

import ensembles
import numpy as np
import pytest
import xarray as xr
from awkward import TIMES, TRUTH, many, netcdf, other_variable, part, plain
from click.testing import CliRunner
from numpy.testing import assert_array_equal
from test_correct import MODEL, REFERENCE, written
from xarray.backends import BackendArray
from xarray.core import indexing

from bayesdownscale.cli import main
from bayesdownscale.data.concatenated import concatenated
from bayesdownscale.data.errors import DataError
from bayesdownscale.data.lazy import open_lazy
from bayesdownscale.data.places import Files, place_of
from bayesdownscale.data.read import open_fields
from bayesdownscale.ensemble.problem import CoarseFile

FLIPPED = TRUTH[:, None, ::-1]  # south to north, as in the files


def test_paths_lists_and_wildcards(tmp_path):
    for name in ("b.nc", "a.nc", "[1].nc"):
        (tmp_path / name).touch()
    assert place_of(tmp_path / "a.nc") == tmp_path / "a.nc"
    assert place_of(str(tmp_path / "a*.nc")) == tmp_path / "a.nc"
    assert place_of(tmp_path / "[1].nc") == tmp_path / "[1].nc"  # a file of that name
    assert place_of([str(tmp_path / "b.nc")]) == tmp_path / "b.nc"
    both = place_of(tmp_path / "[ab].nc")
    assert isinstance(both, Files)
    assert both.parts == (tmp_path / "a.nc", tmp_path / "b.nc")
    assert str(both) == str(tmp_path / "[ab].nc")
    three = place_of([tmp_path / "[[]1].nc", tmp_path / "[ab].nc"])
    assert isinstance(three, Files)
    assert len(three.parts) == 3
    assert str(three) == f"{tmp_path / '[1].nc'} and 2 more"
    assert place_of("gs://bucket/a.zarr") == "gs://bucket/a.zarr"
    assert place_of(three) is three
    with pytest.raises(DataError, match="expected the path of a file or more, got none"):
        place_of([])


def test_wildcards_at_an_address(tmp_path):
    folder = f"memory://{tmp_path.name}"
    for name, index in (("b", [2, 3]), ("a", [0, 1])):
        plain().isel(time=index).to_zarr(f"{folder}/tas_{name}.zarr", zarr_format=3, consolidated=False)
    assert_array_equal(open_fields(f"{folder}/tas_*.zarr", ["tas"]).values, FLIPPED)
    with pytest.raises(DataError, match=r"no file at memory://.*; check the path and its wildcards"):
        open_fields(f"{folder}/pr_*.zarr")


def test_files_stay_on_disk_and_variables_come_together(tmp_path):
    """Also the bounds of means, and those of a file that holds one time."""
    names = many(part(2, 3), part(0, 1))(tmp_path)
    other_variable(plain()).to_netcdf(tmp_path / "pr.nc")
    lazy = open_lazy([names, tmp_path / "pr.nc"], ["pr", "tas"])
    assert not any(array.variable._in_memory for array in lazy.values.arrays)
    assert_array_equal(lazy.values[1:3], np.repeat(FLIPPED[1:3], 2, axis=1))
    assert_array_equal(lazy.times, TIMES)
    assert [v.units for v in lazy.variables] == ["kg m-2 s-1", "K"]
    ends = np.stack([TIMES, TIMES + np.timedelta64(6, "h")], axis=1)
    for k in range(4):
        ds = plain().isel(time=k).assign_coords(time_bnds=("bnds", ends[k]))
        ds["tas"].attrs["cell_methods"], ds["time"].attrs["bounds"] = "time: mean", "time_bnds"
        ds["time"].encoding["units"] = f"hours since {TIMES[k]}"
        ds.to_netcdf(tmp_path / f"mean_{3 - k}.nc")
    means = open_fields(tmp_path / "mean_*.nc")
    assert means.methods == ("mean",)
    assert_array_equal(means.bounds, ends)
    assert_array_equal(means.values, FLIPPED)


class Recorder(BackendArray):
    """Values on a disk that remembers how many were read."""

    def __init__(self, values):
        self.values, self.shape, self.dtype, self.read = values, values.shape, values.dtype, 0

    def __getitem__(self, key):
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self.get)

    def get(self, key):
        found = self.values[np.ix_(*(np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True)))]
        self.read += found.size
        return found.squeeze(tuple(k for k, each in enumerate(key) if isinstance(each, int | np.integer)))


def test_only_what_is_asked_for_is_read():
    """Any outer index into three parts, one of them a single step, one with its dimensions in another order."""
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((9, 4, 5))
    disks = [Recorder(whole[:3]), Recorder(whole[3]), Recorder(np.moveaxis(whole[4:], 0, 2))]
    dims = ("time", "y", "x"), ("y", "x"), ("y", "x", "time")
    lazy = lambda disk: indexing.LazilyIndexedArray(disk)
    joined = concatenated([xr.Variable(d, lazy(disk)) for d, disk in zip(dims, disks, strict=True)], "time")
    assert joined.shape == whole.shape
    keys = [slice(2, 6), slice(None), slice(None, None, 2), slice(8, 2, -1), slice(4, 4), 3, 7, np.array([8, 0, 3, 0])]
    for time, y, x in itertools.product(keys, (slice(None), 1, np.array([3, 0])), (slice(1, 3), -1)):
        steps, rows, columns = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(whole.shape, (time, y, x), strict=True))
        for disk in disks:
            disk.read = 0
        got = joined.isel(time=time, y=y, x=x)
        assert_array_equal(np.ravel(got.values), np.ravel(whole[np.ix_(steps, rows, columns)]))
        assert got.shape == tuple(len(k) for k, i in ((steps, time), (rows, y), (columns, x)) if not isinstance(i, int))
        assert sum(disk.read for disk in disks) <= steps.size * rows.size * columns.size


def test_rows_of_an_ensemble(tmp_path):
    """An ensemble reads its rows from the right file, of the member that is asked for."""
    prior, coarse = ensembles.windowed_prior(), ensembles.data(21)[1]
    for name, rows in (("b", slice(0, 5)), ("a", slice(5, None))):
        ds = coarse.isel_times(rows).to_dataset()
        two = ds.assign(t2m=ds.t2m.expand_dims(member=2) + xr.DataArray([0.0, 9.0], dims="member"))
        two["t2m"].attrs = ds["t2m"].attrs
        two.to_netcdf(tmp_path / f"t2m_{name}.nc")
    read = CoarseFile(tmp_path / "t2m_*.nc", prior, at={"member": "0"})
    assert read.coords == coarse.coords
    assert_array_equal(read.rows(2, 8), coarse.values[2:8])


def test_correct_takes_several_files(tmp_path):
    """Given by wildcards or one by one, a file a year is corrected as one file is; a member of the reference too."""
    for year in (1990, 1991, 1992):
        mine = MODEL.times.astype("datetime64[Y]") == np.datetime64(str(year))
        written(MODEL.isel_times(mine), tmp_path / f"model_{year}.nc")
    reference = tmp_path / "reference.nc"
    with xr.open_dataset(written(REFERENCE, tmp_path / "one.nc")) as ds:
        two = xr.concat([ds, ds], "realization", data_vars=["tas", "pr"]).assign_coords(realization=[1, 2])
        two["tas"] = two.tas + xr.DataArray([50.0, 0.0], dims="realization")
        two["tas"].attrs = ds.tas.attrs
        two.to_netcdf(reference)
    run = lambda out, *words: CliRunner().invoke(
        main, ["correct", *words, "--reference", str(reference), "--out", str(tmp_path / out)]
    )
    whole = written(MODEL, tmp_path / "whole.nc")
    chosen = ("--reference-at", "realization=2")
    each = [str(tmp_path / f"model_{y}.nc") for y in (1992, 1990, 1991)]
    commands = {"a.nc": (whole,), "b.nc": each, "c.nc": (str(tmp_path / "model_*.nc"),)}
    for out, words in commands.items():
        made = run(out, *words, *chosen)
        assert made.exit_code == 0, made.output
    a, b, c = (open_fields(tmp_path / out).values for out in commands)
    assert_array_equal(a, b)
    assert_array_equal(a, c)
    refused = run("d.nc", whole)
    assert refused.exit_code == 1
    assert "got also 'realization' with 1, 2; choose one, as in at={'realization': 1}" in refused.output
    overlap = run("d.nc", whole, each[0], *chosen)
    assert "expected files that follow each other in time" in " ".join(overlap.output.split())
    assert not (tmp_path / "d.nc").exists()


def test_downscale_says_which_level(tmp_path):
    """The sentence of the reader, where the option is not given or wrong."""
    ds = plain().assign(tas=plain().tas.expand_dims(plev=[85000.0, 50000.0]))
    ds["tas"].attrs = plain().tas.attrs
    path = str(netcdf(ds, tmp_path))
    run = lambda *words: CliRunner().invoke(main, ["downscale", path, "--out", str(tmp_path / "p.zarr"), *words]).output
    assert "got also 'plev' with 85000, 50000; choose one" in run()
    assert "expected one 'plev' of 70000" in run("--at", "plev=70000")
