"""The programs outside the engine: models/ (likelihoods) and inference/ (algorithms), by name or path.

A wheel carries them as data in `bayesdownscale/_recipes`; a checkout, or an editable install of one, has
them at its root. They are the user's to copy and change, so they are loaded by path, never imported.
"""

import hashlib
import importlib.util
import os
import shutil
import sys
import uuid
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Literal

Kind = Literal["models", "inference"]
_KINDS: tuple[Kind, ...] = ("models", "inference")
_STUDY = ("README.md", "study.py")


def list_recipes(kind: Kind) -> list[str]:
    """The names of the programs of this `kind` that come with the package, in order."""
    return sorted(path.stem for path in _folder(kind).glob("*.py"))


def find_recipe(kind: Kind, name_or_path: str | os.PathLike[str]) -> Path:
    """The program of this `kind` with that name, or the file itself where a path of a .py file is given.

    **Raises:** `ValueError`, listing the names, where there is neither.
    """
    path = Path(name_or_path).expanduser()
    if path.suffix == ".py" and path.is_file():
        return path
    names = list_recipes(kind)
    if str(name_or_path) in names:
        return _folder(kind) / f"{name_or_path}.py"
    raise ValueError(
        f"expected the path of a .py file or a name among {', '.join(names)} ({kind}/), "
        f"got '{name_or_path}'; check the spelling"
    )


def load_recipe(path: str | os.PathLike[str]) -> ModuleType:
    """The module that the program at `path` makes, with its function `model` or `run`. It runs the file.

    **Raises:** `ValueError` where the file has neither function; errors of the program itself pass through.
    """
    path = Path(path).resolve()
    # A name of its own for each file: `models.area_mean` stays free for the user's folder of that name.
    name = f"_bayesdownscale_{path.stem}_{hashlib.sha256(bytes(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"expected a program in a .py file, got {path}; rename it")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and annotations of the program look it up
    try:
        spec.loader.exec_module(module)
        if not any(callable(vars(module).get(function)) for function in ("model", "run")):
            raise ValueError(
                f"{path}: expected a function model(...) or run(...), got neither; define the one it is for"
            )
    except BaseException:
        del sys.modules[name]
        raise
    return module


def copy_recipes(folder: str | os.PathLike[str]) -> Path:
    """Make `folder` a study: copies of models/ and inference/, a README.md and a script `study.py`.

    The folder appears whole or not at all.

    **Returns:** the folder.

    **Raises:** `FileExistsError` where it exists and is not an empty folder.
    """
    folder = Path(folder).expanduser().absolute()
    if os.path.lexists(folder) and not _is_empty_folder(folder):
        raise FileExistsError(f"{folder} exists and is not an empty folder; choose another name for the study")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    try:
        for kind in _KINDS:
            (temporary / kind).mkdir(parents=True)
            for name in list_recipes(kind):
                shutil.copyfile(_folder(kind) / f"{name}.py", temporary / kind / f"{name}.py")
        for name in _STUDY:
            shutil.copyfile(_package() / "_study" / name, temporary / name)
        os.replace(temporary, folder)  # an empty folder gives way, one filled meanwhile does not
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _is_empty_folder(folder: Path) -> bool:
    """Whether `folder` can be replaced: a folder with nothing in it, no link, and not where we stand."""
    usable = folder.is_dir() and not folder.is_symlink() and folder.resolve() != Path.cwd()
    return usable and not any(folder.iterdir())


def _folder(kind: Kind) -> Path:
    shipped = _package() / "_recipes" / kind
    return shipped if shipped.is_dir() else _package().parent / kind


def _package() -> Path:
    return Path(str(files("bayesdownscale")))
