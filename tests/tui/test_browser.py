"""The console in a browser: who is let in, what is asked for, and that nothing can be changed from there."""

import hashlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from dambench.cli.app import run_cli
from dambench.store.runs import Store
from tests.environment import python_with
from tests.ledger import add, config
from tests.tui.screen import console, drawn, play, said, shows

ROOT = Path(__file__).parents[2]
PROBE = Path(__file__).with_name("browser_probe.py")


def filled(path: Path) -> Path:
    with closing(Store.open(path, write=True)) as store:
        add(store, config("random", 10), [0.26, 0.27])
        add(store, config("dm", 10), [0.46, 0.47])
    return path


def test_without_textual_serve_it_is_said_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "dambench.tui.browser", raising=False)
    assert run_cli(["serve"]) == 2
    wanted = 'dambench: `dambench serve` needs textual-serve, which is not installed: pip install "dambench[serve]"\n'
    assert capsys.readouterr().err.replace("\n", " ").strip() == wanted.strip()


def test_from_a_browser_no_file_of_this_machine_can_be_named_and_no_program_begun(tmp_path: Path) -> None:
    path = filled(tmp_path / "runs.db")

    async def scene(pilot: object) -> None:
        from textual.pilot import Pilot

        assert isinstance(pilot, Pilot)
        await shows(pilot, "random")
        await pilot.press("n")
        assert "no new runs from a browser" in said(pilot.app)
        await pilot.press("R")
        assert "New run" not in drawn(pilot.app)
        await pilot.press("2", "E")
        await pilot.press("3")
        await shows(pilot, "IPC 10")
        await pilot.press("e")
        assert "Write a report" not in drawn(pilot.app)
        assert len(pilot.app.screen_stack) == 2

    play(console(path, served=True, readonly=True), scene)


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has textual-serve besides all that is installed here."""
    return python_with("textual-serve>=1.1,<2", tmp_path_factory.mktemp("serve") / "environment")


@dataclass
class Served:
    """A server, and the address that it printed."""

    process: subprocess.Popen[str]
    address: str
    database: Path

    def ask(self, path: str, **headers: str) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=20)
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        with closing(connection), connection.getresponse() as answer:
            return answer

    @property
    def token(self) -> str:
        return urlsplit(self.address).query.removeprefix("token=")

    @property
    def cookie(self) -> str:
        return f"dambench-{urlsplit(self.address).port}={self.token}"

    def consoles(self) -> list[psutil.Process]:
        """The consoles that were begun for pages."""
        return psutil.Process(self.process.pid).children()


@pytest.fixture
def served(tmp_path: Path, python: Path) -> Iterator[Served]:
    """A server with one place."""
    path = filled(tmp_path / "served.db")
    with (tmp_path / "errors").open("w") as errors:
        process = subprocess.Popen(
            [python, "-m", "dambench", "serve", "--port", "0", "--visitors", "1", "--db", path],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | {"XDG_STATE_HOME": str(tmp_path / "state")},
        )
    assert process.stdout is not None
    try:
        yield Served(process, process.stdout.readline().strip(), path)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec_WebSocket_Version": "13",
    "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.mark.slow
def test_only_who_has_the_token_is_let_in_and_only_to_this_machine(served: Served) -> None:
    end = time.monotonic() + 30
    while time.monotonic() < end:
        try:
            assert served.ask("/").status == 403
            break
        except ConnectionError:
            time.sleep(0.1)
    for path in ("/", "/ws", "/page/page.js", "/static/js/textual.js", "/?token=", "/?token=wrong", "/?token=%FF"):
        assert served.ask(path).status == 403, path
    entered = served.ask(f"/?token={served.token}")
    assert (entered.status, entered.headers["Location"]) == (303, "/")
    cookie = entered.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    own = {"Cookie": served.cookie}
    page = served.ask("/", **own)
    assert page.status == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["Cache-Control"] == "no-store"
    # Nothing else of this machine is served, and by no other name.
    for path in ("/static/", "/page/", "/download/x", "/page/../browser.py", "/page/%2e%2e/app.py"):
        assert served.ask(path, **own).status in (403, 404), path
    assert served.ask("/", Host="dambench.evil.example", **own).status == 403
    assert served.ask("/", Host="localhost:9999", **own).status == 200  # through ssh -L
    assert served.ask("/ws", Origin="http://evil.example", **own, **UPGRADE).status == 403
    assert not served.consoles()


def contents(path: Path) -> str:
    """A digest of all that is in the database."""
    with closing(Store.open(path)) as store:
        return hashlib.sha256("\n".join(store.db.conn.iterdump()).encode()).hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed (Debian: apt install chromium)")
def test_a_page_shows_the_console_asks_nobody_else_and_changes_nothing(
    served: Served, python: Path, tmp_path: Path
) -> None:
    before = contents(served.database)
    picture = tmp_path / "page.png"
    # All that would change something: stop, kill, delete, tag, note, queue, resume, new; in Compare export.
    looked = subprocess.run(
        [python, PROBE, served.address, picture, "xXDtNQrn3e", "4"], capture_output=True, text=True, timeout=180
    )
    assert looked.returncode == 0, looked.stderr
    seen = json.loads(looked.stdout)
    address = f"http://{urlsplit(served.address).netloc}/"
    assert all(asked.replace("ws://", "http://").startswith(address) for asked in seen["asked"]), seen["asked"]
    assert any(asked.startswith("ws://") for asked in seen["asked"])
    assert (seen["faults"], seen["where"], seen["closed"]) == ([], address, False)
    assert picture.stat().st_size > 10_000
    assert contents(served.database) == before
    assert not (tmp_path / "state").exists()  # a visitor's choices are nobody's
    end = time.monotonic() + 20
    while served.consoles() and time.monotonic() < end:
        time.sleep(0.1)
    assert not served.consoles()


@pytest.mark.slow
def test_who_comes_when_all_places_are_taken_waits_and_consoles_end_with_their_server(
    served: Served, python: Path
) -> None:
    """By a client of the same library: a page is a websocket and no more."""
    script = (
        "import aiohttp, asyncio, sys\n"
        "async def go():\n"
        "    async with aiohttp.ClientSession(headers={'Cookie': sys.argv[2]}) as session:\n"
        "        async with session.ws_connect(sys.argv[1]) as first:\n"
        "            print('came', flush=True)\n"
        "            await first.receive()\n"
        "            try:\n"
        "                await session.ws_connect(sys.argv[1])\n"
        "            except aiohttp.WSServerHandshakeError as error:\n"
        "                print(error.status, flush=True)\n"
        "            await asyncio.sleep(600)\n"
        "asyncio.run(go())\n"
    )
    place = served.address.replace("http://", "ws://").partition("?")[0] + "ws"
    client = subprocess.Popen([python, "-c", script, place, served.cookie], stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout is not None
        assert [client.stdout.readline().strip() for _ in range(2)] == ["came", "503"]
        (child,) = served.consoles()
        assert "--readonly" in child.cmdline()
        served.process.send_signal(signal.SIGKILL)
        assert child.wait(20) is not None or not child.is_running()
    finally:
        client.kill()
        client.communicate()


@pytest.mark.slow
def test_what_is_no_message_closes_its_page_in_one_line_and_no_other(
    served: Served, python: Path, tmp_path: Path
) -> None:
    script = (
        "import aiohttp, asyncio, sys\n"
        "async def go():\n"
        "    async with aiohttp.ClientSession(headers={'Cookie': sys.argv[2]}) as session:\n"
        "        for text in ['none', '{}', '[]', '[\"resize\", 3]', '[\"stdin\", 3]', '[\"stdin\"]']:\n"
        "            page = None\n"
        "            while page is None:  # the console of the page before may still be ending\n"
        "                try:\n"
        "                    page = await session.ws_connect(sys.argv[1])\n"
        "                except aiohttp.WSServerHandshakeError:\n"
        "                    await asyncio.sleep(0.2)\n"
        "            await page.receive()\n"
        "            await page.send_str(text)\n"
        "            async for message in page: pass\n"
        "            print('closed', flush=True)\n"
        "asyncio.run(go())\n"
    )
    place = served.address.replace("http://", "ws://").partition("?")[0] + "ws"
    went = subprocess.run(
        [python, "-c", script, place, served.cookie], capture_output=True, text=True, timeout=120, check=False
    )
    assert (went.stdout, went.returncode) == ("closed\n" * 6, 0), went.stderr
    broken = [b"none", b"GET / HTTP/9", b"\x16\x03\x01\x00", b"GET /\xff HTTP/1.1\r\nA b"]
    for words in broken:
        with socket.create_connection(("127.0.0.1", urlsplit(served.address).port or 0), 20) as line:
            line.sendall(words + b"\r\n\r\n")
            assert b" 400 " in line.recv(100)
    assert served.ask("/", Cookie=served.cookie).status == 200
    said = [line for line in (tmp_path / "errors").read_text().splitlines() if "of no use" in line]
    assert len(said) == len(set(said)) > 1
    assert "Traceback" not in (tmp_path / "errors").read_text()
