"""Where a file is: a path on this machine, or an address that fsspec opens (https, gs, s3, memory, ...)."""

import os
import re
from pathlib import Path
from typing import Any

from .errors import DataError

type Place = Path | str  # a str: an address with a protocol

_PUBLIC: dict[str, dict[str, Any]] = {"gs": {"token": "anon"}, "gcs": {"token": "anon"}, "s3": {"anon": True}}
_DRIVERS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "http": "aiohttp", "https": "aiohttp"}


def place_of(path: str | os.PathLike[str]) -> Place:
    """A `Path`, or the address as it is."""
    text = os.fspath(path)
    return text if re.match(r"[a-z][a-z0-9+]*(::|://)", text) else Path(text)


def is_store(place: Place) -> bool:
    """Whether a Zarr store is meant: a folder, or an address that ends in .zarr."""
    return place.is_dir() if isinstance(place, Path) else place.rstrip("/").split("::")[0].endswith(".zarr")


def options_of(address: str) -> dict[str, Any]:
    """What fsspec needs to open a public address: no credentials, unless fsspec's own configuration has some."""
    from fsspec.config import conf

    protocol = address.split("://")[0].split("::")[-1]
    return {} if conf.get(protocol) else dict(_PUBLIC.get(protocol, {}))


def fetched(address: str) -> Path:
    """The file at `address`, copied to this machine (once while the program runs).

    **Raises:** `DataError` where there is no such protocol, driver, network or file.
    """
    import fsspec

    protocol = address.split("://")[0].split("::")[-1]
    try:
        return Path(fsspec.open_local(f"simplecache::{address}", **{protocol: options_of(address)}))  # pyright: ignore
    except Exception as error:  # drivers raise what they like: aiohttp's, gcsfs's and botocore's own errors
        raise unreachable(address, error) from error


def unreachable(address: str, error: Exception) -> DataError:
    """The sentence for an address that could not be opened."""
    protocol = address.split("://")[0].split("::")[-1]
    if isinstance(error, ImportError):
        driver = _DRIVERS.get(protocol, protocol)
        return DataError(f"expected the package {driver} to open {address}, found none; run: pip install {driver}")
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(
        f"expected to open {address}, got {type(error).__name__}: {reason}; check the address and the network"
    )
