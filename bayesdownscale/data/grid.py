"""Where and what a field is: the grid, the variables and the times. Labels live here, arrays elsewhere."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

EARTH_RADIUS_KM = 6371.0
OVERLAP_TOLERANCE = 1e-6  # degrees
FILL_VALUE = np.float32(1e20)  # what stands for a missing value in files, as in CMIP


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
        raise ValueError(
            "expected neighbouring cells to touch, got gaps or overlaps; correct the cell bounds"
        )
    return np.round(np.append(first, last[-1]), 9)


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular latitude-longitude grid.

    **Arguments:** `lat` (n_lat,) and `lon` (n_lon,) cell centres in degrees, in either order; `lat_bounds`
    (n_lat + 1,) and `lon_bounds` (n_lon + 1,) cell edges in degrees, in the order of the centres
    (half-way between centres when not given).
    """

    lat: np.ndarray
    lon: np.ndarray
    lat_bounds: np.ndarray = field(default=None)  # type: ignore[assignment]
    lon_bounds: np.ndarray = field(default=None)  # type: ignore[assignment]

    def __post_init__(self):
        for name in ("lat", "lon"):
            centres = np.asarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, centres)
            bounds = getattr(self, f"{name}_bounds")
            bounds = edges_from_centres(centres) if bounds is None else np.asarray(bounds, dtype=np.float64)
            if bounds.shape != (centres.size + 1,):
                raise ValueError(f"expected {centres.size + 1} {name} edges, got an array of {bounds.shape}")
            if name == "lat":
                bounds = np.clip(bounds, -90.0, 90.0)
            object.__setattr__(self, f"{name}_bounds", bounds)

    @property
    def shape(self) -> tuple[int, int]:
        return self.lat.size, self.lon.size

    def cell_areas(self) -> np.ndarray:
        """Cell areas (n_lat, n_lon) on the unit sphere [sr]."""
        heights = np.abs(np.diff(np.sin(np.deg2rad(self.lat_bounds))))
        widths = np.abs(np.diff(np.deg2rad(self.lon_bounds)))
        return heights[:, None] * widths[None, :]

    def distances_km(self) -> np.ndarray:
        """Great-circle distances (cells, cells) between cell centres [km], cells in row-major order."""
        lat, lon = np.meshgrid(np.deg2rad(self.lat), np.deg2rad(self.lon), indexing="ij")
        lat, lon = lat.ravel(), lon.ravel()
        haversine = (
            np.sin((lat[:, None] - lat) / 2) ** 2
            + np.cos(lat[:, None]) * np.cos(lat) * np.sin((lon[:, None] - lon) / 2) ** 2
        )
        return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.clip(haversine, 0, 1)))

    def coarsen(self, factor: int) -> "Grid":
        """The grid whose cells are blocks of `factor` x `factor` cells; both sizes are multiples of it."""
        if self.lat.size % factor or self.lon.size % factor:
            raise ValueError(
                f"expected a grid whose sizes are multiples of {factor}, got {self.shape}; "
                "crop the grid or choose another factor"
            )
        lat_bounds, lon_bounds = self.lat_bounds[::factor], self.lon_bounds[::factor]
        lat, lon = (lat_bounds[1:] + lat_bounds[:-1]) / 2, (lon_bounds[1:] + lon_bounds[:-1]) / 2
        return Grid(lat, lon, lat_bounds, lon_bounds)

    def crop(self, n_lat: int, n_lon: int) -> "Grid":
        """The first `n_lat` rows and `n_lon` columns."""
        return Grid(
            self.lat[:n_lat], self.lon[:n_lon], self.lat_bounds[: n_lat + 1], self.lon_bounds[: n_lon + 1]
        )

    def restrict(self, domain: "Grid") -> "tuple[np.ndarray, np.ndarray, Grid, np.ndarray]":
        """The cells of this coarse grid that overlap a prior's `domain`, in the order and convention of that.

        **Returns:** their rows and columns in this grid, the grid they form, and which lie fully inside
        (rows, columns). Raises `ValueError` where none does, or cells do not lie side by side.
        """
        middle = (domain.lon_bounds[0] + domain.lon_bounds[-1]) / 2
        turns = 360 * np.round((middle - self.lon) / 360)
        axes = []
        for centres, bounds, shift, limits in (
            (self.lat, self.lat_bounds, 0.0, domain.lat_bounds),
            (self.lon, self.lon_bounds, turns, domain.lon_bounds),
        ):
            edges = np.sort(np.round(np.stack([bounds[:-1] + shift, bounds[1:] + shift]), 9), axis=0)
            centres, start, stop = np.round(centres + shift, 9), min(limits), max(limits)
            overlaps = np.minimum(edges[1], stop) - np.maximum(edges[0], start) > OVERLAP_TOLERANCE
            inside = (edges[0] >= start - OVERLAP_TOLERANCE) & (edges[1] <= stop + OVERLAP_TOLERANCE)
            order = np.argsort(centres)
            if limits[0] > limits[-1]:
                order, edges = order[::-1], edges[::-1]
            index = order[overlaps[order]]
            axes.append((index, centres[index], edges[:, index], inside[index]))
            touch = np.allclose(
                edges[1, index[:-1]], edges[0, index[1:]], rtol=0, atol=1e-3 * np.ptp(edges, 0).max()
            )
            if not touch:
                raise ValueError(
                    "expected each cell once, side by side, got gaps or repeated cells; cut the grid"
                )
        (rows, lat, lat_edges, lat_inside), (columns, lon, lon_edges, lon_inside) = axes
        if not (lat_inside.any() and lon_inside.any()):
            raise ValueError(
                f"coarse grid outside the prior's domain: expected whole cells within {domain.extent()}, "
                f"got {self.extent()}; choose files of one region"
            )
        lat_bounds, lon_bounds = (np.append(e[0], e[1, -1]) for e in (lat_edges, lon_edges))
        return rows, columns, Grid(lat, lon, lat_bounds, lon_bounds), lat_inside[:, None] & lon_inside

    def extent(self) -> str:
        """The outer edges in words, for messages."""
        lat, lon = self.lat_bounds, self.lon_bounds
        return f"lat {min(lat):g} to {max(lat):g} and lon {min(lon):g} to {max(lon):g}"

    def _key(self) -> tuple:
        return tuple(a.tobytes() for a in (self.lat, self.lon, self.lat_bounds, self.lon_bounds))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True)
class Variable:
    """A physical variable: `name` in files and trees, `units` (UDUNITS), CF `standard_name` or ""."""

    name: str
    units: str
    standard_name: str = ""
    long_name: str = ""

    def cf_attrs(self) -> dict[str, str]:
        """The CF attributes that are known: units, standard_name, long_name."""
        attrs = {"units": self.units, "standard_name": self.standard_name, "long_name": self.long_name}
        return {key: value for key, value in attrs.items() if value}


@dataclass(frozen=True, eq=False)
class Coords:
    """The labels of a field (time, variable, lat, lon): `times` (n_time,) datetime64[ns], UTC."""

    times: np.ndarray
    variables: tuple[Variable, ...]
    grid: Grid

    def __post_init__(self):
        object.__setattr__(self, "times", np.asarray(self.times, dtype="datetime64[ns]"))
        object.__setattr__(self, "variables", tuple(self.variables))

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.times.size, len(self.variables), *self.grid.shape

    def to_xarray(self) -> "dict[str, xr.Variable]":
        """The CF coordinate variables: time, lat, lon and their bounds, with attributes and encodings."""
        import xarray as xr

        whole_seconds = np.all(self.times == self.times.astype("datetime64[s]"))
        time_encoding = {
            "units": "seconds since 1970-01-01",
            "calendar": "proleptic_gregorian",
            "dtype": "int64" if whole_seconds else "float64",
        }
        time_attrs = {"standard_name": "time", "long_name": "time", "axis": "T"}
        out = {"time": xr.Variable("time", self.times, time_attrs, time_encoding)}
        # CF allows no missing values in coordinates, and bounds take their attributes from their coordinate.
        hygiene = {"dtype": "float64", "_FillValue": None, "coordinates": None}
        for name, long_name, units, axis in (
            ("lat", "latitude", "degrees_north", "Y"),
            ("lon", "longitude", "degrees_east", "X"),
        ):
            attrs = {"standard_name": long_name, "long_name": long_name, "units": units, "axis": axis}
            centres, edges = getattr(self.grid, name), getattr(self.grid, f"{name}_bounds")
            out[name] = xr.Variable(name, centres, attrs, {"bounds": f"{name}_bnds"} | hygiene)
            bounds = np.stack([edges[:-1], edges[1:]], axis=1)
            out[f"{name}_bnds"] = xr.Variable((name, "bnds"), bounds, {}, dict(hygiene))
        return out

    def _key(self) -> tuple:
        return self.times.tobytes(), self.variables, self.grid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Coords) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())


@dataclass(frozen=True, eq=False)
class Fields:
    """Values with their labels: `values` (time, variable, lat, lon) float32, NaN where missing; `source`
    says where they came from."""

    values: np.ndarray
    coords: Coords
    source: str = ""

    def __post_init__(self):
        if self.values.shape != self.coords.shape:
            raise ValueError(f"expected values of shape {self.coords.shape}, got {self.values.shape}")

    @property
    def times(self) -> np.ndarray:
        return self.coords.times

    @property
    def grid(self) -> Grid:
        return self.coords.grid

    @property
    def variables(self) -> tuple[Variable, ...]:
        return self.coords.variables

    def isel_times(self, index: "slice | int | np.ndarray | list[int]") -> "Fields":
        """The fields at the times `index` (positions); a single position keeps the time axis."""
        index = np.atleast_1d(np.arange(self.times.size)[index])
        return replace(
            self, values=self.values[index], coords=replace(self.coords, times=self.coords.times[index])
        )

    def crop(self, n_lat: int, n_lon: int) -> "Fields":
        """The first `n_lat` rows and `n_lon` columns."""
        coords = replace(self.coords, grid=self.coords.grid.crop(n_lat, n_lon))
        return replace(self, values=self.values[:, :, :n_lat, :n_lon], coords=coords)

    def to_dataset(self) -> "xr.Dataset":
        """A CF dataset with one data variable (time, lat, lon) in its own units per `Variable`."""
        import xarray as xr

        data = {
            variable.name: xr.Variable(
                ("time", "lat", "lon"),
                self.values[:, k],
                variable.cf_attrs(),
                {"dtype": "float32", "_FillValue": FILL_VALUE},
            )
            for k, variable in enumerate(self.variables)
        }
        attrs = {"Conventions": "CF-1.11"} | ({"source": self.source} if self.source else {})
        return xr.Dataset(data, coords=self.coords.to_xarray(), attrs=attrs)
