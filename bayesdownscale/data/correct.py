"""Bias correction of whole files: every variable of a coarse model against a reference on any grid."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from .bias import BiasCorrection
from .errors import DataError, quoted, span
from .fields import Fields
from .mbcn import load_xsdba, rearranged
from .regrid import conservative_mean
from .units import convert


def correct(
    model: Fields,
    reference: Fields,
    past: Fields | None = None,
    method: str = "qdm",
    multiplicative: Collection[str] = (),
    wet: Mapping[str, float] | None = None,
    window: int | None = None,
) -> tuple[Fields, dict[str, BiasCorrection]]:
    """A coarse model corrected against a reference, and the corrections by variable.

    **Arguments:** `model`, the period to correct; `reference`, on the same cells or finer ones, which are averaged over
    the model's (`conservative_mean`); `past`, the model over the period of the reference (`model` when not given); the
    variables in `multiplicative` keep ratios, and are dry below the values in `wet` [units of the reference];
    `method` and `window` as for `BiasCorrection.fit`, or the method "mbcn": QDM, then the order of days that restores
    how variables depend on each other (`mbcn.rearranged`), which is no part of the corrections.
    **Returns:** the variables that model and reference share, in the reference's units, NaN where it does not cover a
    coarse cell wholly.
    **Raises:** `DataError` where they share no variable or one of `multiplicative` or `wet` is not among them, or as
    `mbcn.rearranged`; ValueError as `BiasCorrection.fit`.
    """
    past = model if past is None else replace(past, source=past.source or "the past")
    shared = [v for v in reference.variables if v.name in {own.name for own in model.variables}]
    names, asked = {v.name for v in shared}, {*multiplicative, *(wet or {})}
    if not shared or not asked <= names:
        raise DataError(
            f"expected {quoted(sorted(asked)) if asked else 'a variable'} in model and reference, got "
            f"{quoted(v.name for v in model.variables)} and {quoted(v.name for v in reference.variables)}; rename them"
        )
    if reference.grid != model.grid:
        reference = conservative_mean(reference, model.grid)
    if method == "mbcn":
        load_xsdba()  # before the work that would be for nothing without it
    each, corrections = "qdm" if method == "mbcn" else method, {}
    for variable in shared:
        name = variable.name
        before, wanted = _one(past, name), _one(reference, name)
        corrections[name] = BiasCorrection.fit(
            before, wanted, each, name in multiplicative, window, (wet or {}).get(name)
        )
    better = apply(model, corrections)
    better = replace(better, coords=replace(better.coords, variables=tuple(shared)))
    if method == "mbcn":
        traces = {name: float(corrections[name].parameters.attrs["trace"]) for name in multiplicative}
        own, before = (_converted(f, reference) for f in (model, past))
        better = rearranged(better, own, before, reference, traces, window)
    return better, corrections


def apply(model: Fields, corrections: Mapping[str, BiasCorrection]) -> Fields:
    """The variables of a coarse model that have a correction, in the order of these, corrected, in the units of the
    reference.

    **Raises:** `DataError` where none has one; ValueError as `BiasCorrection`.
    """
    known = {v.name for v in model.variables}
    names = [name for name in corrections if name in known]
    if not names:
        raise DataError(
            f"expected a variable among {quoted(corrections)} in {model.source or 'the model'}, got "
            f"{quoted(v.name for v in model.variables)}; fit a correction of it"
        )
    own = model.only(names)
    better = [corrections[name](_one(own, name)) for name in names]
    variables = tuple(replace(v, units=str(b.attrs["units"])) for v, b in zip(own.variables, better, strict=True))
    values = np.stack([b.values.astype(np.float32) for b in better], axis=1)
    return replace(own, values=values, coords=replace(own.coords, variables=variables))


def save_corrections(corrections: Mapping[str, BiasCorrection], folder: Path, overwrite: bool = False) -> None:
    """Keep each in a NetCDF file NAME.nc in `folder`, which is made; raises `DataError` where one is in the way."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, correction in corrections.items():
        correction.save(folder / f"{name}.nc", overwrite)


def load_corrections(folder: Path) -> dict[str, BiasCorrection]:
    """What `save_corrections` kept; raises `DataError` for another folder."""
    found = {path.stem: BiasCorrection.load(path) for path in sorted(folder.glob("*.nc"))}
    if not found:
        raise DataError(f"expected saved bias corrections, NAME.nc, in {folder}, got none; fit them with --save")
    return found


def in_period(fields: Fields, first: np.datetime64, last: np.datetime64, what: str) -> Fields:
    """The fields from the day `first` to the day `last`, both included."""
    days = fields.times.astype("datetime64[D]")
    keep = np.flatnonzero((days >= first) & (days <= last))
    if not keep.size:
        raise DataError(
            f"expected times of {what} from {first} to {last}, got {span(fields.times)}; choose among these"
        )
    return fields.isel_times(keep)


def with_units(fields: Fields, units: Mapping[str, str]) -> Fields:
    """The fields with the units of some variables set to what they are, where a file says nothing or something else."""
    unknown = set(units) - {v.name for v in fields.variables}
    if unknown:
        got = quoted(v.name for v in fields.variables)
        raise DataError(f"expected variables to set the units of, got {quoted(sorted(unknown))}; choose among {got}")
    named = tuple(replace(v, units=units.get(v.name, v.units)) for v in fields.variables)
    return replace(fields, coords=replace(fields.coords, variables=named))


def _converted(fields: Fields, like: Fields) -> Fields:
    """The variables of `like` in its units, where both have units."""
    own = fields.only([v.name for v in like.variables if v.name in {o.name for o in fields.variables}])
    values = own.values.copy()
    for k, given in enumerate(own.variables):
        wanted = like.only([given.name]).variables[0]
        if given.units and wanted.units:
            values[:, k] = convert(values[:, k], given, wanted, f"'{given.name}' in {fields.source or 'the model'}")
    return replace(own, values=values)


def _one(fields: Fields, name: str) -> xr.DataArray:
    """One variable (time, lat, lon) in double precision."""
    own = fields.only([name])
    place = {"time": own.times, "lat": own.grid.lat, "lon": own.grid.lon}
    return xr.DataArray(own.values[:, 0].astype(np.float64), place, tuple(place), name, own.variables[0].cf_attrs())
