"""Public data sets by name: what they are, where they lie, what their variables are called, and how to open a part."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pooch

from .datasets import _DATASETS, era5_uk
from .errors import DataError, quoted
from .fields import Fields
from .grid import Variable
from .places import fetched, is_store
from .read import open_fields

TAS = Variable("tas", "K", "air_temperature", "Near-Surface Air Temperature")
PSL = Variable("psl", "Pa", "air_pressure_at_mean_sea_level", "Sea Level Pressure")
UAS = Variable("uas", "m s-1", "eastward_wind", "Eastward Near-Surface Wind")
VAS = Variable("vas", "m s-1", "northward_wind", "Northward Near-Surface Wind")
PR = Variable("pr", "kg m-2 s-1", "precipitation_flux", "Precipitation")


@dataclass(frozen=True)
class Recipe:
    """A published data set: `what` it is; `licence`; `address`, with {} for what is chosen; `names`, what the file
    calls our `variables`; `needs`, packages to reach it; `note`, what to know before use; `extent`, of places and
    times, in words; `fields`, how it is filled in by default."""

    what: str
    licence: str
    address: str
    names: dict[str, str]
    variables: tuple[Variable, ...] = (TAS, PSL, UAS, VAS)
    needs: tuple[str, ...] = ()
    note: str = ""
    fields: dict[str, str] = field(default_factory=dict)


_ERA5 = {
    "tas": "2m_temperature",
    "psl": "mean_sea_level_pressure",
    "uas": "10m_u_component_of_wind",
    "vas": "10m_v_component_of_wind",
}
_COPERNICUS = "Copernicus Climate Change Service, free with attribution: Hersbach et al. 2020, doi:10.1002/qj.3803"
_PRECIPITATION = "precipitation is a sum over the hours before the time and is not mapped"

RECIPES = {
    "arco-era5": Recipe(
        "ERA5, the globe, hourly, 0.25 degrees, from 1940: analysis-ready Zarr of Google",
        _COPERNICUS + "; Carver and Merose 2023",
        "gs://gcp-public-data-arco-era5/ar/full_37-1h-0p25deg-chunk-1.zarr-v3",
        _ERA5,
        needs=("gcsfs",),
        note=f"a chunk is one hour of the globe, so a small region costs as much as all of it; {_PRECIPITATION}",
    ),
    "weatherbench2-era5": Recipe(
        "ERA5 of WeatherBench 2, the globe, 6-hourly, 1959 to 2023, 64 x 32 cells averaged conservatively",
        _COPERNICUS + "; Rasp et al. 2024, doi:10.1029/2023MS004019",
        "gs://weatherbench2/datasets/era5/1959-2023_01_10-6h-64x32_equiangular_conservative.zarr",
        _ERA5,
        needs=("gcsfs",),
        note=f"a coarse twin of arco-era5, dimensions (time, longitude, latitude); {_PRECIPITATION}",
    ),
    "cosmo-rea6": Recipe(
        "COSMO-REA6, Europe, hourly, 0.055 degrees on a rotated pole, 1995 to 2019: GRIB of the German weather service",
        "German weather service (DWD) open data, free with attribution: Bollmeyer et al. 2015, doi:10.1002/qj.2486",
        "https://opendata.dwd.de/climate_environment/REA/COSMO_REA6/hourly/2D/T_2M/T_2M.2D.{month}.grb.bz2",
        {"tas": "t2m"},
        (TAS,),
        needs=("cfgrib",),
        note="a month a file, of all Europe: large; `month` is such as 199501",
        fields={"month": "199501"},
    ),
    "cmip6-day": Recipe(
        "CMIP6, daily means of one model, experiment and variable: the Zarr stores of Pangeo",
        "the terms of each model, CC BY 4.0 for most: https://wcrp-cmip.github.io/WGCM_Infrastructure_Panel",
        "gs://cmip6/CMIP6/{activity}/{institution}/{model}/{experiment}/{member}/day/{variable}/{grid}/{version}/",
        {"tas": "tas", "psl": "psl", "uas": "uas", "vas": "vas", "pr": "pr"},
        (TAS, PSL, UAS, VAS, PR),
        needs=("gcsfs",),
        note="look the parts of the address up (those above are an example) in "
        "https://storage.googleapis.com/cmip6/pangeo-cmip6.csv; time means, "
        "in the model's own calendar; one variable a store",
        fields={
            "activity": "CMIP",
            "institution": "CNRM-CERFACS",
            "model": "CNRM-CM6-1",
            "experiment": "historical",
            "member": "r1i1p1f2",
            "variable": "tas",
            "grid": "gr",
            "version": "v20180917",
        },
    ),
}


def list_data() -> dict[str, str]:
    """What each data set is, by name."""
    uk = "ERA5 2 m temperature, the British Isles, hourly in March 2019, 0.25 degrees: 2.5 MB, checksum known"
    return {"era5-uk": uk} | {name: recipe.what for name, recipe in RECIPES.items()}


def open_data(
    name: str,
    variables: Sequence[str] | None = None,
    *,
    times: slice | None = None,
    region: tuple[float, float, float, float] | None = None,
    address: str | None = None,
    **fields: str,
) -> Fields:
    """A part of a public data set, with CMIP's names, units and standard names.

    **Arguments:** `name` of `list_data`; `variables` among the recipe's (all when not given); `times` and `region` as
    for `open_fields`; `address`, a copy of yours, laid out as the original; `fields`, the parts of the address that can
    be chosen, such as `month="199502"`.

    **Returns:** (time, variable, lat, lon).
    **Raises:** `DataError` for an unknown name, variable or part of the address, as `open_fields`, and in one sentence
    without network, driver or file.
    """
    known = list_data()
    if name not in known:
        raise DataError(f"expected a data set among {quoted(known)}, got '{name}'; choose among these")
    if name == "era5-uk":
        return era5_uk()
    recipe = RECIPES[name]
    if unknown := set(fields) - set(recipe.fields):
        raise DataError(
            f"expected parts of the address of '{name}' among {quoted(recipe.fields)}, got {quoted(unknown)}; "
            f"its address is {recipe.address}"
        )
    chosen = recipe.fields | fields
    mine = {v.name: v for v in recipe.variables}
    if "variable" in chosen:  # one a store
        mine = {key: v for key, v in mine.items() if key == chosen["variable"]}
    wanted = list(mine if variables is None else variables)
    if not wanted or not set(wanted) <= set(mine):
        raise DataError(
            f"expected variables of '{name}' among {quoted(mine)}, got {quoted(wanted)}; choose among these"
        )
    place = address or recipe.address.format(**chosen)
    if address is None and not is_store(place):
        place = str(downloaded(place))
    called = {key: recipe.names[key] for key in wanted}
    found = open_fields(place, called, times=times, region=region)
    labels = tuple(replace(mine[v.name], units=v.units or mine[v.name].units) for v in found.variables)
    return replace(found, coords=replace(found.coords, variables=labels), source=f"{name}: {recipe.address}")


def downloaded(address: str):
    """A file of the web, kept in pooch's cache and unpacked if it is a .bz2, .gz or .xz. Its publisher gives no
    checksum; `era5-uk` has one. Raises `DataError` without network."""
    if not address.startswith("http"):
        return fetched(address)
    packed = address.endswith((".bz2", ".gz", ".xz"))
    processor = pooch.Decompress(name=address.rsplit("/", 1)[-1].rsplit(".", 1)[0]) if packed else None
    try:
        return pooch.retrieve(address, known_hash=None, path=pooch.os_cache("bayesdownscale"), processor=processor)
    except (OSError, ValueError) as error:
        raise DataError(
            f"expected to download {address}, got {type(error).__name__}; connect to the network, or get the file "
            "elsewhere and pass its path as address"
        ) from error


def described(name: str) -> str:
    """All that a recipe tells, for people. Raises `DataError` for an unknown name."""
    if name not in list_data():
        raise DataError(f"expected a data set among {quoted(list_data())}, got '{name}'; choose among these")
    if name == "era5-uk":
        return f"{list_data()[name]}\n  licence: {_COPERNICUS}\n  address: {_DATASETS[name].url}"
    recipe = RECIPES[name]
    lines = [recipe.what, f"licence: {recipe.licence}", f"address: {recipe.address}"]
    if recipe.fields:
        lines.append("choose: " + ", ".join(f"{key}={value}" for key, value in recipe.fields.items()))
    lines.append("variables: " + ", ".join(f"{ours} ({theirs})" for ours, theirs in recipe.names.items()))
    if recipe.needs:
        lines.append("needs: pip install " + " ".join(recipe.needs))
    return "\n  ".join([*lines, f"note: {recipe.note}"])
