"""A checksum of what a run is made of: arrays, labels, settings and programs, the same in every process."""

import functools
import hashlib
import inspect
import re
import types
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from numpyro.distributions import Distribution

from bayesdownscale.data.grid import Coords

ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")  # of an object in memory: another one in every process
PLAIN = bool | int | float | complex | str | bytes | np.generic | None


def digest(tree: PyTree) -> str:
    """The SHA-256 of all leaves of a tree with their places, shapes and types. Labels count by value, functions by what
    they do (see `code_of`), other objects by their type and attributes."""
    sha = hashlib.sha256()
    _add(sha, tree, {})
    return sha.hexdigest()


def structure(tree: PyTree) -> str:
    """What a tree holds besides its leaves, such as the window of a denoiser, in words."""
    with np.printoptions(threshold=2**31, floatmode="unique"):
        return without_addresses(str(jax.tree.structure(tree)))


def without_addresses(text: str) -> str:
    return ADDRESS.sub("", text)


def _add(sha: Any, tree: PyTree, met: dict[int, tuple[int, Any]]) -> None:
    """`met`: the functions and objects that were added before, which may refer to themselves, with their numbers; kept
    here, so that no other object takes their address."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda a: a is None)[0]:
        sha.update(f"|{jax.tree_util.keystr(path)}|{type(leaf).__name__}|".encode())
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        if eqx.is_array_like(leaf) or (isinstance(leaf, np.ndarray) and leaf.dtype != object):
            array = np.asarray(leaf)
            sha.update(f"{array.dtype}{array.shape}".encode() + np.ascontiguousarray(array).tobytes())
        elif isinstance(leaf, PLAIN):
            sha.update(repr(leaf).encode())
        elif isinstance(leaf, Coords):
            edges = leaf.grid.lat, leaf.grid.lon, leaf.grid.lat_bounds, leaf.grid.lon_bounds
            _add(sha, (leaf.times, *edges, repr(leaf.variables), repr(leaf.grid.pole)), met)
        elif id(leaf) in met:
            sha.update(f"number {met[id(leaf)][0]}".encode())
        else:
            met[id(leaf)] = len(met), leaf
            parts = _parts(leaf)
            sha.update(structure(parts).encode())
            _add(sha, parts, met)


def _parts(leaf: Any) -> PyTree:
    """What makes one leaf that is neither an array nor plain what it is."""
    if isinstance(leaf, functools.partial):
        return leaf.func, leaf.args, leaf.keywords
    if inspect.ismethod(leaf):
        return leaf.__func__, leaf.__self__
    if inspect.isfunction(leaf):
        return code_of(leaf)
    if hasattr(leaf, "__wrapped__"):  # such as a function under jit
        return leaf.__wrapped__
    if isinstance(leaf, type) or inspect.isbuiltin(leaf) or inspect.ismodule(leaf):
        return getattr(leaf, "__module__", ""), getattr(leaf, "__qualname__", leaf.__name__)
    own = {str(name): value for name, value in getattr(leaf, "__dict__", {}).items()}
    return type(leaf).__module__, type(leaf).__qualname__, own or without_addresses(repr(leaf))


def code_of(function: types.FunctionType) -> dict[str, Any]:
    """What a function does, whatever its name and place: its bytecode and constants, its defaults, what it has closed
    over, and the globals that it names: numbers, arrays, operators and distributions by value, functions and classes
    of its own module by what they do, others by their names."""
    code, known = function.__code__, function.__globals__
    names = sorted(_names(code))
    used = {name: _global(known[name], function.__module__) for name in names if name in known}
    closed = [_cell(cell) for cell in function.__closure__ or ()]
    defaults = function.__defaults__, function.__kwdefaults__
    return {"code": _bytecode(code), "defaults": defaults, "closed": closed, "globals": used}


def _bytecode(code: types.CodeType) -> tuple:
    constants = [
        _bytecode(c) if isinstance(c, types.CodeType) else repr(sorted(c, key=repr) if isinstance(c, frozenset) else c)
        for c in code.co_consts
    ]
    return code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars


def _names(code: types.CodeType) -> set[str]:
    inner = (_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    return set(code.co_names).union(*inner)


def _global(value: Any, module: str | None) -> Any:
    if isinstance(value, PLAIN | tuple | list | dict | jax.Array | np.ndarray | eqx.Module | Distribution):
        return value
    if inspect.isfunction(value) and value.__module__ == module:
        return value
    own = {}
    if inspect.isclass(value) and value.__module__ == module:
        behind = lambda method: getattr(method, "__func__", getattr(method, "fget", method))  # decorated ones too
        methods = {name: behind(method) for name, method in vars(value).items()}
        own = {name: method for name, method in methods.items() if inspect.isfunction(method)}
    return getattr(value, "__module__", ""), getattr(value, "__qualname__", type(value).__qualname__), own


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return "empty"
