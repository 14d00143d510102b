"""The page in a real browser, beside a real server with a running job."""

import gzip
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from models import ZOO
from neurofv.v1 import job_service_pb2 as pb
from tests.browser import Browser, find_chromium
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, request
from tests.service.security.authorities import TOKENS, bearer, write_tokens

OWN = bearer(TOKENS["submitter"])
# The three slices, pixel by pixel.
PIXELS = "[...document.querySelectorAll('.view canvas')].map((canvas) => canvas.toDataURL()).join()"
POINTS = "Number(document.querySelector('#objective path')?.dataset.points ?? 0)"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    find_chromium()
    tokens = write_tokens(tmp_path_factory.mktemp("ui") / "tokens.toml")
    running = RunningServer(ZOO, threads=1, tokens=tokens)
    yield running
    assert running.stop() == 0
    assert [line for line in running.log if line["event"] in ("text", "internal_error")] == []


@pytest.fixture(scope="module")
def browser(guarded: RunningServer) -> Iterator[Browser]:
    with Browser() as found:
        yield found


def _create(server: RunningServer, *parts: str) -> str:
    asked = pb.CreateJobRequest(request=request(CUBE, *parts))
    return server.jobs.CreateJob(asked, metadata=OWN, timeout=60).job.name


def _page(server: RunningServer) -> str:
    return f"http://127.0.0.1:{server.http_port}/ui/"


def _sign_in(browser: Browser, server: RunningServer, token: str) -> None:
    browser.open(_page(server))
    browser.run("sessionStorage.clear()")
    browser.call("Page.reload")
    browser.wait("document.querySelector('#login')?.checkVisibility()")
    browser.run("document.querySelector('#token').focus()")
    browser.type(token)
    browser.press("Enter")


def test_nothing_is_shown_without_a_token(guarded: RunningServer, browser: Browser) -> None:
    _create(guarded, SMALL, "steps: 1")
    _sign_in(browser, guarded, "nfv_wrong")
    browser.wait("document.querySelector('#trouble').innerText.includes('no valid credential')")
    assert browser.run("document.querySelector('#login').checkVisibility()")
    assert browser.run("document.querySelectorAll('#job-rows tr').length") == 0
    assert browser.nameless() == []
    browser.complaints.clear()
    _sign_in(browser, guarded, TOKENS["viewer"])
    browser.wait("document.querySelector('#no-jobs').checkVisibility()")
    assert browser.text("#caller") == "viewer (viewer)"
    browser.click("#leave")
    browser.wait("document.querySelector('#login').checkVisibility()")
    assert browser.run("sessionStorage.length + localStorage.length + document.cookie.length") == 0


def test_models_are_listed(guarded: RunningServer, browser: Browser) -> None:
    _sign_in(browser, guarded, TOKENS["submitter"])
    browser.wait("document.querySelector('#jobs').checkVisibility()")
    browser.click("nav a[href='#/models']")
    browser.wait("document.querySelectorAll('#model-cards article').length > 2")
    assert "lesion-shapes, version 1" in browser.text("#model-cards")
    browser.click("#model-cards details summary")
    browser.wait("document.querySelector('#model-cards dd')")
    assert "blocks.0.conv: Conv3d, 16 channels" in browser.text("#model-cards")
    assert browser.faint() == []


def test_a_volume_forms_before_the_watcher_s_eyes(
    guarded: RunningServer, browser: Browser, tmp_path: Path
) -> None:
    name = _create(guarded, SMALL, "steps: 60 snapshot_every: 3")
    _sign_in(browser, guarded, TOKENS["submitter"])
    browser.requests.clear()
    browser.complaints.clear()
    browser.wait(f"document.querySelector('tr[data-job=\"{name}\"] .running')", 60)
    row = browser.text(f"tr[data-job='{name}']")
    assert "cube" in row
    assert "of 60" in row
    browser.click(f"tr[data-job='{name}'] a")
    browser.wait("document.querySelector('#views').dataset.volume", 60)
    shown, pixels, points = set(), set(), []
    while browser.run("document.querySelector('#result').hidden"):
        frame = browser.wait("document.querySelector('#views').dataset.volume")
        shown.add(frame)
        pixels.add(browser.run(PIXELS))
        points.append(browser.run(POINTS))
        before = json.dumps(frame)
        changed = f"document.querySelector('#views').dataset.volume !== {before}"
        browser.wait(f"{changed} || !document.querySelector('#result').hidden", 60)
    assert len(shown) > 3
    assert len(pixels) > 3
    assert points == sorted(points)
    assert points[-1] > points[0]
    browser.wait("document.querySelector('#views').dataset.volume === 'final'")
    assert browser.run(POINTS) == 60
    assert browser.text("#state") == "succeeded"
    assert "Rank in its layer" in browser.text("#figures")
    _is_friendly(browser)
    _leaves_the_choice_to_the_watcher(browser)
    assert browser.complaints == []
    assert [asked for asked in browser.requests if not asked.startswith(_page(guarded))] == []
    assert [asked for asked in browser.requests if "nfv_" in asked] == []
    browser.screenshot(tmp_path / "wide.png")


def _is_friendly(browser: Browser) -> None:
    """Wide and narrow, light and dark: all fits, all has a name, all can be read."""
    for width, dark in ((1400, False), (390, False), (390, True), (1400, True)):
        browser.resize(width, 900, dark)
        browser.wait(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(1))))"
        )
        assert browser.overflow() == 0
        assert browser.nameless() == []
        assert browser.faint() == []
    browser.resize(1400)


def _leaves_the_choice_to_the_watcher(browser: Browser) -> None:
    """Earlier pictures, changes and other slices, by keyboard alone."""
    browser.run("document.querySelector('#when').focus()")
    browser.press("Home")
    browser.wait("document.querySelector('#views').dataset.volume === 'step00003'")
    assert browser.run("document.querySelector('#follow').getAttribute('aria-pressed')") == "false"
    before = browser.run(PIXELS)
    browser.press("Tab")
    browser.press("Enter")
    browser.wait("document.querySelector('#views').dataset.volume === 'final'")
    assert browser.run(PIXELS) != before
    before = browser.run(PIXELS)
    browser.run("document.querySelector('.view input').focus()")
    browser.press("ArrowRight", 5)
    assert browser.run(PIXELS) != before
    browser.run("document.querySelector('#show').focus()")
    browser.press("ArrowDown")
    browser.wait("document.querySelector('#legend').innerText.startsWith('Blue is darker')")
    assert browser.run("document.querySelectorAll('#show option').length") == 3


def test_the_reader_puts_voxels_where_nibabel_does(guarded: RunningServer, browser: Browser) -> None:
    asked = request('objective { terms { channel { layer: "blocks.0.conv" } } }', "steps: 1", model="growth")
    names = [_create(guarded, SMALL, "steps: 1")]
    created = guarded.jobs.CreateJob(pb.CreateJobRequest(request=asked), metadata=OWN, timeout=60)
    names.append(created.job.name)
    _sign_in(browser, guarded, TOKENS["submitter"])
    for name in names:
        end = "['JOB_STATE_SUCCEEDED', 'JOB_STATE_FAILED'].includes(answer.job.state)"
        server = "import('/ui/server.js')"
        browser.wait(f"{server}.then((s) => s.json('{name}')).then((answer) => {end})", 60)
        found = browser.run(
            f"Promise.all([{server}, import('/ui/nifti.js')]).then(async ([s, n]) => {{"
            f"  const v = await n.readNifti(await s.bytes('{name}/volumes/final'));"
            "  const places = [[3, 5, 7], [10, 2, 4], v.shape.map((size) => size - 2)];"
            "  return places.map((p) => [...p.map((index, axis) => v.mm(axis, index)), v.at(p)]); })"
        )
        address = f"{_page(guarded)}api/{name}/volumes/final"
        header = {"Authorization": f"Bearer {TOKENS['submitter']}"}
        with urllib.request.urlopen(urllib.request.Request(address, headers=header), timeout=20) as answer:
            image = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.read()))
        for *place, value in found:
            index = np.linalg.inv(image.affine) @ [*place, 1]
            assert index[:3] == pytest.approx(np.round(index[:3]), abs=1e-3)
            assert image.get_fdata()[tuple(np.round(index[:3]).astype(int))] == pytest.approx(value)
