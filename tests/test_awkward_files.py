"""Every awkward file is read as it is meant, or refused in one sentence that names it; docs/awkward_files.md tells.

`python tests/test_awkward_files.py` writes the page again.
"""

import re
import tempfile
from pathlib import Path

import pytest
from awkward import CASES, TAS, TIMES, TRUTH
from numpy.testing import assert_allclose, assert_array_equal

from bayesdownscale.data.coarse import open_coarse
from bayesdownscale.data.errors import DataError

PAGE = Path(__file__).parents[1] / "docs" / "awkward_files.md"
HEAD = """# Awkward files

What `open_coarse` and `bayesdownscale downscale` make of files that are not as they should be: the values of each are
checked against those that were meant, or the sentence is the one that is printed. The files are made by
`tests/awkward.py`; `python tests/test_awkward_files.py` writes this page.

| file | what happens |
|---|---|
"""


def opened(name, folder):
    case = CASES[name]
    return open_coarse(case.make(folder), case.like, **case.options)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.says])
def test_read_as_it_is_meant(name, tmp_path):
    case = CASES[name]
    fields, want = opened(name, tmp_path), case.expect
    grid = case.like.grid.coarsen(4)
    assert_allclose(fields.values[:, 0], want.get("values", TRUTH), rtol=1e-6, atol=want.get("atol", 0.0))
    assert_array_equal(fields.times, want.get("times", TIMES))
    assert_allclose(fields.grid.lat, want.get("lat", grid.lat), rtol=0, atol=1e-9)
    assert_allclose(fields.grid.lon, want.get("lon", grid.lon), rtol=0, atol=1e-9)
    assert_allclose(fields.grid.lat_bounds, grid.lat_bounds, rtol=0, atol=1e-9)
    assert_allclose(fields.grid.lon_bounds, grid.lon_bounds, rtol=0, atol=1e-9)
    assert fields.grid.pole == want.get("pole")
    assert fields.methods == want.get("methods", ("",))
    assert (fields.bounds is None) == ("bounds" not in want)
    if "bounds" in want:
        assert_array_equal(fields.bounds, want["bounds"])
    assert fields.variables == case.like.variables


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.says])
def test_refused_in_one_sentence(name, tmp_path):
    with pytest.raises(DataError) as caught:
        opened(name, tmp_path)
    sentence = str(caught.value)
    assert CASES[name].says in sentence
    assert "\n" not in sentence
    assert re.search(r"expected .*, (got|found):? .*; |no file at .*; ", sentence), "expected, got, remedy"
    assert str(tmp_path) in sentence or "://" in sentence, "the file is named"


def rows():
    for name, case in CASES.items():
        if not case.says:
            yield f"| {name} | {case.what} |"
            continue
        with tempfile.TemporaryDirectory() as folder, pytest.raises(DataError) as caught:
            opened(name, Path(folder))
        sentence = str(caught.value).replace(f"{folder}/", "").replace(folder, "folder").replace("|", "\\|")
        sentence = re.sub(r"got: .*; get", "got: ...; get", sentence)  # the words of a library, which change
        sentence = re.sub(r"got (?!Import)\w+Error: .*; check", "got ...; check", sentence)
        yield f"| {name} | *{sentence}* |"


def page() -> str:
    return HEAD + "\n".join(rows()) + "\n"


def test_the_page_says_what_happens():
    assert len(CASES) >= 25
    assert TAS.units == "K"
    assert PAGE.read_text() == page(), "run: python tests/test_awkward_files.py"


if __name__ == "__main__":
    PAGE.write_text(page())
