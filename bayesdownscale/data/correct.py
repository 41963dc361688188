"""Bias correction of whole files: every variable of a coarse model against a reference on any grid."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from .bias import BiasCorrection
from .errors import DataError, quoted, span
from .fields import Fields
from .grid import Coords
from .regrid import conservative_mean


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
    `method` and `window` as for `BiasCorrection.fit`.
    **Returns:** the variables that model and reference share, in the reference's units, NaN where it does not cover a
    coarse cell wholly.
    **Raises:** `DataError` where they share no variable or one of `multiplicative` or `wet` is not among them;
    ValueError as `BiasCorrection.fit`.
    """
    past = model if past is None else past
    shared = [v for v in reference.variables if v.name in {own.name for own in model.variables}]
    names, asked = {v.name for v in shared}, {*multiplicative, *(wet or {})}
    if not shared or not asked <= names:
        raise DataError(
            f"expected {quoted(sorted(asked)) if asked else 'a variable'} in model and reference, got "
            f"{quoted(v.name for v in model.variables)} and {quoted(v.name for v in reference.variables)}; rename them"
        )
    if reference.grid != model.grid:
        reference = conservative_mean(reference, model.grid)
    corrections = {}
    for variable in shared:
        name = variable.name
        before, wanted = _one(past, name), _one(reference, name)
        corrections[name] = BiasCorrection.fit(
            before, wanted, method, name in multiplicative, window, (wet or {}).get(name)
        )
    better = apply(model, corrections)
    return replace(better, coords=replace(better.coords, variables=tuple(shared))), corrections


def apply(model: Fields, corrections: Mapping[str, BiasCorrection]) -> Fields:
    """The variables of a coarse model that have a correction, in the order of these, corrected, in the units of the
    reference.

    **Raises:** `DataError` where none has one; ValueError as `BiasCorrection`.
    """
    names = [v.name for v in model.variables]
    place = [names.index(name) for name in corrections if name in names]
    if not place:
        raise DataError(
            f"expected a variable among {quoted(corrections)} in {model.source or 'the model'}, got "
            f"{quoted(names)}; fit a correction of it"
        )
    corrected, variables = [], []
    for k in place:
        better = corrections[model.variables[k].name](_one(model, model.variables[k].name))
        corrected.append(better.values.astype(np.float32))
        variables.append(replace(model.variables[k], units=str(better.attrs["units"])))
    methods = tuple(model.methods[k] for k in place) if model.methods else ()
    coords = Coords(model.times, tuple(variables), model.grid)
    return Fields(np.stack(corrected, axis=1), coords, model.source, model.bounds, methods)


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


def _one(fields: Fields, name: str) -> xr.DataArray:
    """One variable (time, lat, lon) in double precision."""
    names = [v.name for v in fields.variables]
    if name not in names:
        raise DataError(f"expected '{name}' in {fields.source or 'the past'}, got {quoted(names)}; give a file with it")
    k = names.index(name)
    place = {"time": fields.times, "lat": fields.grid.lat, "lon": fields.grid.lon}
    attrs = fields.variables[k].cf_attrs()
    return xr.DataArray(fields.values[:, k].astype(np.float64), place, tuple(place), name, attrs)
