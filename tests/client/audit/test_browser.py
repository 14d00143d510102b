"""The report's page in a real browser, with the real viewer."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neurofv.audit.html import write_html
from neurofv.audit.viewer import viewer_script
from tests.client.audit.browser import Browser, chromium
from tests.client.audit.folders import SHAPE, a_brain, make_folder, write_volume

WIDE, NARROW = (1400, 900), (390, 844)

# The least ratio of luminances between the text of a page and what is behind it, and where that is.
CONTRAST = """
(() => {
  const parse = (color) => (color.match(/[\\d.]+/g) || []).map(Number);
  const light = (color) => {
    const linear = (part) => part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = color.slice(0, 3).map((part) => linear(part / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  let least = [99, "", 0];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility()) continue;
    const [one, other] = [light(parse(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    least[2] += 1;
    if (ratio < least[0]) least = [ratio, element.outerHTML.slice(0, 80), least[2]];
  }
  return least;
})()
"""

# What a keyboard can reach without a name, and images without words.
NAMELESS = """
[...document.querySelectorAll("a, button, input, select, [tabindex], img, canvas, dialog, [role=region]")]
  .filter((each) => {
    const label = each.getAttribute("aria-label") || each.alt
      || document.getElementById(each.getAttribute("aria-labelledby"))?.textContent
      || each.closest("label")?.textContent || each.textContent;
    return !label.trim();
  }).map((each) => each.outerHTML.slice(0, 80))
"""

HEADINGS = "[...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((each) => Number(each.tagName[1]))"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if chromium() is None:
        assert not os.environ.get("CI"), "install Debian's package chromium"
        pytest.skip("chromium is not installed")
    if viewer_script() is None:
        assert not os.environ.get("CI"), "the viewer could not be fetched with npm"
        pytest.skip("there is no viewer")
    folder = make_folder(tmp_path_factory.mktemp("audit"), units=3)
    write_volume(folder / "reference.nii.gz", a_brain(SHAPE))
    return write_html(folder)


@pytest.fixture(scope="module")
def browser(page: Path) -> Iterator[Browser]:
    with Browser() as running:
        yield running


@pytest.fixture
def opened(browser: Browser, page: Path) -> Browser:
    browser.addresses.clear()
    browser.complaints.clear()
    browser.open(page, *WIDE)
    return browser


def pixels(browser: Browser) -> np.ndarray:
    """The viewer's canvas, as it is on the screen."""
    place: dict[str, Any] = browser.evaluate(
        "document.querySelector('dialog canvas').getBoundingClientRect().toJSON()"
    )
    image = Image.open(io.BytesIO(browser.screenshot())).convert("RGB")
    part = image.crop((place["left"], place["top"], place["right"], place["bottom"]))
    return np.asarray(part).astype(int)


def coloured(image: np.ndarray) -> float:
    """The share of pixels that are yellow or orange: a change to brighter."""
    red, _, blue = np.moveaxis(image, -1, 0)
    return float((red > blue + 100).mean())


def start_viewer(browser: Browser) -> None:
    browser.evaluate("document.querySelector('button[data-volume]').focus()")
    browser.press("Enter", 13)
    browser.wait_for("document.getElementById('viewer').dataset.state")
    assert browser.evaluate("document.getElementById('viewer').dataset.state") == "ready", browser.complaints
    until(lambda: coloured(pixels(browser)) > 0)


def until(condition: Any) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen within half a minute"
        time.sleep(0.1)


def test_the_viewer_shows_the_change_and_obeys_the_keyboard(opened: Browser) -> None:
    start_viewer(opened)
    assert opened.evaluate("document.activeElement.textContent") == "Close"
    before, place = pixels(opened), opened.evaluate("document.querySelector('[data-part=place]').textContent")
    # Grey brain, coloured change.
    assert ((before.min(axis=-1) > 60) & (np.ptp(before, axis=-1) < 12)).mean() > 0.02
    assert place.startswith("x 26, y -46")
    assert float(place.rpartition(" ")[2]) > 0.3
    for _ in range(4):
        opened.press("Tab", 9)
        if opened.evaluate("document.activeElement.dataset.part") == "x":
            break
    for _ in range(5):
        opened.press("ArrowLeft", 37)
    assert opened.evaluate("document.querySelector('[data-part=place]').textContent").startswith(
        "x 21, y -46"
    )
    until(lambda: (pixels(opened) != before).any())
    opened.press("Escape", 27)
    assert opened.evaluate("document.getElementById('viewer').open") is False
    assert opened.evaluate("document.activeElement.textContent") == "Open class-0 in 3D"
    assert opened.complaints == []


def test_another_unit_takes_the_place_of_the_first(opened: Browser) -> None:
    start_viewer(opened)
    opened.press("Escape", 27)
    opened.evaluate("delete document.getElementById('viewer').dataset.state")
    opened.evaluate("document.querySelectorAll('button[data-volume]')[2].click()")
    opened.wait_for("document.getElementById('viewer').dataset.state == 'ready'")
    assert opened.evaluate("document.querySelector('[data-part=title]').textContent") == "class-2"
    assert "y 18" in opened.evaluate("document.querySelector('[data-part=place]').textContent")
    assert opened.evaluate("document.querySelectorAll('canvas').length") == 1
    assert opened.complaints == []


def test_a_change_can_be_hidden_and_the_view_chosen(opened: Browser) -> None:
    start_viewer(opened)
    shown = coloured(pixels(opened))
    opened.evaluate(
        "const least = document.querySelector('[data-part=least]'); least.value = 95;"
        "least.dispatchEvent(new Event('input'))"
    )
    until(lambda: coloured(pixels(opened)) < shown)
    three = pixels(opened)
    opened.evaluate(
        "const view = document.querySelector('[data-part=view]'); view.value = 0;"
        "view.dispatchEvent(new Event('change'))"
    )
    until(lambda: (pixels(opened) != three).mean() > 0.05)


def test_the_page_asks_no_host(opened: Browser, page: Path) -> None:
    start_viewer(opened)
    assert page.as_uri() in opened.addresses
    others = [
        each[:60]
        for each in opened.addresses
        if not each.startswith(("data:", "blob:")) and each != page.as_uri()
    ]
    assert others == []
    # And could not: its policy forbids what a script of it may try.
    code = "fetch('https://localhost:9/x').then(() => 'answered', (error) => 'refused')"
    assert opened.evaluate(code) == "refused"
    until(
        lambda: opened.evaluate("1") and any("Content Security Policy" in each for each in opened.complaints)
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_is_that_of_wcag_aa(scheme: str, browser: Browser, page: Path) -> None:
    browser.open(page, *WIDE, scheme)
    browser.evaluate(
        "document.querySelectorAll('details').forEach((each) => { each.open = true; });"
        "document.getElementById('viewer').showModal()"
    )
    ratio, where, count = browser.evaluate(CONTRAST)
    assert count > 100
    assert ratio >= 4.5, where
    ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") is (scheme == "light")


def test_everything_has_a_name_and_headings_go_down_step_by_step(opened: Browser) -> None:
    assert opened.evaluate(NAMELESS) == []
    levels = opened.evaluate(HEADINGS)
    assert levels.count(1) == 1
    assert levels[0] == 1
    steps = np.diff(levels)
    assert steps.max() <= 1
    ids = opened.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))
    missing = (
        "[...document.querySelectorAll('a')].filter((a) => !document.querySelector(a.hash || 'a')).length"
    )
    assert opened.evaluate(missing) == 0


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_no_screen_has_to_be_scrolled_sideways(size: tuple[int, int], browser: Browser, page: Path) -> None:
    browser.open(page, *size)
    assert browser.evaluate("document.documentElement.scrollWidth") <= size[0]
    start_viewer(browser)
    inside = (
        "(() => { const d = document.getElementById('viewer'); return [d.scrollWidth <= d.clientWidth,"
        " d.getBoundingClientRect().bottom <= innerHeight]; })()"
    )
    assert browser.evaluate(inside) == [True, True]


def test_it_prints(opened: Browser) -> None:
    assert opened.print().startswith(b"%PDF")
    # What can be opened was opened for the paper, and shut again behind it.
    assert opened.evaluate("document.querySelectorAll('.unit details[open]').length") == 0
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert opened.evaluate("document.querySelectorAll('.unit details[open]').length") == 3
