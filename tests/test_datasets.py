"""Data sets by name: found, verified, or refused with the remedy."""

import numpy as np
import pytest
from data_files import T2M

from bayesdownscale.data import datasets
from bayesdownscale.data.errors import DataError


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """No data set on this machine and no network."""

    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, "_folders", lambda: [tmp_path / "data"])
    monkeypatch.setattr(datasets.pooch, "os_cache", lambda name: tmp_path / "cache")
    monkeypatch.setattr(datasets.pooch, "retrieve", offline)
    return tmp_path


def test_dataset_with_another_checksum_is_named(nowhere):
    for path in ("data/era5-2mt-2019-03-uk.grib", "cache/era5-2mt-2019-03-uk.grib"):
        file = nowhere / path
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"GRIB but another")
        with pytest.raises(DataError, match=rf"expected sha256 e5e82609\.\.\. for .*{path}, got another"):
            datasets.fetch("era5-uk")
        file.unlink()


def test_dataset_absent_and_offline_says_where_to_put_it(nowhere):
    for download in (True, False):
        with pytest.raises(DataError, match=r"https://github\.com/.*BAYESDOWNSCALE_DATA"):
            datasets.fetch("era5-uk", download=download)
    with pytest.raises(DataError, match=r"among \['era5-uk'\], got 'era5'"):
        datasets.fetch("era5")


def test_named_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.setenv("BAYESDOWNSCALE_DATA", str(tmp_path))
    assert datasets._folders()[0] == tmp_path


def test_era5_uk_and_its_split():
    try:
        datasets.fetch("era5-uk", download=False)
    except DataError as reason:
        pytest.skip(str(reason))
    fields = datasets.era5_uk()
    assert fields.values.shape == (744, 1, 32, 48)
    assert fields.variables == (T2M,)
    assert np.isfinite(fields.values).all()
    np.testing.assert_allclose(fields.grid.lat[[0, -1]], [58.0, 50.25])
    np.testing.assert_allclose(fields.grid.lon[[0, -1]], [-10.0, 1.75])
    train, test = datasets.split(fields)
    assert (train.times.size, test.times.size) == (24 * 24, 7 * 24)
    np.testing.assert_array_equal(np.concatenate([train.times, test.times]), fields.times)
    with pytest.raises(DataError, match="expected times from 2019-03-25"):
        datasets.split(train)
