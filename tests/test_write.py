"""Files out: what is written is read back, whole or not at all."""

from functools import partial

import numpy as np
import pytest
import xarray as xr
from data_files import domain, same, saved, weather

from bayesdownscale.data.errors import DataError
from bayesdownscale.data.fields import Fields
from bayesdownscale.data.read import open_fields
from bayesdownscale.data.write import check_output, to_cf, write_atomic


@pytest.fixture
def nc(tmp_path):
    return partial(saved, folder=tmp_path)


def draws(seed=0):
    values = weather((3, 4, 1, 8, 8), seed)
    values[0, 0, 0, 0, 0] = np.nan
    return values


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_roundtrip_keeps_values_units_and_dimensions(tmp_path, suffix):
    values, coords = draws(), domain()
    attrs = {"seed": np.int64(3), "likelihood": {"noise": 0.5}, "exact": False, "institution": None}
    path = write_atomic(to_cf(values, coords, attrs), tmp_path / f"out{suffix}")
    options = {"engine": "zarr", "consolidated": False} if suffix == ".zarr" else {}
    with xr.open_dataset(path, decode_coords="all", **options) as ds:
        assert list(ds.data_vars) == ["t2m"]
        assert ds.t2m.dims == ("realization", "time", "lat", "lon")
        np.testing.assert_array_equal(ds.t2m.values, values[:, :, 0])
        assert ds.t2m.attrs["units"] == "K"
        assert ds.t2m.attrs["cell_methods"] == "time: point"
        assert ds.t2m.encoding["_FillValue"] == np.float32(1e20)
        assert ds.realization.attrs["standard_name"] == "realization"
        assert "axis" not in ds.realization.attrs
        assert ds.lat.dtype == ds.lon_bnds.dtype == np.float64
        assert ds.attrs["Conventions"] == "CF-1.11"
        assert (ds.attrs["seed"], ds.attrs["likelihood"], ds.attrs["exact"]) == (3, '{"noise": 0.5}', "false")
        assert not {"institution", "coordinates"} & set(ds.attrs)
    one = tmp_path / f"one{suffix}"
    write_atomic(to_cf(values[:1], coords), one)
    back = open_fields(one)
    assert back.coords == coords
    np.testing.assert_array_equal(back.values, values[0])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_fields_to_dataset_and_back(nc):
    fields = Fields(draws()[0], domain(), "made here")
    back = open_fields(nc(fields.to_dataset()))
    same(fields, back)
    same(
        fields.isel_times(slice(1, 3)).crop(3, 2),
        open_fields(nc(fields.to_dataset().isel(time=[1, 2], lat=slice(3), lon=slice(2)))),
    )
    assert fields.isel_times(-1).values.shape == (1, 1, 8, 8)


def test_draws_of_other_shapes_are_refused():
    with pytest.raises(DataError, match="expected draws of shape"):
        to_cf(draws()[..., :-1], domain())
    with pytest.raises(DataError, match=r"expected draws of \['t2m'\], got \['tas'\]"):
        to_cf({"tas": draws()[:, :, 0]}, domain())
    by_name = to_cf({"t2m": draws()[:, :, 0]}, domain())
    np.testing.assert_array_equal(by_name.t2m, to_cf(draws(), domain()).t2m)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_existing_output_is_kept_unless_told(tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    old, new = to_cf(draws(0), domain()), to_cf(draws(1)[:2], domain())
    write_atomic(old, path)
    with pytest.raises(DataError, match=r"out\.\w+ exists; choose another --out or pass --overwrite"):
        write_atomic(new, path)
    assert len(_read(path)) == 3
    write_atomic(new, path, overwrite=True)
    assert len(_read(path)) == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("error", [RuntimeError, OSError, KeyboardInterrupt])
def test_failing_write_leaves_nothing_and_the_old_output(tmp_path, monkeypatch, suffix, error):
    path = tmp_path / f"out{suffix}"
    whole = to_cf(draws(), domain())
    write_atomic(whole, path)
    real = {".nc": xr.Dataset.to_netcdf, ".zarr": xr.Dataset.to_zarr}[suffix]

    def fail(self, *args, **kwargs):
        real(self, *args, **kwargs)
        raise error("disk full")

    monkeypatch.setattr(xr.Dataset, real.__name__, fail)
    with pytest.raises(DataError if error is OSError else error, match="disk full"):
        write_atomic(to_cf(draws(1)[:2], domain()), path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]
    assert len(_read(path)) == 3


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_trees_are_written_too(tmp_path, suffix):
    theta = xr.Dataset({"sigma": (("chain", "draw"), np.ones((1, 3)))}, {"site": ["a", "bb"]})
    tree = xr.DataTree.from_dict({"/posterior": theta, "/fields": to_cf(draws(), domain())})
    path = write_atomic(tree, tmp_path / f"tree{suffix}")
    options = {"engine": "zarr", "consolidated": False} if suffix == ".zarr" else {}
    with xr.open_datatree(path, **options) as back:
        assert back["/fields/t2m"].shape == (3, 4, 8, 8)
        assert list(back["/posterior/site"].values) == ["a", "bb"]


def test_output_paths_are_checked(tmp_path):
    with pytest.raises(DataError, match=r"ending in \.nc .* or \.zarr"):
        check_output(tmp_path / "out.csv")
    with pytest.raises(DataError, match=r"expected the folder .*absent to exist"):
        check_output(tmp_path / "absent" / "out.nc")
    assert check_output(str(tmp_path / "out.nc")) == tmp_path / "out.nc"


def _read(path):
    options = {"engine": "zarr", "consolidated": False} if path.suffix == ".zarr" else {}
    with xr.open_dataset(path, **options) as ds:
        return ds.t2m.load()
