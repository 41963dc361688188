"""The Zarr store of an ensemble: a template written first, one chunk a job, and a marker for each finished job.

    OUT.zarr/                 the ensemble, CF: NaN where a job is not done
    OUT.zarr.jobs/lock        held byte by byte, one byte a job, by whoever works on it
    OUT.zarr.jobs/0002-00017.json    size and sha256 of every chunk of member 2, span 17

A marker is written after its chunks, and all files appear whole or not at all (written beside, then renamed), so a run
killed anywhere leaves finished jobs and nothing that looks like one. Locks belong to processes and go with them.
"""

import dataclasses
import errno
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayesdownscale.data.errors import DataError
from bayesdownscale.data.grid import Coords
from bayesdownscale.data.write import to_cf
from bayesdownscale.ensemble.guide import FORMER
from bayesdownscale.ensemble.plan import Job, Plan
from bayesdownscale.prior.checkpoint import write_bytes

RECORD = "bayesdownscale_ensemble"  # the attribute that says which run a store belongs to
DIMS = ("realization", "time", "lat", "lon")
_LOCKS: dict[Path, int] = {}  # open lock files: closing one would release every lock this process holds on it


class EnsembleStore:
    """The store at `path` of the ensemble that `plan` describes, of the variables and on the grid of `coords` (their
    times are not used), made by the run with the `record` (JSON: what the draws depend on). `create` makes it or finds
    it."""

    def __init__(self, path: Path, plan: Plan, coords: Coords, record: dict[str, Any]):
        self.path, self.plan, self.coords = Path(path), plan, coords
        self.record = json.loads(json.dumps(record))
        self.jobs = self.path.with_name(f"{self.path.name}.jobs")

    def create(self, attrs: dict[str, Any]) -> None:
        """Write the template, or check that the store there belongs to this run.

        Raises `DataError` for a store of another run, naming what differs, or one that cannot be written.
        """
        if self.path.suffix != ".zarr":
            raise DataError(f"expected an output ending in .zarr for an ensemble, got {self.path}; rename it")
        if not self.path.parent.is_dir():
            raise DataError(f"expected the folder {self.path.parent} to exist for {self.path}; make it first")
        with named_failures(self.path, "the store"):
            self.jobs.mkdir(exist_ok=True)
            if not self.path.exists():
                self._write_template(attrs)
        self._check()

    def _check(self) -> None:
        try:
            found = json.loads((self.path / "zarr.json").read_text())["attributes"][RECORD]
        except (OSError, ValueError, KeyError, TypeError):
            raise DataError(
                f"expected an unfinished ensemble at {self.path}, got something else; choose another --out"
            ) from None
        found = {"guidance": FORMER} | json.loads(found)
        differing = [name for name in self.record | found if found.get(name) != self.record.get(name)]
        if differing:
            was, now = (json.dumps(r.get(differing[0]))[:60] for r in (found, self.record))
            raise DataError(
                f"{self.path} holds an ensemble with another {' and '.join(differing)} ({was}, now {now}); run it "
                "with those again, or choose another --out"
            )

    def _write_template(self, attrs: dict[str, Any]) -> None:
        """The labels and arrays of NaN without chunks, under another name first."""
        import dask.array

        for left in self.path.parent.glob(f".{self.path.name}.{socket.gethostname()}.*"):
            if not _alive(int(left.name.rsplit(".", 1)[1])):
                shutil.rmtree(left, ignore_errors=True)
        one = {v.name: np.broadcast_to(np.float32(0), (1, *self._shape[1:])) for v in self.coords.variables}
        coords = dataclasses.replace(self.coords, times=self.plan.record())
        labels = to_cf(one, coords, {**attrs, RECORD: json.dumps(self.record)}).isel(realization=0, drop=True)
        members = xr.Variable(
            "realization", np.arange(self.plan.members, dtype=np.int32),
            {"standard_name": "realization", "units": "1"},
        )  # fmt: skip
        data, encoding = {}, {}
        for v in self.coords.variables:
            chunks = (1, min(self.plan.span, self.plan.length), *self.coords.grid.shape)
            lazy = dask.array.full(self._shape, np.nan, dtype=np.float32, chunks=chunks)
            data[v.name] = xr.Variable(DIMS, lazy, labels[v.name].attrs)
            encoding[v.name] = {"chunks": chunks, "_FillValue": np.float32(np.nan)}
        dataset = xr.Dataset(data, {"realization": members, **labels.coords}, labels.attrs)
        temporary = self.path.with_name(f".{self.path.name}.{socket.gethostname()}.{os.getpid()}")
        try:
            dataset.to_zarr(temporary, compute=False, encoding=encoding, zarr_format=3, consolidated=False)
            os.rename(temporary, self.path)
        except OSError:
            if not self.path.exists():  # else another run was faster, and its template is as good
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        return self.plan.members, self.plan.length, *self.coords.grid.shape

    def chunks(self, job: Job) -> dict[str, Path]:
        """The file of each variable that a job writes."""
        return {v.name: self.path / v.name / "c" / str(job.member) / str(job.span) / "0" / "0"
                for v in self.coords.variables}  # fmt: skip

    def marker(self, job: Job) -> Path:
        return self.jobs / f"{job.member:04d}-{job.span:05d}.json"

    def write(self, job: Job, values: np.ndarray) -> None:
        """Write the span (time, variable, lat, lon) of a job, then its marker. Raises `DataError` where the disk is
        full or the store cannot be written, `FloatingPointError` for values that are not finite."""
        import zarr

        if not np.isfinite(values).all():
            raise FloatingPointError(
                f"expected finite draws, got others in member {job.member}, span {job.span}; the likelihood overflows "
                "or the prior does not fit the data: check units and noise scale"
            )
        kept, written = self.plan.kept(job.span), {}
        with named_failures(self.path, f"member {job.member}, span {job.span}"):
            group = zarr.open_group(self.path, mode="r+")
            for k, (name, file) in enumerate(self.chunks(job).items()):
                self.clean(file)
                file.unlink(missing_ok=True)  # a damaged chunk would be read before it is filled
                group[name][job.member, kept] = values[: kept.stop - kept.start, k]  # pyright: ignore
                content = file.read_bytes()
                written[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            write_bytes(self.marker(job), (json.dumps(written, indent=1) + "\n").encode())

    def clean(self, file: Path) -> None:
        """Remove what a killed process left beside a chunk. Only the job that owns the chunk may do this."""
        for left in file.parent.glob("*.partial"):
            left.unlink(missing_ok=True)

    def done(self, job: Job, thorough: bool = False) -> bool:
        """Whether a job's chunks are there and as its marker says: their sizes, or with `thorough` their checksums."""
        try:
            said = json.loads(self.marker(job).read_text())
            for name, file in self.chunks(job).items():
                if file.stat().st_size != said[name]["bytes"]:
                    return False
                if thorough and hashlib.sha256(file.read_bytes()).hexdigest() != said[name]["sha256"]:
                    return False
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return True

    def forget(self, job: Job) -> None:
        """Take a job's marker away, so that it is done again."""
        self.marker(job).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what killed processes left beside markers, if every job is done: then no process is writing one."""
        with named_failures(self.path, "the markers"):
            if all(self.marker(job).exists() for job in self.plan.jobs()):
                for left in self.jobs.glob(".*.json.*"):
                    left.unlink(missing_ok=True)

    @contextmanager
    def lock(self, job: Job) -> Iterator[bool]:
        """Hold a job against other processes, on this machine and others that share the file system; False where
        another holds it. The kernel lets go of it when the process ends, however it ends."""
        try:
            import fcntl
        except ImportError:  # Windows: two runs at once would do some work twice
            yield True
            return
        with named_failures(self.path, "its lock"):
            if self.jobs not in _LOCKS:
                _LOCKS[self.jobs] = os.open(self.jobs / "lock", os.O_RDWR | os.O_CREAT, 0o666)
        file, place = _LOCKS[self.jobs], job.member * self.plan.spans + job.span
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                raise
            yield False
            return
        try:
            yield True
        finally:
            fcntl.lockf(file, fcntl.LOCK_UN, 1, place)


@contextmanager
def named_failures(path: Path, what: str) -> Iterator[None]:
    """A file system's refusal as one sentence that says what is safe and what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "free space" if full else "check its permissions and disk"
        raise DataError(
            f"expected to write {what} of {path}, got: {error.strerror or error}; {remedy} and run the same command "
            "again: finished jobs are safe"
        ) from error


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
