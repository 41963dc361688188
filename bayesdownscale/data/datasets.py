"""Public data sets by name, found on this machine or downloaded once, their checksums always verified."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pooch

from .errors import DataError
from .fields import Fields
from .read import open_fields

DATA_VARIABLE = "BAYESDOWNSCALE_DATA"
_XARRAY_DATA = "https://github.com/pydata/xarray-data/raw/master"

# The split of "era5-uk" used everywhere, both ends included.
TRAIN_DAYS = slice("2019-03-01", "2019-03-24")
TEST_DAYS = slice("2019-03-25", "2019-03-31")


@dataclass(frozen=True)
class _Dataset:
    """A published file: its `file` name, `url` and `sha256`."""

    file: str
    url: str
    sha256: str


_DATASETS = {
    # ERA5 2 m temperature, hourly, March 2019, 33 x 49 points of 0.25 degrees over the British Isles.
    "era5-uk": _Dataset(
        "era5-2mt-2019-03-uk.grib",
        f"{_XARRAY_DATA}/era5-2mt-2019-03-uk.grib",
        "e5e82609f0e28e84822852e15d20c88dbb4b142a30264a7e6f87b9b5c7501df9",
    ),
}


def fetch(name: str, *, download: bool = True) -> Path:
    """The file of the data set `name`, downloaded if it is not on this machine and `download` is True.

    Looked for in the folder that BAYESDOWNSCALE_DATA names, a shared/data folder beside the checkout, and
    the cache of xarray's tutorials, where a download goes too.

    **Raises:** `DataError` for an unknown name, a file with another checksum, or a failed download.
    """
    if name not in _DATASETS:
        raise DataError(f"expected a data set among {sorted(_DATASETS)}, got '{name}'")
    wanted = _DATASETS[name]
    cache = Path(pooch.os_cache("xarray_tutorial_data"))
    places = [folder / wanted.file for folder in _folders()]
    # pooch, and so xarray, puts a hash of the address before the name.
    places += [cache / pooch.utils.unique_file_name(wanted.url), cache / wanted.file]
    for path in places:
        if path.is_file():
            return _verified(path, wanted)
    place = f"or put the file in a folder named by {DATA_VARIABLE}"
    if not download:
        raise DataError(f"no file {wanted.file} on this machine; get it from {wanted.url}, {place}")
    try:
        path = pooch.retrieve(wanted.url, known_hash=f"sha256:{wanted.sha256}", path=cache)
    except (OSError, ValueError) as error:  # no network, no such page, or another checksum
        raise DataError(
            f"expected to download {wanted.file} from {wanted.url}, got {type(error).__name__}; try again, {place}"
        ) from error
    return Path(path)


def era5_uk(*, download: bool = True) -> Fields:
    """ERA5 2 m temperature `t2m` [K] over the British Isles: (744, 1, 32, 48), hourly in March 2019,
    0.25 degrees, from 58 N and 10 W (the file's first 32 rows and 48 columns)."""
    fields = open_fields(fetch("era5-uk", download=download), ["t2m"])
    (t2m,) = fields.variables
    coords = replace(fields.coords, variables=(replace(t2m, standard_name="air_temperature"),))
    return replace(fields, coords=coords, source="ERA5 2 m temperature, March 2019 (era5-uk)").crop(32, 48)


def split(fields: Fields) -> tuple[Fields, Fields]:
    """The training days, 1-24 March 2019, and the test days, 25-31 March, of `era5_uk`."""
    parts = []
    for days in (TRAIN_DAYS, TEST_DAYS):
        first, last = np.datetime64(days.start), np.datetime64(days.stop)
        index = np.flatnonzero((fields.times >= first) & (fields.times < last + 1))
        if not index.size:
            raise DataError(f"expected times from {days.start} to {days.stop}, got none of them")
        parts.append(fields.isel_times(index))
    return parts[0], parts[1]


def _folders() -> list[Path]:
    folders = [Path(__file__).resolve().parents[2].parent / "shared" / "data"]
    named = os.environ.get(DATA_VARIABLE)
    return [Path(named).expanduser(), *folders] if named else folders


def _verified(path: Path, wanted: _Dataset) -> Path:
    if pooch.file_hash(str(path), alg="sha256") != wanted.sha256:
        raise DataError(
            f"expected sha256 {wanted.sha256[:8]}... for {path}, got another; remove the file to get it "
            f"again from {wanted.url}"
        )
    return path
