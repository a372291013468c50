"""A real Chromium, without a window, driven over its debugging protocol: for pages that must work for a person.

In: an address. Out: a `Page` that runs JavaScript, presses keys, and keeps what the console and the network said.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import websockets

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
           "--disable-background-networking", "--disable-component-update", "--remote-debugging-port=0")
_SECONDS = 120.0


def program() -> str | None:
    """The browser of this machine, None where there is none."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One tab.

    Attributes:
        complaints: errors of the console, exceptions, refusals by the content security policy.
        requests: addresses that were asked for.
    """

    def __init__(self, socket: Any) -> None:
        self._socket, self._next = socket, 0
        self.complaints: list[str] = []
        self.requests: list[str] = []

    async def order(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One order of the protocol, and its result; what happens meanwhile is noted."""
        self._next += 1
        await self._socket.send(json.dumps({"id": self._next, "method": method, "params": parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.recv(), _SECONDS))
            if message.get("id") == self._next:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        found = await self.order("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def until(self, script: str) -> None:
        """Waits until an expression holds."""
        async with asyncio.timeout(_SECONDS):
            while not await self.run(script):
                await asyncio.sleep(0.05)

    async def press(self, key: str) -> None:
        """A key as the keyboard sends it (Tab, Enter, ArrowDown)."""
        codes = {"Tab": 9, "Enter": 13, "ArrowDown": 40}
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            await self.order("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                             windowsVirtualKeyCode=codes[key], **(text if kind == "keyDown" else {}))

    async def type(self, text: str) -> None:
        """Text into what has the focus."""
        await self.order("Input.insertText", text=text)

    async def look(self, file: Path, width: int, height: int, dark: bool) -> None:
        """A picture of the page at a size, in light or dark."""
        await self.order("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                         mobile=False)
        await self.order("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        found = await self.order("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(found["data"]))

    def _note(self, message: dict[str, Any]) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif _complains(method, told):
            self.complaints.append(json.dumps(told)[:500])


def _complains(method: str | None, told: dict[str, Any]) -> bool:
    """Whether a message says that something is wrong in the page."""
    return (method == "Runtime.exceptionThrown" or (method == "Log.entryAdded" and told["entry"]["level"] == "error")
            or (method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert")))


@asynccontextmanager
async def opened(address: str, folder: Path, browser: str) -> AsyncIterator[Page]:
    """A page of a fresh browser; the browser ends with it.

    Args:
        folder: for the browser's profile; empty.
    """
    child = subprocess.Popen([browser, *OPTIONS, f"--user-data-dir={folder}", "about:blank"],
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = await _port(folder / "DevToolsActivePort")
        async with httpx.AsyncClient(trust_env=False) as client:
            tabs = (await client.get(f"http://127.0.0.1:{port}/json/list")).json()
        place = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
        async with websockets.connect(place, max_size=None, open_timeout=_SECONDS, ping_interval=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Log", "Network"):
                await page.order(f"{domain}.enable")
            await page.order("Page.navigate", url=address)
            await page.until("document.readyState === 'complete'")
            yield page
    finally:
        child.terminate()
        child.wait(30.0)


async def _port(file: Path) -> int:
    async with asyncio.timeout(_SECONDS):
        while not (file.is_file() and file.read_text().strip()):
            await asyncio.sleep(0.1)
    return int(file.read_text().split()[0])
