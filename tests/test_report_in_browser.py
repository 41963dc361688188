"""The report in a browser: no error, no request, and no wider than a phone. Needs Chromium; skipped without."""

import json
import re
import shutil
import subprocess

import pytest
from trees import calibrated_tree

from bayesdownscale.diagnostics.report import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
FRAME = """<iframe src="{name}" style="width: {width}px; height: 800px; border: 0"></iframe>
<script>const frame = document.querySelector("iframe"), show = text => document.title = text
frame.onload = () => show("width " + frame.contentDocument.documentElement.scrollWidth)</script>"""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="needs chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return report(calibrated_tree(), folder / "report.html", compare={"another": calibrated_tree(seed=1)})


def browse(page, tmp_path, *options):
    """What the browser says of the page: its document, and messages."""
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    options = [*QUIET, profile, "--window-size=1400,1000", "--enable-logging=stderr", *options]
    done = subprocess.run([BROWSER, *options, page.as_uri()], text=True, capture_output=True, check=True, timeout=100)
    return done.stdout, done.stderr


@pytest.mark.parametrize("width", [1200, 390], ids=["desktop", "phone"])
def test_page_fits_the_window_without_an_error(page, tmp_path, width):
    frame = page.with_name(f"frame_{width}.html")
    frame.write_text(FRAME.format(name=page.name, width=width))
    options = ("--allow-file-access-from-files", "--virtual-time-budget=8000", "--dump-dom")
    document, messages = browse(frame, tmp_path, *options)
    found = re.search(r"<title>width (\d+)</title>", document)
    assert found
    assert 0.9 * width < int(found[1]) <= width  # but for a scroll bar
    assert "CONSOLE" not in messages


def requests_of(page, tmp_path):
    """The addresses that the browser asks for because of the page."""
    log = tmp_path / f"{page.stem}.json"
    browse(page, tmp_path, f"--log-net-log={log}", f"--screenshot={tmp_path / 'page.png'}")
    events = json.loads(log.read_text())["events"]
    asked = {event["params"]["url"] for event in events if "url" in event.get("params", {})}
    own = ("google", "gvt1")  # what the browser asks for itself
    return {url for url in asked if url.startswith(("http", "ftp", "ws")) and not any(name in url for name in own)}


def test_no_request_leaves_the_page(page, tmp_path):
    assert not requests_of(page, tmp_path)
    assert (tmp_path / "page.png").stat().st_size > 50_000
    other = tmp_path / "other.html"
    other.write_text('<img src="http://example.invalid/picture.png">')
    assert requests_of(other, tmp_path)
