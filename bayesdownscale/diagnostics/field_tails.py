"""The tail of one variable: values that the input hardly ever has, their scores and their reliability."""

from typing import Any

import xarray as xr

from bayesdownscale.diagnostics.events import brier, reliability, tw_crps
from bayesdownscale.diagnostics.layout import FieldDraws
from bayesdownscale.diagnostics.scores import domain_mean

RARE = 0.95  # quantile of the input, which does not depend on what is judged by it


def tail_scores(
    field: FieldDraws, interpolation: xr.DataArray | None
) -> tuple[dict[str, Any] | None, xr.Dataset | None]:
    """Scores of the event that a value is above the 95 % quantile of the input, and the event's `reliability`.

    **Arguments:** `field`, with a truth and two draws or more; `interpolation`, its input interpolated.
    **Returns:** `threshold`, `frequency` of the event, `tw_crps` and `brier`, of the posterior and of the
    `interpolation` (its threshold-weighted CRPS is the error of the part above), and Murphy's parts; None where there
    is no input, or the truth is nowhere above.
    """
    ensemble, truth, coarse = field.ensemble, field.truth, field.coarse
    if coarse is None or truth is None or interpolation is None:
        return None, None
    threshold = float(coarse.quantile(RARE))
    diagram = reliability(ensemble, truth, threshold)
    known = truth.notnull()
    happened = (truth > threshold).where(known).astype(float)
    frequency = float(domain_mean(happened))
    if frequency == 0.0:
        return None, None
    above = lambda values: values.clip(min=threshold)
    numbers = {
        "threshold": threshold,
        "quantile_of_input": RARE,
        "frequency": frequency,
        "tw_crps": float(domain_mean(tw_crps(ensemble, truth, threshold))),
        "brier": float(domain_mean(brier(ensemble, truth, threshold))),
        "interpolation_tw_crps": float(domain_mean(abs(above(interpolation) - above(truth)))),
        "interpolation_brier": float(domain_mean(((interpolation > threshold).astype(float) - happened) ** 2)),
    }
    return numbers | {name: float(diagram[name]) for name in ("reliability", "resolution", "uncertainty")}, diagram
