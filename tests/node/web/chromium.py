"""Chromium, driven over a pipe by its DevTools protocol. Nothing listens."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--remote-debugging-pipe"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
)


class Chromium:
    """A browser with one page."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = os.fdopen(reading, "rb", buffering=0), writing
        self._buffer, self._number = b"", 0
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            part = self._reading.read(1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message

    def size(self, width: int, height: int = 800, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def scripts(self, enabled: bool) -> None:
        self.call("Emulation.setScriptExecutionDisabled", value=not enabled)

    def open(self, url: str) -> None:
        """Open a page, and wait until it is there with its pictures."""
        self.events.clear()
        self.call("Page.navigate", url=url)
        while not any(each["method"] == "Page.loadEventFired" for each in self.events):
            self._next()
        while self.value("document.readyState") != "complete":  # the event may have been that of the page before
            time.sleep(0.02)

    def value(self, expression: str) -> Any:
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def picture(self, path: Path) -> None:
        """Write the whole page as a PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def complaints(self) -> list[str]:
        """Return what the page's console says, such as of its policy."""
        texts = [
            each["params"] for each in self.events if each["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")
        ]
        return [json.dumps(text) for text in texts]


KEYS = {"Tab": 9, "ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "Enter": 13}


@contextmanager
def chromium(folder: Path) -> Iterator[Chromium]:
    """Provide a browser, ended afterwards."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed (Debian: chromium)")
    inner_read, outer_write = os.pipe()
    outer_read, inner_write = os.pipe()

    def pipes() -> None:  # Chromium reads from descriptor 3 and writes to 4
        kept = os.dup(inner_read), os.dup(inner_write)
        os.dup2(kept[0], 3)
        os.dup2(kept[1], 4)

    process = subprocess.Popen(
        [program, *OPTIONS, f"--user-data-dir={folder / 'chromium'}", "about:blank"],
        preexec_fn=pipes,
        close_fds=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(inner_read)
    os.close(inner_write)
    try:
        yield Chromium(outer_read, outer_write)
    finally:
        process.kill()
        process.wait()
        os.close(outer_write)
