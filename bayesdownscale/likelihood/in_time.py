"""Which operator in time a coarse file asks for: it says whether its values are snapshots or means."""

import numpy as np

from bayesdownscale.data.fields import Fields

from .operators import LinearOperator, snapshots, time_mean


def seen_in_time(fine_times: np.ndarray, coarse: Fields) -> LinearOperator:
    """What coarse fields show of fine ones in time, as their file says it: `snapshots` of values at points in time,
    `time_mean` of means (a 6-hour mean is no snapshot).

    Means are known by their cell_methods ("time: mean") and lie between their bounds; without cell_methods, values with
    bounds are means and values without are snapshots. Raises `ValueError` for means without bounds (`open_coarse`
    knows those of means stamped at their middle, such as daily ones at noon), for methods that are not linear
    (maximum) or not means (sum), and where the variables differ in their methods.
    """
    kinds = {method or ("point" if coarse.bounds is None else "mean") for method in coarse.methods or ("",)}
    where = coarse.source or "the coarse fields"
    if kinds == {"point"}:
        return snapshots(fine_times, coarse.times)
    if kinds != {"mean"}:
        raise ValueError(
            f"expected all variables of {where} to be snapshots (cell_methods 'time: point') or all to be means "
            f"('time: mean'), got {', '.join(sorted(kinds))}; leave variables out, or make means of them"
        )
    if coarse.bounds is None:
        raise ValueError(
            f"expected time_bnds with the means in {where}, got none, and times that may be their starts or ends; say "
            "which with fields.stamped_at('start'), or --stamp start"
        )
    return time_mean(fine_times, coarse.bounds)
