"""Chromium without a screen, told what to do over a pipe by its own protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    # WebGL without a graphics card.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--remote-debugging-pipe",
)
_SECONDS = 120


def chromium() -> str | None:
    """Where the browser is, if it is installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """One page of a browser.

    Attributes
    ----------
    addresses : list of str
        Every address that the page has asked for, its own file included.
    complaints : list of str
        What the page has said on its console as a warning or error, and exceptions.
    """

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.complaints: list[str] = []
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        for_it, self._write = os.pipe()
        self._read, from_it = os.pipe()
        # The browser reads from file 3 and writes to file 4.
        shell = f'exec "$@" 3<&{for_it} 4>&{from_it}'
        command = [str(chromium()), *_FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "chromium", *command],
            pass_fds=(for_it, from_it),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(for_it)
        os.close(from_it)
        self._count, self._rest, self._session = 0, b"", ""
        self._loaded = False

    def __enter__(self) -> Self:
        target = self.tell("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.tell("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.tell(f"{domain}.enable")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Give an order and return the answer."""
        self._count += 1
        order: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            order["sessionId"] = self._session
        os.write(self._write, json.dumps(order).encode() + b"\0")
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            message = self._next()
            if message.get("id") == self._count:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)
        raise TimeoutError(method)

    def open(self, path: Path, width: int = 1400, height: int = 900, scheme: str = "light") -> None:
        """Open a file, on a screen of this size."""
        phone = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.tell("Emulation.setDeviceMetricsOverride", **phone)
        self.tell("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._loaded = False
        self.tell("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + _SECONDS
        while not self._loaded:
            assert time.monotonic() < end, "the page does not load"
            self._note(self._next())

    def evaluate(self, code: str) -> Any:
        """Return what JavaScript says, waiting for promises."""
        answer = self.tell("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, code: str) -> None:
        """Wait until JavaScript says yes."""
        end = time.monotonic() + _SECONDS
        while not self.evaluate(code):
            assert time.monotonic() < end, f"it never comes to {code}; the page says {self.complaints}"
            time.sleep(0.1)

    def press(self, key: str, code: int) -> None:
        """Press and let go a key."""
        text = {"text": "\r"} if key == "Enter" else {}
        keys = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        self.tell("Input.dispatchKeyEvent", type="keyDown", **keys, **text)
        self.tell("Input.dispatchKeyEvent", type="keyUp", **keys)

    def screenshot(self, whole: bool = False) -> bytes:
        """Return what is on the screen, or the whole page, as PNG."""
        answer = self.tell("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def print(self) -> bytes:
        """Return the page on paper, as PDF."""
        return base64.b64decode(self.tell("Page.printToPDF", printBackground=True)["data"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            piece = os.read(self._read, 1 << 20)
            assert piece, f"the browser has ended ({self._process.poll()})"
            self._rest += piece
        message, _, self._rest = self._rest.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, message: dict[str, Any]) -> None:
        facts = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.addresses.append(facts["request"]["url"])
            case "Page.loadEventFired":
                self._loaded = True
            case "Log.entryAdded":
                self.complaints.append(facts["entry"]["text"])
            case "Runtime.exceptionThrown":
                details = facts["exceptionDetails"]
                self.complaints.append(details.get("exception", details).get("description", str(details)))
            case "Runtime.consoleAPICalled" if facts["type"] in ("warning", "error", "assert"):
                self.complaints.append(str([value.get("value") for value in facts["args"]]))
