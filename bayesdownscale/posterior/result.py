"""Draws with their labels: the result of every sampler, and its ArviZ DataTree."""

import datetime
import warnings
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np
import xarray as xr

from bayesdownscale.data.fields import Fields
from bayesdownscale.data.grid import Coords, Grid, Variable
from bayesdownscale.data.results import coords_of
from bayesdownscale.data.rotated import RotatedPole

CHUNK = 2**24  # bytes of a field in one piece of a Zarr store, about
AXES = ("time", "variable", "lat", "lon")
COARSE_DIMS = ("time_coarse", "variable", "lat_coarse", "lon_coarse")
PACKAGES = ("jax", "equinox", "diffrax", "numpyro")
STATS = {
    "n_evaluations": ("evaluations of the prior's denoiser", "1"),
    "n_products": ("vector-Jacobian products of the prior's denoiser", "1"),
    "krylov_iterations": ("Krylov iterations, summed over solver steps", "1"),
    "coarse_residual": ("root mean square of (y - H x) / noise standard deviation", "1"),
    "diverging": ("draw with a number that is not finite, or after a trajectory of NUTS that diverged", "1"),
    "acceptance": ("probability of accepting the proposal", "1"),
    "noising": ("noise level from which a field was proposed", "1"),
    "log_evidence": ("estimate of log p(y | theta)", "1"),
    "ess": ("effective number of particles when the field was drawn", "1"),
}


@dataclass
class Posterior:
    """Draws from p(x, theta | y).

    `field_name`: the field's site; `fields` (draw, time, variable, lat, lon) in physical units; `theta`: each
    (draw, ...); `stats`: each (draw,); `observed`: the data of each observed site; `labels`: the `Fields`
    that a site observes, for their coordinates; `attrs`: provenance; `chains`: in how many runs of the same length
    the draws were made, one after the other; `log_likelihood`: the density of each datum of each observed site
    (draw, ...), NaN where missing, for leave-one-out.
    """

    field_name: str
    fields: np.ndarray
    theta: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    observed: dict[str, np.ndarray]
    coords: Coords
    labels: dict[str, Fields] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    chains: int = 1
    log_likelihood: dict[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self):
        with np.errstate(invalid="ignore", over="ignore"):
            sums = [values.reshape(len(values), -1).sum(1) for values in (self.fields, *self.theta.values())]
        bad = ~np.isfinite(sums).all(0)
        if bad.all():
            raise FloatingPointError(
                f"expected finite draws, got none among {bad.size}; the likelihood overflows or the prior does not "
                "fit the data: check units and noise scale"
            )
        if bad.any():
            warnings.warn(
                f"{int(bad.sum())} of {bad.size} draws are not finite; they are among those marked in "
                "sample_stats.diverging and must not be used",
                RuntimeWarning,
                stacklevel=3,
            )

    def get_samples(self) -> dict[str, np.ndarray]:
        """All draws by site name, as NumPyro's MCMC gives them."""
        return {self.field_name: self.fields, **self.theta}

    def to_datatree(self, truth: Fields | None = None) -> xr.DataTree:
        """An ArviZ 1.x DataTree: `posterior` with one variable per physical variable (chain, draw, time, lat,
        lon) and one per parameter, `sample_stats`, `log_likelihood`, `observed_data`, and `truth` when it is known."""
        n = self.fields.shape[0]
        chain_draw = {"chain": np.arange(self.chains), "draw": np.arange(n // self.chains)}
        by_chain = lambda a: a.reshape(self.chains, n // self.chains, *a.shape[1:])
        rows, columns = self.coords.grid.shape
        times = max(1, min(self.coords.shape[0], CHUNK // max(1, 4 * n * rows * columns // self.chains)))
        encoding = {"chunks": (1, n // self.chains, times, rows, columns)}  # all draws of a chain together
        posterior: dict[str, Any] = {
            v.name: (("chain", "draw", "time", "lat", "lon"), by_chain(self.fields[:, :, k]), v.cf_attrs(), encoding)
            for k, v in enumerate(self.coords.variables)
        }
        for name, value in self.theta.items():
            dims = ("chain", "draw", *(f"{name}_dim_{i}" for i in range(value.ndim - 1)))
            posterior[name] = (dims, by_chain(value))
        stats = {
            name: (("chain", "draw"), by_chain(value), dict(zip(("long_name", "units"), STATS[name], strict=True)))
            for name, value in self.stats.items()
        }
        place, observed = self.coords.to_xarray(), self._observed_data()
        groups = {
            "/": xr.Dataset(attrs={**self.attrs, "field_name": self.field_name, "draws": n}),
            "/posterior": xr.Dataset(posterior, {**chain_draw, **{n: place[n] for n in ("time", "lat", "lon")}}),
            "/sample_stats": xr.Dataset(stats, chain_draw),
            "/observed_data": observed,
        }
        if self.log_likelihood:
            dims = lambda name, ndim: ("chain", "draw", *observed[name].dims[: ndim - 1])
            densities = {n: (dims(n, v.ndim), by_chain(v)) for n, v in self.log_likelihood.items()}
            groups["/log_likelihood"] = xr.Dataset(densities, chain_draw | dict(observed.coords))
        if truth is not None:
            groups["/truth"] = truth.to_dataset()
        return xr.DataTree.from_dict(groups)

    @staticmethod
    def from_datatree(tree: xr.DataTree) -> "Posterior":
        """The draws in a tree that `to_datatree` made, or that was read from a file: its inverse. A truth stays
        behind. **Raises** `DataError` where the tree holds no fields."""
        coords, posterior = coords_of(tree), tree["posterior"].to_dataset()
        attrs = {str(name): value for name, value in tree.attrs.items()}
        names = [variable.name for variable in coords.variables]
        group = lambda name: tree[name].to_dataset() if name in tree.children else xr.Dataset()
        flat = lambda array: array.values.reshape(-1, *array.shape[2:])
        by_site = lambda dataset: {str(name): flat(array) for name, array in dataset.data_vars.items()}
        observed = group("observed_data")
        attrs.pop("draws", None)
        return Posterior(
            field_name=attrs.pop("field_name", "weather"),
            fields=np.stack([flat(posterior[name]) for name in names], axis=2),
            theta=by_site(posterior.drop_vars(names)),
            stats=by_site(group("sample_stats")),
            observed={str(name): array.values for name, array in observed.data_vars.items()},
            coords=coords,
            labels={str(name): found for name, array in observed.data_vars.items() if (found := _labelled(array))},
            attrs=attrs,
            chains=posterior.sizes["chain"],
            log_likelihood=by_site(group("log_likelihood")),
        )

    def _observed_data(self) -> xr.Dataset:
        data, coords = {}, {}
        dims = _dims_by_site(self.labels)
        for name, value in self.observed.items():
            if name in self.labels:
                labels, place = self.labels[name].coords, self.labels[name].coords.to_xarray()
                time, variable, lat, lon = dims[name]
                for dim, axis in ((time, "time"), (lat, "lat"), (lon, "lon")):
                    coords[dim] = (dim, place[axis].values, place[axis].attrs)
                coords[variable] = (variable, [v.name for v in labels.variables])
                units = {v.units for v in labels.variables}
                data[name] = (dims[name], value, {"units": units.pop()} if len(units) == 1 else {})
            else:
                data[name] = (tuple(f"{name}_dim_{i}" for i in range(value.ndim)), value)
        return xr.Dataset(data, coords)


def _dims_by_site(labels: dict[str, Fields]) -> dict[str, tuple[str, ...]]:
    """The dimensions of each labelled site: `COARSE_DIMS` for the first and all with its coordinates, names of their
    own for others."""
    first = "coarse" if "coarse" in labels else next(iter(labels), "")
    own = lambda name: tuple(f"{axis}_{name}" for axis in AXES)
    return {name: COARSE_DIMS if f.coords == labels[first].coords else own(name) for name, f in labels.items()}


def _labelled(site: xr.DataArray) -> Fields | None:
    """The data of a site with their coordinates; None for one without."""
    named = site.dims in (COARSE_DIMS, tuple(f"{axis}_{site.name}" for axis in AXES))
    if not (named and set(site.dims) <= set(site.coords)):
        return None
    time, variable, lat, lon = (site[dim] for dim in site.dims)
    units = str(site.attrs.get("units", ""))
    variables = tuple(Variable(str(name), units) for name in variable.values)
    grid = Grid(lat.values, lon.values, pole=RotatedPole.from_attrs(lat.attrs))
    return Fields(site.values, Coords(time.values, variables, grid))


def provenance(method: str, **settings: Any) -> dict[str, Any]:
    """What to store with a result: package versions, device, time, and the `settings` of the run."""
    try:
        own = version("bayesdownscale")
    except PackageNotFoundError:
        own = "not installed"
    return {
        "bayesdownscale_version": own,
        "method": method,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": jax.devices()[0].device_kind,
        **{f"{p}_version": version(p) for p in PACKAGES},
        **settings,
    }
