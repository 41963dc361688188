"""Where a file is: a path on this machine, or an address that fsspec opens (https, gs, s3, memory, ...)."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from .errors import DataError


@dataclass(frozen=True)
class Files:
    """Paths and addresses that hold one dataset together, and what they are called in messages."""

    parts: tuple["Path | str", ...]
    called: str

    def __str__(self) -> str:
        return self.called


type Place = Path | str | Files  # a str: an address with a protocol
type Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Files

_PUBLIC: dict[str, dict[str, Any]] = {"gs": {"token": "anon"}, "gcs": {"token": "anon"}, "s3": {"anon": True}}
_DRIVERS = {"gs": "gcsfs", "gcs": "gcsfs", "s3": "s3fs", "http": "aiohttp", "https": "aiohttp"}


def place_of(path: Paths) -> Place:
    """A `Path`, the address as it is, or `Files` for several paths or one with the wildcards *, ? and [].

    **Raises:** `DataError` for wildcards that no file matches, or no path at all.
    """
    if isinstance(path, Files):
        return path
    if not isinstance(path, str | os.PathLike):
        parts = [each for one in path for each in _parts(place_of(one))]
        if not parts:
            raise DataError("expected the path of a file or more, got none; name some")
        called = f"{parts[0]}" + (f" and {len(parts) - 1} more" if parts[1:] else "")
        return Files(tuple(parts), called) if parts[1:] else parts[0]
    text = os.fspath(path)
    address = re.match(r"[a-z][a-z0-9+]*(::|://)", text)
    if not re.search(r"[*?\[]", text) or (not address and Path(text).exists()):
        return text if address else Path(text)
    found = _matching(text) if address else [Path(match) for match in sorted(glob(text, recursive=True))]
    if not found:
        raise DataError(f"no file at {text}; check the path and its wildcards")
    return Files(tuple(found), text) if found[1:] else found[0]


def _parts(place: Place) -> "tuple[Path | str, ...]":
    return place.parts if isinstance(place, Files) else (place,)


def _matching(address: str) -> "list[Path | str]":
    """The addresses that match one with wildcards, sorted."""
    from fsspec.core import url_to_fs

    protocol = _protocol(address)
    try:
        system, path = url_to_fs(address, **options_of(address))
        return [system.unstrip_protocol(match) for match in sorted(system.glob(path))]
    except Exception as error:  # drivers raise what they like
        raise unreachable(f"{protocol}://{address.split('://', 1)[-1]}", error) from error


def _protocol(address: str) -> str:
    """The last protocol of a chain such as simplecache::https."""
    return address.split("://")[0].split("::")[-1]


def is_store(place: Path | str) -> bool:
    """Whether a Zarr store is meant: a folder, or an address that ends in / or .zarr or .zarr-v3."""
    return place.is_dir() if isinstance(place, Path) else bool(re.search(r"/$|\.zarr(-v\d)?$", place.split("::")[0]))


def options_of(address: str) -> dict[str, Any]:
    """What fsspec needs to open a public address: no credentials, unless fsspec's own configuration has some."""
    from fsspec.config import conf

    protocol = _protocol(address)
    return {} if conf.get(protocol) else dict(_PUBLIC.get(protocol, {}))


def fetched(address: str) -> Path:
    """The file at `address`, copied to this machine (once while the program runs).

    **Raises:** `DataError` where there is no such protocol, driver, network or file.
    """
    import fsspec

    protocol = _protocol(address)
    try:
        return Path(fsspec.open_local(f"simplecache::{address}", **{protocol: options_of(address)}))  # pyright: ignore
    except Exception as error:  # drivers raise what they like: aiohttp's, gcsfs's and botocore's own errors
        raise unreachable(address, error) from error


def unreachable(address: str, error: Exception) -> DataError:
    """The sentence for an address that could not be opened."""
    protocol = _protocol(address)
    if isinstance(error, ImportError):
        driver = _DRIVERS.get(protocol, protocol)
        return DataError(f"expected the package {driver} to open {address}, found none; run: pip install {driver}")
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return DataError(
        f"expected to open {address}, got {type(error).__name__}: {reason}; check the address and the network"
    )
