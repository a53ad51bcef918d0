"""Browser: the console on a page of this machine, for whoever was given the address, to look and to change nothing.

textual-serve begins a console of its own for each page and carries its bytes. Around it: a token, a limit on visitors,
names that only this machine has, and a page that asks nothing of any other.
"""

import hmac
import logging
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from aiohttp import web
from textual_serve.server import Server

from dambench.core.sanitize import display

HOST = "127.0.0.1"
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
"""What this machine is called in an address: another name that leads here is somebody's trick."""

LOGGERS = ("aiohttp", "textual-serve")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Faults(logging.Handler):
    """What the libraries say of a request or a message that nothing can be made of: a line for each kind, once."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        kind = type(error).__name__ if error is not None else record.getMessage()
        if kind not in self._said:
            self._said.add(kind)
            print(
                f"dambench: what a browser sent was of no use, and its page was closed ({display(kind, 100)}). "
                "The others go on; this is said once.",
                file=sys.stderr,
            )


class BrowserServer:
    """A server of consoles on the loopback address.

    Args:
        command: that begins a console, as a shell reads it.
        port: 0: one that is free.
        visitors: consoles at once.

    Raises:
        OSError: the port cannot be had.
    """

    def __init__(self, command: str, port: int, visitors: int):
        self._socket = socket.create_server((HOST, port))
        self.port: int = self._socket.getsockname()[1]
        self._consoles = Server(command, HOST, self.port, "dambench")
        self.token = secrets.token_urlsafe(24)
        self._most, self._now = visitors, 0
        self._page = Path(__file__).with_name("page")

    @property
    def address(self) -> str:
        """The address, with what lets one in."""
        return f"http://{HOST}:{self.port}/?token={self.token}"

    def run(self) -> None:
        """Serve until Ctrl+C or SIGTERM."""
        faults = Faults()
        for name in LOGGERS:
            logger = logging.getLogger(name)
            logger.propagate, logger.handlers = False, [faults]
        web.run_app(self._application(), sock=self._socket, print=lambda *_: None, access_log=None)

    async def _application(self) -> web.Application:
        async def admit(request: web.Request, handler: Handler) -> web.StreamResponse:
            return await self._admit(request, handler)

        app = web.Application(middlewares=[web.middleware(admit)])
        app.add_routes(
            [
                web.get("/", self._give_page),
                web.get("/ws", self._consoles.handle_websocket),
                web.static("/page", self._page),
                web.static("/static", self._consoles.statics_path),
            ]
        )
        return app

    @property
    def _cookie(self) -> str:
        return f"dambench-{self.port}"  # cookies do not tell the ports of a machine apart

    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let in who has the token, by a name of this machine, as long as there is room."""
        if request.host.rpartition(":")[0] not in LOOPBACK and request.host not in LOOPBACK:
            raise web.HTTPForbidden(text="This is served to this machine only: use localhost, through ssh -L.")
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != request.host:
            raise web.HTTPForbidden(text="Another page may not look in.")
        if self._is_token(request.query.get("token", "")) and request.path == "/":
            # Out of the address line, and of the browser's history.
            entered = web.HTTPSeeOther("/")
            entered.set_cookie(self._cookie, self.token, httponly=True, samesite="Strict")
            raise entered
        if not self._is_token(request.cookies.get(self._cookie, "")):
            raise web.HTTPForbidden(text="Open the address that `dambench serve` printed, with its token.")
        if request.path != "/ws":
            answer = await handler(request)
            self._guard(answer, request.host)
            return answer
        if self._now >= self._most:
            raise web.HTTPServiceUnavailable(text="All places are taken: `dambench serve --visitors` has more.")
        self._now += 1
        try:
            return await handler(request)
        finally:
            self._now -= 1

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    @staticmethod
    def _guard(answer: web.StreamResponse, host: str) -> None:
        """Have the browser ask nobody else for anything, show it in no other page and keep none of it."""
        answer.headers["Content-Security-Policy"] = (
            f"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self'; "
            f"img-src 'self' data:; connect-src 'self' ws://{host}; frame-ancestors 'none'"
        )
        answer.headers["X-Content-Type-Options"] = "nosniff"
        answer.headers["Referrer-Policy"] = "no-referrer"
        answer.headers["Cache-Control"] = "no-store"

    async def _give_page(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(self._page / "index.html")

    def close(self) -> None:
        """Give the port back."""
        with suppress(OSError):
            self._socket.close()
