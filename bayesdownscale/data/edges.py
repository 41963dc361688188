"""Cell edges from cell centres or from CF bounds."""

import numpy as np


def edges_from_centres(centres: np.ndarray) -> np.ndarray:
    """Cell edges (n + 1,) half-way between cell centres (n,), the outer cells as wide as their neighbours."""
    centres = np.asarray(centres, dtype=np.float64)
    if centres.ndim != 1 or centres.size < 2:
        raise ValueError(
            f"expected at least two cell centres along an axis to find cell edges, got {centres.size}; "
            "give the cell bounds"
        )
    steps = np.diff(centres)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        raise ValueError("expected cell centres in increasing or decreasing order; sort the axis first")
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[centres[0] - steps[0] / 2], middle, [centres[-1] + steps[-1] / 2]])


def edges_from_bounds(centres: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """Cell edges (n + 1,) in the order of the centres (n,), from CF bounds (n, 2) [degrees] in any order.

    Each bound goes to the turn of its centre: a cell around 0 may be stored as 359 to 1.
    Raises `ValueError` where neighbouring cells do not touch.
    """
    offset = (bounds - centres[:, None] + 180) % 360 - 180
    low, high = centres + offset.min(axis=1), centres + offset.max(axis=1)
    first, last = (low, high) if centres[0] <= centres[-1] else (high, low)
    if not np.allclose(last[:-1], first[1:], rtol=0, atol=1e-3 * np.abs(high - low).max()):
        raise ValueError("expected neighbouring cells to touch, got gaps or overlaps; correct the cell bounds")
    return np.round(np.append(first, last[-1]), 9)
