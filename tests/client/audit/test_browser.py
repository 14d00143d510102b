"""The report's page in a real browser, with the real viewer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurofv.audit.html import write_html
from tests.browser import Browser, find_chromium, find_viewer
from tests.client.audit.folders import EXEMPLAR_SIZE, SHAPE, a_brain, make_folder, write_volume

WIDE, NARROW = (1400, 900), (390, 844)

OPEN_ALL = "document.querySelectorAll('details').forEach((each) => { each.open = true; })"
HEADINGS = "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((each) => Number(each.tagName[1]))"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    find_chromium()
    find_viewer()
    folder = make_folder(tmp_path_factory.mktemp("audit"), units=3)
    write_volume(folder / "reference.nii.gz", a_brain(SHAPE))
    return write_html(folder)


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    browser.requests.clear()
    browser.complaints.clear()
    browser.resize(*WIDE)
    browser.open(page.as_uri())
    return browser


def pixels(browser: Browser) -> np.ndarray:
    """The viewer's canvas, as it is on the screen."""
    return browser.pixels("dialog canvas")


def coloured(image: np.ndarray) -> float:
    """The share of pixels that are yellow or orange: a change to brighter."""
    red, _, blue = np.moveaxis(image, -1, 0)
    return float((red > blue + 100).mean())


def start_viewer(browser: Browser) -> None:
    browser.run("document.querySelector('button[data-volume]').focus()")
    browser.press("Enter")
    browser.wait("document.getElementById('viewer').dataset.state", 60)
    assert browser.run("document.getElementById('viewer').dataset.state") == "ready", browser.complaints
    until(lambda: coloured(pixels(browser)) > 0)


def until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen within half a minute"
        time.sleep(0.1)


def test_the_viewer_shows_the_change_and_obeys_the_keyboard(opened: Browser) -> None:
    start_viewer(opened)
    assert opened.run("document.activeElement.textContent") == "Close"
    before, place = pixels(opened), opened.run("document.querySelector('[data-part=place]').textContent")
    # Grey brain, coloured change.
    assert ((before.min(axis=-1) > 60) & (np.ptp(before, axis=-1) < 12)).mean() > 0.02
    assert place.startswith("x 26, y -46")
    assert float(place.rpartition(" ")[2]) > 0.3
    for _ in range(4):
        opened.press("Tab")
        if opened.run("document.activeElement.dataset.part") == "x":
            break
    for _ in range(5):
        opened.press("ArrowLeft")
    assert opened.run("document.querySelector('[data-part=place]').textContent").startswith("x 21, y -46")
    until(lambda: (pixels(opened) != before).any())
    opened.press("Escape")
    assert opened.run("document.getElementById('viewer').open") is False
    assert opened.run("document.activeElement.textContent") == "Open class-0 in 3D"
    assert opened.complaints == []


def test_another_unit_takes_the_place_of_the_first(opened: Browser) -> None:
    start_viewer(opened)
    opened.press("Escape")
    opened.run("delete document.getElementById('viewer').dataset.state")
    opened.run("document.querySelectorAll('button[data-volume]')[2].click()")
    opened.wait("document.getElementById('viewer').dataset.state == 'ready'")
    assert opened.run("document.querySelector('[data-part=title]').textContent") == "class-2"
    assert "y 18" in opened.run("document.querySelector('[data-part=place]').textContent")
    assert opened.run("document.querySelectorAll('canvas').length") == 1
    assert opened.complaints == []


def test_a_change_can_be_hidden_and_the_view_chosen(opened: Browser) -> None:
    start_viewer(opened)
    shown = coloured(pixels(opened))
    opened.run(
        "const least = document.querySelector('[data-part=least]'); least.value = 95;"
        "least.dispatchEvent(new Event('input'))"
    )
    until(lambda: coloured(pixels(opened)) < shown)
    three = pixels(opened)
    opened.run(
        "const view = document.querySelector('[data-part=view]'); view.value = 0;"
        "view.dispatchEvent(new Event('change'))"
    )
    until(lambda: (pixels(opened) != three).mean() > 0.05)


def test_the_page_asks_no_host(opened: Browser, page: Path) -> None:
    start_viewer(opened)
    assert page.as_uri() in opened.requests
    others = [
        each[:60]
        for each in opened.requests
        if not each.startswith(("data:", "blob:")) and each != page.as_uri()
    ]
    assert others == []
    # And could not: its policy forbids what a script of it may try.
    code = "fetch('https://localhost:9/x').then(() => 'answered', (error) => 'refused')"
    assert opened.run(code) == "refused"
    until(lambda: opened.run("1") and any("Content Security Policy" in each for each in opened.complaints))


@pytest.mark.parametrize("dark", [False, True])
def test_contrast_is_that_of_wcag_aa(dark: bool, browser: Browser, page: Path) -> None:
    browser.resize(*WIDE, dark)
    browser.open(page.as_uri())
    browser.run(OPEN_ALL)
    browser.run("document.getElementById('viewer').showModal()")
    assert len(browser.text("body").split("\n")) > 100
    assert browser.faint() == []
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is not dark


def test_everything_has_a_name_and_headings_go_down_step_by_step(opened: Browser) -> None:
    opened.run(OPEN_ALL)
    assert opened.nameless() == []
    opened.run("document.getElementById('viewer').showModal()")
    assert opened.nameless() == []
    opened.run("document.getElementById('viewer').close()")
    levels = opened.run(HEADINGS)
    assert levels.count(1) == 1
    assert levels[0] == 1
    steps = np.diff(levels)
    assert steps.max() <= 1
    ids = opened.run("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))
    missing = (
        "[...document.querySelectorAll('a')].filter((a) => !document.querySelector(a.hash || 'a')).length"
    )
    assert opened.run(missing) == 0


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_no_screen_has_to_be_scrolled_sideways(size: tuple[int, int], browser: Browser, page: Path) -> None:
    browser.resize(*size)
    browser.open(page.as_uri())
    assert browser.overflow() == 0
    start_viewer(browser)
    inside = (
        "(() => { const d = document.getElementById('viewer'); return [d.scrollWidth <= d.clientWidth,"
        " d.getBoundingClientRect().bottom <= innerHeight]; })()"
    )
    assert browser.run(inside) == [True, True]


def test_it_prints(opened: Browser) -> None:
    assert opened.print().startswith(b"%PDF")
    # What can be opened was opened for the paper, and shut again behind it.
    assert opened.run("document.querySelectorAll('.unit details[open]').length") == 0
    opened.run("dispatchEvent(new Event('beforeprint'))")
    assert opened.run("document.querySelectorAll('.unit details[open]').length") == 3


def test_without_a_viewer_it_opens_for_paper_too(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEUROFV_VIEWER", "none")
    browser.complaints.clear()
    browser.open(write_html(make_folder(tmp_path, units=1)).as_uri())
    browser.run("dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelectorAll('.unit details[open]').length") == 1
    assert browser.complaints == []


def test_exemplars_are_shown_large_and_unsqueezed(opened: Browser) -> None:
    size = "(() => { const i = document.querySelector('.exemplars img'); return [i.width, i.height]; })()"
    width, height = opened.run(size)
    assert width >= 260
    assert width / height == pytest.approx(EXEMPLAR_SIZE[0] / EXEMPLAR_SIZE[1], rel=0.02)
