"""Which program do the data support? By leave-one-out predictive density, and by evidence."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

if TYPE_CHECKING:
    import pandas as pd

SOLID = 0.7  # Pareto k up to which leave-one-out can be trusted (Vehtari et al. 2024)


def compare(trees: Mapping[str, xr.DataTree]) -> "pd.DataFrame":
    """Several posteriors of the same data, the best first.

    Leave-one-out by Pareto smoothed importance sampling (Vehtari, Gelman & Gabry 2017, arXiv 1507.04544), where all
    posteriors have densities of their data: the table of `arviz.compare` (`elpd`, the expected log density of a datum
    left out, summed over data [nats]; `elpd_diff` and its standard error `dse`; `p`; stacking `weight`; ...), and
    `bad_k`, the part of the data whose Pareto k is above 0.7. With a whole field fitted to each datum that part is
    often large, and elpd means little. Evidence, where the sampler estimated it (`twisted_smc`): `log_evidence`,
    log p(y) [nats], and its standard error `log_evidence_se` over islands. What is not known is NaN.

    **Arguments:** `trees`, posterior trees by name, at least two, with the group `log_likelihood`, or with
    `sample_stats.log_evidence`, or both.
    **Raises:** ValueError for fewer than two, for trees that have neither, and for posteriors of other data.
    """
    import arviz as az
    import pandas as pd

    if len(trees) < 2:
        raise ValueError(f"expected at least two posteriors to compare, got {len(trees)}; give them by name")
    _same_data(trees)
    rows: dict[str, dict[str, float]] = {name: _evidence(tree) for name, tree in trees.items()}
    densities = {name: density for name, tree in trees.items() if (density := _pointwise(tree)) is not None}
    for name, row in rows.items():
        if name not in densities and np.isnan(row["log_evidence"]):
            raise ValueError(
                f"expected log-likelihoods or a log_evidence in every posterior, got neither in {name!r}; "
                "draw it again with this version"
            )
    table = pd.DataFrame(index=list(trees))
    if len(densities) == len(trees):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Estimated shape parameter", UserWarning)  # `bad_k` says it
            loos: dict[str, Any] = {name: az.loo(density, pointwise=True) for name, density in densities.items()}
            table = az.compare(loos, round_to="none")
        for name, loo in loos.items():
            rows[name]["bad_k"] = float(np.mean(np.asarray(loo.pareto_k) > SOLID))
    table = table.join(pd.DataFrame.from_dict(rows, orient="index"))
    return table if "elpd" in table else table.sort_values("log_evidence", ascending=False)


def _pointwise(tree: xr.DataTree) -> xr.DataTree | None:
    """The log-likelihood (chain, draw, datum) of all data that are not missing, as ArviZ wants it."""
    if "log_likelihood" not in tree.children:
        return None
    sites = tree["log_likelihood"].to_dataset().data_vars.values()
    flat = [site.transpose("chain", "draw", ...).values for site in sites]
    flat = [values.reshape(*values.shape[:2], -1) for values in flat]
    together = np.concatenate(flat, axis=2)
    known = together[:, :, np.isfinite(together).all(axis=(0, 1))]
    if not known.size:
        return None
    density = xr.Dataset({"data": (("chain", "draw", "datum"), known)})
    constant = xr.Dataset({"draw_number": (("chain", "draw"), np.arange(known[:, :, 0].size).reshape(known.shape[:2]))})
    return xr.DataTree.from_dict({"/log_likelihood": density, "/posterior": constant})


def _evidence(tree: xr.DataTree) -> dict[str, float]:
    """log p(y) of the islands of a particle sampler, and its standard error by the delta method."""
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree.children else xr.Dataset()
    if "log_evidence" not in stats:
        return {"log_evidence": np.nan, "log_evidence_se": np.nan}
    islands = np.asarray(stats["log_evidence"].isel(draw=0).values, np.float64)
    relative = np.exp(islands - islands.max())
    error = relative.std(ddof=1) / relative.mean() / np.sqrt(islands.size) if islands.size > 1 else np.nan
    return {"log_evidence": float(logsumexp(islands) - np.log(islands.size)), "log_evidence_se": float(error)}


def _same_data(trees: Mapping[str, xr.DataTree]) -> None:
    with_data = {name: tree for name, tree in trees.items() if "observed_data" in tree.children}
    seen = {name: tree["observed_data"].to_dataset() for name, tree in with_data.items()}
    for name, data in seen.items():
        first, reference = next(iter(seen.items()))
        same = set(data.data_vars) == set(reference.data_vars) and all(
            np.array_equal(data[site].values, reference[site].values, equal_nan=True) for site in data.data_vars
        )
        if not same:
            raise ValueError(f"expected posteriors of the same data, got others in {name!r} than in {first!r}")
