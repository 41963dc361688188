"""How the draws of one variable hang together in space and time, beside the truth and the interpolated input."""

from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from bayesdownscale.diagnostics.layout import FieldDraws
from bayesdownscale.diagnostics.spectra import log_ratio, radial_spectrum, temporal_spectrum
from bayesdownscale.diagnostics.structure import jerk_ratio, lag1_autocorrelation, second_difference_energy

MOST, NUMBERS = 50, 2**24  # draws looked at, and values of them in memory at once
SPECTRA = {"radial_spectrum": radial_spectrum, "temporal_spectrum": temporal_spectrum}
Spectra = dict[str, dict[str, xr.DataArray]]


def structure(field: FieldDraws, interpolation: xr.DataArray | None) -> tuple[dict[str, Any], Spectra, list[str]]:
    """Statistics of each of at most 50 draws, of the truth and of the interpolated input. Of long runs on large grids,
    those in time are of some rows of cells and those in space of some times.

    **Returns:** by statistic `posterior` (its mean over draws), `range` (90 % of the draws), `truth` and
    `interpolation`, None where unknown; of spectra these are the mean log10 ratio to the truth's spectrum (to that of
    the draws for `range`, which says what one weather may differ by chance); the spectra themselves; and in
    sentences what could not be computed.
    """
    step = -(-field.ensemble.sizes["draw"] // MOST)
    known = {"posterior": field.ensemble.isel(draw=slice(None, None, step)), "truth": field.truth}
    known |= {"interpolation": interpolation}
    fields = {what: values for what, values in known.items() if values is not None}
    by_kind = {"time": _thinned(fields, "lat"), "space": _thinned(fields, "time")}
    series: dict[str, Callable[[xr.DataArray], xr.DataArray]] = {
        "lag1_autocorrelation": lag1_autocorrelation,
        "second_difference_energy": second_difference_energy,
    }
    observed = field.observed
    if observed is not None and not bool(observed.all()):
        series["jerk_ratio"] = lambda x: jerk_ratio(x, observed)
    numbers: dict[str, Any] = {}
    spectra: Spectra = {}
    why: dict[str, None] = {}
    for name, function in (series | SPECTRA).items():
        found: dict[str, xr.DataArray] = {}
        for what, values in by_kind["space" if name == "radial_spectrum" else "time"].items():
            if name == "jerk_ratio" and what == "interpolation":
                continue  # linear in time between hours with input, it has no jerk at all at other hours
            try:
                found[what] = function(values)
            except ValueError as error:
                why[f"{field.name}: no {name.replace('_', ' ')} of the {what}: {error}."] = None
        if "posterior" not in found:
            continue
        if name in SPECTRA:
            spectra[name] = found
            numbers[name] = _ratios(found)
        else:
            numbers[name] = _numbers(found)
    return numbers, spectra, list(why)


def _thinned(fields: dict[str, xr.DataArray], dim: str) -> dict[str, xr.DataArray]:
    """The fields in memory, with fewer places along `dim` where the draws are too large for it."""
    posterior = fields["posterior"]
    n = int(np.clip(NUMBERS * posterior.sizes[dim] // posterior.size, 1, posterior.sizes[dim]))
    places = np.round(np.linspace(0, posterior.sizes[dim] - 1, n)).astype(int)
    return {what: values.isel({dim: places}).load() for what, values in fields.items()}


def _numbers(found: dict[str, xr.DataArray]) -> dict[str, Any]:
    draws = found["posterior"].values
    known = {what: float(found[what]) if what in found else None for what in ("truth", "interpolation")}
    return {"posterior": float(draws.mean()), "range": _range(draws), **known}


def _ratios(found: dict[str, xr.DataArray]) -> dict[str, Any]:
    draws = found["posterior"]
    mean = draws.mean("draw")
    if not bool((mean > 0).all()):
        return {}
    alone = log_ratio(draws, mean)[0].values if draws.sizes["draw"] > 1 and bool((draws > 0).all()) else np.zeros(0)
    out: dict[str, Any] = {"posterior": None, "interpolation": None, "range": _range(alone)}
    if "truth" in found and bool((found["truth"] > 0).all()):
        out["posterior"] = float(log_ratio(mean, found["truth"])[0])
        if "interpolation" in found and bool((found["interpolation"] > 0).all()):
            out["interpolation"] = float(log_ratio(found["interpolation"], found["truth"])[0])
    return out


def _range(draws: np.ndarray) -> list[float] | None:
    return [float(q) for q in np.quantile(draws, [0.05, 0.95])] if draws.size > 1 else None
