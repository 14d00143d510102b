"""Headless Chromium for tests, driven by its DevTools protocol through a pipe: no driver, no port."""

import base64
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pytest
from PIL import Image

from neurofv.viewer import viewer_script

_SECONDS = 60


def find_chromium() -> str:
    """Return the browser; skip the test without one, unless CI says that it must be there."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    if os.environ.get("CI"):
        pytest.fail("no chromium; .ci/run installs it")
    pytest.skip("needs chromium: apt-get install chromium")


def _closing(ends: tuple[int, int]) -> Iterator[int]:
    for end in ends:
        yield end
        os.close(end)


def find_viewer() -> None:
    """Have NiiVue in the cache, as `make viewer` does; skip the test without it, unless CI is set."""
    if viewer_script() is None:
        if os.environ.get("CI"):
            pytest.fail("the viewer could not be fetched with npm")
        pytest.skip("there is no viewer: make viewer")


class Browser:
    """A browser with one page; use it in a `with` statement.

    Attributes
    ----------
    requests : list of str
        Every address that the page has asked for.
    complaints : list of str
        What the page wrote to its console as warnings and errors, what it threw, what its policy forbade.
    """

    def __init__(self, width: int = 1400, height: int = 900, *options: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="neurofv-browser-", ignore_cleanup_errors=True)
        self._ids, self._buffer = count(1), b""
        self.requests: list[str] = []
        self.complaints: list[str] = []
        command = [
            *(find_chromium(), "--headless=new", "--no-sandbox", "--disable-dev-shm-usage"),
            # WebGL without a graphics card.
            *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
            *("--no-first-run", "--disable-extensions", "--disable-background-networking", "--disable-sync"),
            *("--hide-scrollbars", "--force-color-profile=srgb", "--remote-debugging-pipe"),
            *(f"--user-data-dir={self._folder.name}", *options, "about:blank"),
        ]
        # Chromium reads its orders from descriptor 3 and answers on 4; higher ones are in nobody's way.
        theirs, self._to = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in _closing(os.pipe()))
        self._from, answers = (fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in _closing(os.pipe()))
        shell = ["bash", "-c", f'exec "$@" 3<&{theirs} 4>&{answers}', "bash", *command]
        # A group of its own: its helpers end with it.
        self._process = subprocess.Popen(
            shell, pass_fds=(theirs, answers), stderr=subprocess.DEVNULL, start_new_session=True
        )
        os.close(theirs)
        os.close(answers)
        self._session: str | None = None
        pages = self.call("Target.getTargets")["targetInfos"]
        target = next(page["targetId"] for page in pages if page["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._to)
        os.close(self._from)
        self._folder.cleanup()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send an order of the DevTools protocol and return its result."""
        order: dict[str, Any] = {"id": next(self._ids), "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._to, json.dumps(order).encode() + b"\0")
        end = time.monotonic() + _SECONDS
        while (answer := self._next(end)).get("id") != order["id"]:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _next(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._from], [], [], max(end - time.monotonic(), 0))[0]:
                raise TimeoutError(f"the browser did not answer within {_SECONDS} s")
            if not (part := os.read(self._from, 1 << 20)):
                raise RuntimeError("the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, told = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = told["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
            self.complaints.append(" ".join(str(value.get("value")) for value in told["args"]))
        elif method == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{told['entry']['text']} {told['entry'].get('url', '')}".strip())

    def open(self, address: str) -> None:
        """Go to an address, and return when its page is loaded."""
        # By name: a part of the address behind # alone would load nothing.
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """Return the value of an expression of JavaScript; promises are awaited."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description", script))
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 20) -> Any:
        """Return the value of an expression as soon as it is true; an element counts as such."""
        end = time.monotonic() + seconds
        asked = f"Promise.resolve({script}).then((value) => value instanceof Node || value)"
        while not (value := self.run(asked)):
            if time.monotonic() > end:
                raise AssertionError(f"within {seconds} s this did not come true: {script}")
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        """Return the visible text of the first element that a selector finds, or an empty one."""
        return self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def click(self, selector: str) -> None:
        """Click the first element that a selector finds."""
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def point(self, selector: str, across: float, down: float) -> None:
        """Click with the mouse, at a share of an element's width and height."""
        box = self.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        place = {"x": box["x"] + across * box["width"], "y": box["y"] + down * box["height"]}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)

    def press(self, key: str, times: int = 1) -> None:
        """Press a key, such as `Tab`, `Enter` or `ArrowRight`, where the focus is."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39}
        codes |= {"ArrowDown": 40, "Home": 36, "End": 35, " ": 32}
        shown = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes[key]}
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for _ in range(times):
            self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **shown)
            self.call("Input.dispatchKeyEvent", type="keyUp", **shown)

    def type(self, text: str) -> None:
        """Write a text where the focus is."""
        self.call("Input.insertText", text=text)

    def resize(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Show the page in a window of another size, as on a phone below 500 pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            **{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def download_to(self, folder: Path) -> None:
        """Let the page save files, in a folder."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def screenshot(self, file: Path, whole: bool = True) -> Path:
        """Write a picture (PNG) of the whole page, or of what the window shows of it."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(found["data"]))
        return file

    def pixels(self, selector: str) -> np.ndarray:
        """Return what is on the screen where an element is: rows, columns, and red, green and blue."""
        box = self.run(f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().toJSON()")
        found = self.call("Page.captureScreenshot", format="png")
        window = Image.open(io.BytesIO(base64.b64decode(found["data"]))).convert("RGB")
        part = window.crop([round(box[side]) for side in ("left", "top", "right", "bottom")])
        return np.asarray(part).astype(int)

    def print(self) -> bytes:
        """Return the page on paper, as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        return self.run("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def nameless(self) -> list[str]:
        """Return the roles of what can be operated or is a picture, but has no name for a screen reader."""
        self.call("Accessibility.enable")
        kinds = {"button", "link", "textbox", "slider", "combobox", "checkbox", "image", "progressbar"}
        kinds |= {"dialog", "region", "Canvas"}
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        return [
            node["role"]["value"]
            for node in nodes
            if not node.get("ignored")
            and (node["role"]["value"] in kinds or _takes_focus(node))
            and not node.get("name", {}).get("value")
        ]

    def faint(self) -> list[str]:
        """Return visible texts whose contrast to their ground is below 4.5 (WCAG 2.1 AA)."""
        return self.run(_FAINT)


def _takes_focus(node: dict[str, Any]) -> bool:
    """Say whether the focus can be there; the page itself and its main part need no name for it."""
    properties = {each["name"]: each["value"].get("value") for each in node.get("properties", ())}
    return bool(properties.get("focusable")) and node["role"]["value"] not in ("RootWebArea", "main")


_FAINT = """
(() => {
  const parse = (color) => {
    const [r, g, b, a = 1] = color.match(/[0-9.]+/g).map(Number);
    return { rgb: [r, g, b], a };
  };
  const light = (rgb) => rgb.map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const { rgb, a } = parse(getComputedStyle(element).backgroundColor);
    if (a === 1) return rgb;
    const behind = ground(element.parentElement);
    return rgb.map((value, index) => a * value + (1 - a) * behind[index]);
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim();
    const element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility() || element.closest("script, style, noscript")) continue;
    const style = getComputedStyle(element);
    const ink = element instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(parse(ink).rgb), light(ground(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(`${text}: ${ratio.toFixed(2)}`);
  }
  return faint;
})()
"""
