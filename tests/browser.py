"""A real browser for tests: Chromium without a window, steered through chromedriver over HTTP."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--hide-scrollbars",
)  # fmt: skip
_DIRECT = build_opener(ProxyHandler({}))  # the driver listens on this machine


class Browser:
    """One window of the browser."""

    def __init__(self, address: str, session: str) -> None:
        self.address, self.session = address, session

    def _ask(self, path: str, **given: Any) -> Any:
        return _post(f"{self.address}/session/{self.session}/{path}", given)

    def open(self, page: Path) -> str:
        """Load a file and wait until it is there; returns its address."""
        self._ask("url", url="about:blank")
        self._log("performance")  # the browser's own first page is none of ours
        self._ask("url", url=page.resolve().as_uri())
        return page.resolve().as_uri()

    def run(self, script: str) -> Any:
        """What a script returns that runs in the page; a promise is waited for."""
        return self._ask("execute/sync", script=script, args=[])

    def devtools(self, command: str, **given: Any) -> Any:
        """A command of the browser's own protocol."""
        return self._ask("goog/cdp/execute", cmd=command, params=given)

    def console(self) -> list[str]:
        """What the page has written to the console so far, and the errors it made."""
        return [f"{entry['level']}: {entry['message']}" for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for so far."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        return [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return self._ask("se/log", type=kind)

    def set_up(self, *, width: int, scheme: str) -> None:
        """Make the window `width` pixels wide and the reader prefer a "light" or "dark" page."""
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=900, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        preferred = [{"name": "prefers-color-scheme", "value": scheme}]
        self.devtools("Emulation.setEmulatedMedia", features=preferred)

    def screenshot(self, file: Path) -> bytes:
        """The whole page as PNG, also written to `file`."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(shot["data"]))
        return file.read_bytes()


def _post(address: str, given: dict[str, Any], method: str = "POST") -> Any:
    body = json.dumps(given).encode() if method == "POST" else None
    request = Request(address, body, {"Content-Type": "application/json"}, method=method)
    with _DIRECT.open(request, timeout=120) as answer:
        return json.loads(answer.read())["value"]


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser whose profile and log lie in `folder`; the test is skipped where there is none."""
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium: apt-get install chromium chromium-driver")
    log = (folder / "driver.log").open("w")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        address = f"http://127.0.0.1:{_port(process)}"
        options = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={folder / 'profile'}"]}
        wanted = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }
        made = _post(f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})
        try:
            yield Browser(address, made["sessionId"])
        finally:
            _post(f"{address}/session/{made['sessionId']}", {}, method="DELETE")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()
        log.close()


def _port(process: subprocess.Popen) -> int:
    """The port that the driver chose and says on its first lines."""
    for line in process.stdout:
        found = re.search(r"started successfully on port (\d+)", line)
        if found:
            return int(found[1])
    raise AssertionError("chromedriver ended before it said its port")
