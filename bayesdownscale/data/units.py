"""Units as CF files spell them, converted by pint."""

import re
import tokenize

import numpy as np
import pint

from .errors import DataError
from .grid import Variable

_UNIT_NAMES = {  # UDUNITS spellings that pint does not know
    r"deg(ree|rees)?_?C(elsius)?|Celsius": "degC",
    r"Kelvin|deg_?K": "kelvin",
    r"fraction": "dimensionless",
}
_REGISTRY: pint.UnitRegistry = pint.UnitRegistry()
_WATER = re.compile(r"(pr|prc|prsn|tp|cp|lsp|evspsbl|mrro)$|.*(precipitation|rain|snowfall|evaporation|runoff)")
_PER_AREA = {"kg m**-2": "mm", "kg m**-2 s**-1": "mm s**-1"}  # of water, 1000 kg m-3


def convert(values: np.ndarray, given: Variable, wanted: Variable, where: str) -> np.ndarray:
    """float32 values in the units `wanted`, from those `given`; of precipitation, evaporation and runoff also between
    the mass of water and its depth (1 kg m-2 is 1 mm)."""
    if not given.units:
        raise DataError(
            f"expected units convertible to {wanted.units} for {where}, got none; set its 'units' attribute, or say them with "
            f"--units {given.name}=..."
        )
    try:
        source, target = (_REGISTRY.Unit(_to_pint(units)) for units in (given.units, wanted.units))
        if source == target:
            return values
        if any(_WATER.match(name) for name in (given.name, given.standard_name, wanted.name, wanted.standard_name)):
            source, target = _as_depth(source), _as_depth(target)
        return _REGISTRY.Quantity(values.astype(np.float64), source).to(target).magnitude.astype(np.float32)
    except (pint.PintError, ValueError, TypeError, AttributeError, SyntaxError, tokenize.TokenError) as error:
        to = wanted.units or "the prior's, which are not set,"
        raise DataError(
            f"expected units convertible to {to} for {where}, got '{given.units}'; correct the 'units' "
            "attribute or convert the values"
        ) from error


def _as_depth(units: pint.Unit) -> pint.Unit:
    """The units of a depth of water, or its rate, that stand for those of its mass on an area; others as they are."""
    for mass, depth in _PER_AREA.items():
        if units.is_compatible_with(mass):
            return _REGISTRY.Unit(units / _REGISTRY.Unit(mass) * _REGISTRY.Unit(depth))
    return units


def _to_pint(units: str) -> str:
    """Unit text in pint's syntax from UDUNITS, as CF files write it: "kg m-2 s-1" -> "kg m**-2 s**-1"."""
    units = "1" if units.strip() == "(0 - 1)" else units.strip()
    for spelling, name in _UNIT_NAMES.items():
        units = re.sub(rf"\b({spelling})(?=[-\d]|\b)", name, units)
    units = re.sub(r"(?<=\w)\.(?=[A-Za-z])", " ", units)  # "W.m-2"
    return re.sub(r"(?<=[A-Za-z])\^?([-+]?\d+)", r"**\1", units)
