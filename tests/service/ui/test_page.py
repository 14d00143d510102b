"""The page in a real browser, beside a real server with a running job."""

import gzip
import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from models import ZOO
from neurofv.v1 import job_service_pb2 as pb
from neurofv.v1 import visualization_service_pb2 as vis
from tests.browser import Browser, find_chromium, find_viewer
from tests.server import RunningServer
from tests.service.requests import CUBE, SMALL, request
from tests.service.security.authorities import TOKENS, bearer, write_tokens

OWN = bearer(TOKENS["submitter"])
# How many textures the viewer holds.
COUNT = """
window.textures = 0;
const { createTexture, deleteTexture } = WebGL2RenderingContext.prototype;
const alive = new Set();
WebGL2RenderingContext.prototype.createTexture = function () {
  const made = createTexture.call(this);
  alive.add(made);
  window.textures = alive.size;
  return made;
};
WebGL2RenderingContext.prototype.deleteTexture = function (texture) {
  alive.delete(texture);
  window.textures = alive.size;
  return deleteTexture.call(this, texture);
};
"""
# Notes what the page asks for and how long it waits; answers some paths once in the server's place.
FAULTS = """
window.asked = [];
window.faults = { final: [503], step00010: [404] };
for (const [name, tell] of [["fetch", ([path]) => path], ["setTimeout", ([, time]) => `wait ${time}`]]) {
  const real = window[name].bind(window);
  window[name] = (...given) => {
    window.asked.push(tell(given));
    const fault = name === "fetch" && window.faults[given[0].split("/").at(-1)]?.shift();
    return fault ? Promise.resolve(new Response("not now", { status: fault })) : real(...given);
  };
}
"""
POINTS = "Number(document.querySelector('#objective path')?.dataset.points ?? 0)"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    find_chromium()
    find_viewer()
    tokens = write_tokens(tmp_path_factory.mktemp("ui") / "tokens.toml")
    running = RunningServer(ZOO, threads=1, tokens=tokens)
    yield running
    assert running.stop() == 0
    assert [line for line in running.log if line["event"] in ("text", "internal_error")] == []


@pytest.fixture(scope="module")
def browser(guarded: RunningServer) -> Iterator[Browser]:
    with Browser() as found:
        found.call("Page.addScriptToEvaluateOnNewDocument", source=COUNT)
        yield found


def _pixels(browser: Browser) -> np.ndarray:
    return browser.pixels("#canvas")


def _coloured(browser: Browser) -> float:
    """The share of pixels that are orange or blue."""
    red, _, blue = np.moveaxis(_pixels(browser), -1, 0)
    return float((np.abs(red - blue) > 100).mean())


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
    _sign_in(browser, guarded, TOKENS["submitter"])
    browser.requests.clear()
    browser.complaints.clear()
    _start_viewer(browser, guarded)
    # Fewer pixels to draw without a graphics card: more pictures are seen.
    browser.resize(800, 600)
    name = _create(guarded, SMALL, "steps: 400 snapshot_every: 10")
    # The list asks anew every few seconds alone; meanwhile much of the job would pass.
    running = pb.GetJobRequest(name=name)
    _wait_for(lambda: guarded.jobs.GetJob(running, metadata=OWN).job.state == vis.JOB_STATE_RUNNING)
    browser.click("#pages a")
    browser.wait(f"document.querySelector('tr[data-job=\"{name}\"] .running')", 60)
    row = browser.text(f"tr[data-job='{name}']")
    assert "cube" in row
    assert "of 400" in row
    browser.click(f"tr[data-job='{name}'] a")
    browser.wait("document.querySelector('#views').dataset.volume?.startsWith('step')", 60)
    shown, pixels, points, textures = set(), set(), [], []
    while browser.run("document.querySelector('#result').hidden"):
        frame = browser.wait("document.querySelector('#views').dataset.volume")
        shown.add(frame)
        pixels.add(_pixels(browser).tobytes())
        textures.append(browser.run("window.textures"))
        points.append(browser.run(POINTS))
        before = json.dumps(frame)
        changed = f"document.querySelector('#views').dataset.volume !== {before}"
        browser.wait(f"{changed} || !document.querySelector('#result').hidden", 60)
    assert len(shown) > 2
    assert len(pixels) > 2
    assert points == sorted(points)
    assert points[-1] > points[0]
    browser.wait("document.querySelector('#views').dataset.volume === 'final'")
    # Each picture takes the place of the one before, in the viewer's memory too.
    assert set(textures) == {browser.run("window.textures")}
    assert browser.run(POINTS) == 400
    assert browser.text("#state") == "succeeded"
    assert "Rank in its layer" in browser.text("#figures")
    _is_friendly(browser)
    _leaves_the_choice_to_the_watcher(browser)
    _saves_what_is_shown(browser, guarded, name, tmp_path)
    _opens_again(browser, name)
    assert browser.complaints == []
    assert [
        asked for asked in browser.requests if not asked.startswith((_page(guarded), "data:", "blob:"))
    ] == []
    assert [asked for asked in browser.requests if "nfv_" in asked] == []
    assert [asked for asked in browser.requests if asked.endswith("/niivue.js")] == [
        _page(guarded) + "niivue.js"
    ]
    browser.screenshot(tmp_path / "wide.png")


def _start_viewer(browser: Browser, server: RunningServer) -> None:
    """Show another job; without a graphics card the first picture takes seconds, and each in 3D long."""
    browser.wait("document.querySelector('#jobs').checkVisibility()")
    browser.run(f"location.hash = '#/{_create(server, SMALL, 'steps: 1')}'")
    browser.wait("document.querySelector('#views').dataset.volume === 'final'", 60)
    three = _pixels(browser)
    assert (three[len(three) // 2 :, three.shape[1] // 2 :] > 60).mean() > 0.05
    browser.run("document.querySelector('#layout').focus()")
    browser.press("ArrowDown")
    slices = _pixels(browser)
    assert (slices[len(three) // 2 + 20 :, three.shape[1] // 2 + 20 :] > 60).mean() < 0.01
    assert (slices != three).mean() > 0.02


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


def _place(browser: Browser) -> str:
    return browser.text("#place").replace("\N{MINUS SIGN}", "-")


def _leaves_the_choice_to_the_watcher(browser: Browser) -> None:
    """Earlier pictures, changes, other slices and views, by keyboard alone."""
    browser.run("document.querySelector('#when').focus()")
    browser.press("Home")
    browser.wait("document.querySelector('#views').dataset.volume === 'step00010'")
    assert browser.run("document.querySelector('#follow').getAttribute('aria-pressed')") == "false"
    before = _pixels(browser)
    browser.press("Tab")
    browser.press("Enter")
    browser.wait("document.querySelector('#views').dataset.volume === 'final'")
    assert (_pixels(browser) != before).any()
    before, place = _pixels(browser), _place(browser)
    assert place.startswith("x 0, y -18, z 18 mm: ")
    browser.run("document.querySelector('#x').focus()")
    browser.press("ArrowRight", 5)
    assert _place(browser).startswith("x 10, y -18, z 18 mm: ")
    assert browser.run("document.querySelector('#x').ariaValueText") == "x 10 mm"
    assert (_pixels(browser) != before).mean() > 0.02
    # The crosshair alone.
    assert (grey := _coloured(browser)) < 0.01
    browser.run("document.querySelector('#show').focus()")
    browser.press("ArrowDown")
    browser.wait("document.querySelector('#legend').innerText.startsWith('Grey is the first picture')")
    browser.run("document.querySelector('#seek').focus()")
    browser.press("Enter")
    browser.wait("!document.querySelector('#place').innerText.startsWith('x 10, ')")
    assert ", change " in browser.text("#place")
    assert _coloured(browser) > grey + 0.01
    place = _place(browser)
    browser.point("#canvas", 0.2, 0.2)
    browser.wait("document.activeElement.id === 'canvas'")
    assert _place(browser) != place
    held = browser.run("window.textures")
    browser.run("document.querySelector('#when').focus()")
    browser.press("ArrowLeft")
    browser.wait("document.querySelector('#views').dataset.volume !== 'final'")
    assert browser.run("window.textures") == held
    assert browser.run("document.querySelectorAll('#show option').length") == 3


def _saves_what_is_shown(browser: Browser, server: RunningServer, name: str, folder: Path) -> None:
    browser.click("#follow")
    browser.wait("document.querySelector('#views').dataset.volume === 'final'")
    browser.download_to(folder)
    browser.click("#save")
    _wait_for(lambda: list(folder.glob("*_fv.nii.gz")))
    (file,) = folder.glob("*_fv.nii.gz")
    assert file.read_bytes() == _volume(server, name)


def _opens_again(browser: Browser, name: str) -> None:
    """Nothing is fetched or waited for on the way; what does not come is asked for again, or passed over."""
    browser.run(FAULTS + "location.hash = '#/jobs'")
    browser.wait("document.querySelector('#jobs').checkVisibility()")
    browser.run(f"window.asked.length = 0, location.hash = '#/{name}'")
    final = f"api/{name}/volumes/final"
    shown = "document.querySelector('#views').dataset.volume === 'final'"
    browser.wait(f"window.asked.includes('{final}') && {shown}")
    asked = browser.run("window.asked")
    assert [path for path in asked if "/volumes/" in path] == [final, final]
    assert "wait 250" not in asked
    assert browser.text("#trouble") == ""
    before = json.dumps(browser.text("#place"))
    browser.click("#seek")
    browser.wait(f"document.querySelector('#place').innerText !== {before}")
    assert browser.run("window.asked").count(f"api/{name}/volumes/step00020") == 1
    assert browser.text("#trouble") == ""


def _wait_for(there: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def _volume(server: RunningServer, name: str) -> bytes:
    address, header = (
        f"{_page(server)}api/{name}/volumes/final",
        {"Authorization": f"Bearer {TOKENS['submitter']}"},
    )
    with urllib.request.urlopen(urllib.request.Request(address, headers=header), timeout=20) as answer:
        return answer.read()


def test_the_viewer_puts_voxels_where_nibabel_does(guarded: RunningServer, browser: Browser) -> None:
    asked = request('objective { terms { channel { layer: "blocks.0.conv" } } }', "steps: 1", model="growth")
    names = [_create(guarded, SMALL, "steps: 1")]
    created = guarded.jobs.CreateJob(pb.CreateJobRequest(request=asked), metadata=OWN, timeout=60)
    names.append(created.job.name)
    _sign_in(browser, guarded, TOKENS["submitter"])
    browser.wait("document.querySelector('#jobs').checkVisibility()")
    for name in names:
        browser.run(f"location.hash = '#/{name}'")
        browser.wait("document.querySelector('#views').dataset.volume === 'final'", 60)
        image = nibabel.Nifti1Image.from_bytes(gzip.decompress(_volume(guarded, name)))
        values = image.get_fdata()
        shape = browser.run("['x', 'y', 'z'].map((axis) => Number(document.getElementById(axis).max) + 1)")
        canonical = nibabel.as_closest_canonical(image)
        assert tuple(shape) == canonical.shape
        for part in (0.3, 0.4, 0.55):
            index = [int(part * size) + axis for axis, size in enumerate(shape)]
            browser.run(
                f"{index}.forEach((value, axis) => (document.getElementById('xyz'[axis]).value = value)),"
                "document.getElementById('x').oninput()"
            )
            *place, value = map(float, re.findall(r"-?[0-9.]+", _place(browser)))
            mm = canonical.affine @ [*index, 1]
            assert place == pytest.approx(mm[:3], abs=0.51)
            voxel = tuple(np.round(np.linalg.inv(image.affine) @ mm)[:3].astype(int))
            assert value == pytest.approx(values[voxel], rel=0.01, abs=1e-3)
        assert len({float(values[tuple(voxel)]) for voxel in np.argwhere(values > 0)[::999]}) > 9
    assert browser.complaints == []
