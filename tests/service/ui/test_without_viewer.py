"""The page where volumes cannot be drawn: everything else is there, and volumes can be taken as files."""

import asyncio
from pathlib import Path

from service.storage.records import Record
from service.ui.viewer import read_viewer
from tests.browser import Browser
from tests.service.requests import CUBE, request
from tests.service.ui.site import STEPS, Site, open_site

CONTROL = request(CUBE, f"steps: {STEPS} snapshot_every: 0 control {{ random_weights {{ seed: 0 }} }}")


async def watch(site: Site, words: str, *options: str) -> None:
    record = await site.create()
    control = await site.create(asked=CONTROL)
    try:
        await asyncio.to_thread(_watch, site, record, control.name, words, *options)
    finally:
        await site.close()


def _watch(site: Site, record: Record, control: str, words: str, *options: str) -> None:
    folder = site.house.settings.data / "taken"
    with Browser(390, 844, *options) as browser:
        browser.open(f"http://127.0.0.1:{site.server.port}/ui/#/{record.name}")
        browser.wait("document.querySelector('#controls')?.checkVisibility()", 60)
        assert browser.text("#state") == "succeeded"
        assert browser.run("Number(document.querySelector('#objective path').dataset.points)") == 200
        browser.wait("document.querySelector('#no-viewer').checkVisibility()")
        assert words in browser.text("#no-viewer")
        drawn = "[...document.querySelectorAll('#views, #place-line, #seek')]"
        assert browser.run(f"{drawn}.some((each) => each.checkVisibility())") is False
        assert browser.run("[...document.querySelector('#show').options].map((each) => each.value)") == [
            "volume"
        ]
        # Nobody looks at them: none is fetched before somebody asks.
        assert [asked for asked in browser.requests if "/volumes/" in asked] == []
        browser.download_to(folder)
        browser.run("document.querySelector('#save').focus()")
        browser.press("Enter")
        (stored,) = (site.house.settings.data / "volumes" / record.id).glob("*.nii.gz")
        browser.wait("new Promise((done) => setTimeout(() => done(true), 300))")
        assert [file.read_bytes() for file in folder.glob("*.nii.gz")] == [stored.read_bytes()]
        assert (browser.overflow(), browser.nameless(), browser.faint()) == (0, [], [])
        _tells_controls(browser, control)
        assert browser.complaints == []


def _tells_controls(browser: Browser, name: str) -> None:
    """In the list, and where a result of random weights could be taken for what the model has learned."""
    assert browser.text("#objective-name") == "Objective by step, in spreads of real images"
    assert "Control" not in browser.text("#facts")
    browser.run("location.hash = '#/jobs'")
    link = f"tr[data-job='{name}'] a"
    browser.wait(f'document.querySelector("{link}")')
    title = "cube, control: random weights, seed 0"
    assert [browser.text("#job-rows a"), browser.text("#job-rows tr:last-child a")] == [title, "cube"]
    browser.click(link)
    browser.wait("document.querySelector('#facts').innerText.includes('Control')")
    words = "random weights, seed 0: the volume shows nothing that the model has learned"
    assert words in browser.text("#facts")
    assert [browser.text("#unit"), browser.run("document.title")] == [title, f"{title}, neurofv"]
    assert "the control's own spreads, not those of real images" in browser.text("#objective-name")


async def test_without_niivue_the_page_says_how_an_operator_adds_it(tmp_path: Path) -> None:
    await watch(await open_site(tmp_path), "NEUROFV_VIEWER")


async def test_without_webgl_the_page_offers_files(tmp_path: Path) -> None:
    await watch(await _with_another_script(tmp_path), "no WebGL 2", "--disable-3d-apis")


async def test_a_script_that_is_not_niivue_is_no_obstacle(tmp_path: Path) -> None:
    await watch(await _with_another_script(tmp_path), "NiiVue does not start")


async def _with_another_script(folder: Path) -> Site:
    (folder / "niivue.umd.js").write_text("globalThis.niivue = {};")
    return await open_site(folder, viewer=read_viewer(str(folder / "niivue.umd.js")))
