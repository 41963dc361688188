"""The rules of the architecture: who imports whom, what is light, what a wheel holds, what no file says."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

import bayesdownscale as bd

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "bayesdownscale"
OUTSIDE = {"models", "inference", "benchmarks", "tutorials", "tests"}
ARROWS = {  # sub-package: those that it may import
    "data": set(),
    "prior": {"data"},
    "likelihood": {"data"},
    "posterior": {"data", "prior", "likelihood"},
    "diagnostics": {"data", "prior", "likelihood", "posterior"},
    "ensemble": {"data", "prior", "likelihood", "posterior"},
}
HEAVY = {"arviz", "diffrax", "equinox", "jax", "matplotlib", "numpyro", "scipy", "xarray"}
UNSAFE_MODULES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "torch"}


def sources(folder, pattern="*.py"):
    return sorted(p for p in Path(folder).rglob(pattern) if "__pycache__" not in p.parts)


MODULES = [path for path in sources(ENGINE) if "_study" not in path.parts]  # _study is copied, never imported
PROGRAMS = [*sources(ROOT / "models"), *sources(ROOT / "inference")]


def named(path):
    return str(path.relative_to(ROOT))


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path):
    """The dotted names that a file imports, anywhere in it: modules, and each `module.name`."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_engine_never_imports_programs(path):
    assert not {name.split(".")[0] for name in imports(path)} & OUTSIDE


@pytest.mark.parametrize("package", ARROWS)
def test_arrows_run_one_way(package):
    for path in sources(ENGINE / package):
        names = {name for name in imports(path) if name.split(".")[0] == "bayesdownscale"}
        assert "bayesdownscale" not in names, f"{named(path)} hides an arrow behind the public face"
        reached = {name.split(".")[1] for name in names}
        wrong = reached - ARROWS[package] - {package, "_types", "_precision"}
        assert not wrong, f"{named(path)} imports {wrong}"


def test_every_sub_package_has_its_arrows():
    found = {path.parent.name for path in ENGINE.glob("*/__init__.py")}
    assert found <= set(ARROWS)


def run_python(code, path=ROOT, cwd=None):
    env = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=cwd, text=True, capture_output=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("module", ["bayesdownscale", "bayesdownscale.cli"])
def test_import_is_light(module):
    assert run_python(f"import sys, {module}; print(*{HEAVY} & sys.modules.keys())") == ""


def test_every_public_name_is_there():
    for name in bd.__all__:
        assert getattr(bd, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bd.nothing  # noqa: B018


@pytest.mark.parametrize("path", PROGRAMS, ids=named)
def test_programs_use_public_names_only(path):
    ours = {name for name in imports(path) if name.split(".")[0] == "bayesdownscale"}
    private = {name for name in ours if any(part.startswith("_") for part in name.split("."))}
    assert not private
    assert not {name.split(".")[0] for name in imports(path)} & OUTSIDE, "a program stands alone"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute):
            assert not re.match(r"_[^_]", node.attr), f"line {node.lineno}: {node.attr} is private"
            if isinstance(node.value, ast.Name) and node.value.id == "bd":
                assert node.attr in bd.__all__, f"line {node.lineno}: bd.{node.attr} is not public"


@pytest.mark.parametrize(
    ("folder", "limit"), [("models", 60), ("inference", 120), ("bayesdownscale", 400), ("tests", 400)]
)
def test_files_are_short(folder, limit):
    lengths = {named(path): len(path.read_text().splitlines()) for path in sources(ROOT / folder)}
    assert not {path: n for path, n in lengths.items() if n > limit}


def test_tests_do_not_shadow_the_programs():
    assert not [name for name in OUTSIDE if (ROOT / "tests" / name).exists()]


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_files_cannot_run_code(path):
    """Nothing is unpickled or evaluated: a prior or a data file from a stranger cannot run code."""
    assert not {name.split(".")[0] for name in imports(path)} & UNSAFE_MODULES
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            called = node.func.id if isinstance(node.func, ast.Name) else ""
            assert called not in ("eval", "exec", "__import__"), f"line {node.lineno}: {called}"
            for keyword in node.keywords:
                safe = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                assert keyword.arg != "allow_pickle" or safe, f"line {node.lineno}: allow_pickle"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    pytest.importorskip("hatchling", reason="building a wheel needs hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_package_its_data_and_the_programs(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    dist_info = f"bayesdownscale-{wheel.name.split('-')[1]}.dist-info"
    assert {name.split("/")[0] for name in names} == {"bayesdownscale", dist_info}
    expected = {named(path) for path in sources(ENGINE, "*") if path.is_file()}
    expected |= {f"bayesdownscale/_recipes/{named(path)}" for path in PROGRAMS}
    assert {name for name in names if name.startswith("bayesdownscale/")} == expected
    assert f"{dist_info}/licenses/LICENSE" in names
    kinds = {Path(name).suffix for name in expected}
    assert {".npz", ".json", ".safetensors"} <= kinds  # coastlines and the shipped prior


def test_wheel_finds_and_copies_its_programs(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    code = (
        "from bayesdownscale.recipes import copy_recipes, find_recipe, list_recipes\n"
        "copy_recipes('study')\n"
        "print(*list_recipes('models'), find_recipe('inference', 'guided_sde'))"
    )
    *found, path = run_python(code, path=tmp_path / "installed", cwd=tmp_path).split()
    assert found == sorted(path.stem for path in PROGRAMS if path.parent.name == "models")
    assert Path(path).is_relative_to(tmp_path / "installed" / "bayesdownscale" / "_recipes")
    copied = {str(p.relative_to(tmp_path / "study")) for p in sources(tmp_path / "study")}
    assert copied == {"study.py"} | {named(path) for path in PROGRAMS}


def texts():
    folders = (".ci", "bayesdownscale", "docs", "tools", *sorted(OUTSIDE))
    suffixes = ("", ".cff", ".html", ".ipynb", ".js", ".json", ".md", ".py", ".toml", ".yaml", ".yml")
    paths = [p for folder in folders for p in sources(ROOT / folder, "*")] + list(ROOT.glob("*"))
    return sorted(path for path in paths if path.is_file() and path.suffix in suffixes)


def test_no_text_names_a_place_on_one_machine():
    neutral = {"bayesdownscale/data/datasets.py", ".ci/run"}  # look for data beside the checkout
    places = {"/" + "work/": set(), "/" + "home/": set(), "shared" + "/": neutral}
    for path in texts():
        for place, allowed in places.items():
            if named(path) not in allowed:
                found = re.search(rf"(?<![\w.*]){place}", path.read_text(encoding="utf-8"))
                assert found is None, f"{named(path)} names {place}"
