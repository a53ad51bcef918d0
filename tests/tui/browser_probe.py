"""A look at a page with a headless chromium, over its debugging protocol. Run by a Python that has aiohttp.

    python browser_probe.py ADDRESS PICTURE.png KEYS SECONDS

prints JSON: what was asked for by the page, whether the console came, and what it says of faults.
"""

import asyncio
import base64
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp


class Page:
    """A page of the browser."""

    def __init__(self, socket: Any):
        self._socket, self._number = socket, 0
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.answers: dict[int, Any] = {}

    async def listen(self) -> None:
        """Take in all that the browser says."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self.answers[said["id"]] = said
            elif said["method"] == "Network.requestWillBeSent":
                self.asked.append(said["params"]["request"]["url"])
            elif said["method"] == "Network.webSocketCreated":
                self.asked.append(said["params"]["url"])
            elif said["method"] == "Log.entryAdded" and said["params"]["entry"]["level"] == "error":
                self.faults.append(said["params"]["entry"]["text"])
            elif said["method"] == "Runtime.exceptionThrown":
                self.faults.append(str(said["params"]["exceptionDetails"])[:300])

    async def do(self, method: str, **what: Any) -> Any:
        """Have the browser do something, and wait for its answer."""
        self._number += 1
        number = self._number
        await self._socket.send_str(json.dumps({"id": number, "method": method, "params": what}))
        while number not in self.answers:
            await asyncio.sleep(0.02)
        return self.answers.pop(number).get("result", {})

    async def text(self, expression: str) -> Any:
        """What an expression is in the page."""
        return (await self.do("Runtime.evaluate", expression=expression)).get("result", {}).get("value")


async def look(address: str, picture: str, keys: str, seconds: float) -> dict[str, Any]:
    """Open the page, press keys in it, and look."""
    with tempfile.TemporaryDirectory() as profile:
        chromium = subprocess.Popen(
            [
                *("chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"),
                *("--window-size=1300,800", "--no-first-run", f"--user-data-dir={profile}", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            ports, end = Path(profile) / "DevToolsActivePort", time.monotonic() + 60
            while not ports.exists() or not ports.read_text().strip():
                assert time.monotonic() < end, "chromium did not start"
                await asyncio.sleep(0.1)
            port = ports.read_text().split()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as answer:
                    pages = [one for one in await answer.json() if one["type"] == "page"]
                async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    listening = asyncio.create_task(page.listen())
                    for domain in ("Network", "Log", "Runtime", "Page"):
                        await page.do(f"{domain}.enable")
                    await page.do("Page.navigate", url=address)
                    while "-first-byte" not in str(await page.text("document.body.className")):
                        assert time.monotonic() < end, f"no console came: {page.faults} {page.asked}"
                        await asyncio.sleep(0.2)
                    await asyncio.sleep(seconds)
                    await page.text("document.querySelector('textarea').focus()")
                    for key in keys:
                        await page.do("Input.insertText", text=key)
                        await asyncio.sleep(1.5)
                    for size, path in ((None, picture), ((900, 500), f"{picture}.small.png")):
                        if size is not None:
                            of_window = {"deviceScaleFactor": 1, "mobile": False}
                            width, height = size
                            await page.do("Emulation.setDeviceMetricsOverride", width=width, height=height, **of_window)
                            await asyncio.sleep(seconds / 2)
                        shot = await page.do("Page.captureScreenshot", format="png")
                        Path(path).write_bytes(base64.b64decode(shot["data"]))
                    where = await page.text("window.location.href")
                    closed = "-closed" in str(await page.text("document.body.className"))
                    listening.cancel()
                    return {"asked": page.asked, "faults": page.faults, "where": where, "closed": closed}
        finally:
            chromium.kill()
            chromium.wait()


if __name__ == "__main__":
    print(json.dumps(asyncio.run(look(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])))))
