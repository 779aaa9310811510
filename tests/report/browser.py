"""Headless Chromium through chromedriver's own HTTP interface (W3C WebDriver): no client library needed."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip


class Browser:
    """One page in one browser."""

    def __init__(self, port: int, session: str) -> None:
        self.base = f"http://127.0.0.1:{port}/session/{session}"

    def open(self, path: Path) -> None:
        _call("POST", f"{self.base}/url", {"url": path.resolve().as_uri()})

    def js(self, script: str, *arguments: Any) -> Any:
        """The value of ``return ...`` in the page."""
        return _call("POST", f"{self.base}/execute/sync", {"script": script, "args": arguments})

    def cdp(self, command: str, **params: Any) -> Any:
        """A command of the DevTools protocol."""
        return _call("POST", f"{self.base}/goog/cdp/execute", {"cmd": command, "params": params})

    def keys(self, *keys: str) -> None:
        """Press and release each key on whatever has the focus."""
        actions = [{"type": kind, "value": k} for k in keys for kind in ("keyDown", "keyUp")]
        _call("POST", f"{self.base}/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def hover(self, selector: str) -> None:
        """Move the pointer to the middle of the first element that matches."""
        box = self.js(
            "const n = document.querySelector(arguments[0]); n.scrollIntoView({block: 'center'});"
            "const b = n.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2];",
            selector,
        )
        move = {"type": "pointerMove", "duration": 0, "x": round(box[0]), "y": round(box[1])}
        _call("POST", f"{self.base}/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move]}]})

    def log(self, kind: str) -> list[dict[str, Any]]:
        """Entries since the last call: ``browser`` (console) or ``performance`` (DevTools events)."""
        found: list[dict[str, Any]] = _call("POST", f"{self.base}/se/log", {"type": kind})
        return found

    def requests(self) -> list[str]:
        """Addresses the page asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def scheme(self, name: str) -> None:
        """Prefer ``light`` or ``dark``."""
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile, gone with everything it wrote when the block ends."""
    assert DRIVER and CHROMIUM
    with tempfile.TemporaryDirectory(prefix="secateur-browser-", ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen([DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            port = _port(process)
            options = {"binary": CHROMIUM, "args": [*FLAGS, f"--user-data-dir={profile}"]}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"}}
            capabilities = {"capabilities": {"alwaysMatch": wanted}}
            session = _call("POST", f"http://127.0.0.1:{port}/session", capabilities)["sessionId"]
            try:
                yield Browser(port, session)
            finally:
                _call("DELETE", f"http://127.0.0.1:{port}/session/{session}", None)
        finally:
            process.terminate()
            process.wait(timeout=20)


def _port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if "successfully on port" in line:
            return int(line.rstrip(".\n").rsplit(" ", 1)[1])
    raise AssertionError("chromedriver did not start")


def _call(method: str, url: str, body: Any) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + 60
    while True:
        try:
            with opener.open(request, timeout=60) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as cause:
            raise AssertionError(f"{url}: {cause.read().decode(errors='replace')[:2000]}") from cause
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
