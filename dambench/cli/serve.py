"""`dambench serve`: the console in a browser, to look at."""

import os
import shlex
import sys
from typing import Annotated

from typer import Option

from dambench.cli.console import SERVED
from dambench.cli.options import Db
from dambench.cli.output import say
from dambench.core.errors import BadInput
from dambench.store import database
from dambench.store import runs as stored

INSTALL = 'pip install "dambench[serve]"'
PORT = 8642


def serve(
    port: Annotated[int, Option(min=0, max=65535, help="On 127.0.0.1; 0: one that is free.")] = PORT,
    visitors: Annotated[int, Option(min=1, max=100, help="Consoles at once.")] = 4,
    db: Db = None,
) -> None:
    """The console in a browser of this machine, or through ssh -L. It only looks, and needs the token it prints."""
    path = db or stored.default_path()
    if path.exists():
        database.identify(path)
    try:
        from dambench.tui.browser import HOST, BrowserServer
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("aiohttp", "textual_serve"):
            raise
        raise BadInput(f"`dambench serve` needs textual-serve, which is not installed: {INSTALL}") from None
    console = [sys.executable, "-m", "dambench", "--readonly", "--db", str(path.absolute())]
    # The shell becomes the console, which so has the server as its parent.
    command = "exec " + shlex.join(["env", f"{SERVED}=1", "TEXTUAL_FPS=30", "TEXTUAL_ANIMATIONS=none", *console])
    try:
        server = BrowserServer(command, port, visitors)
    except OSError as error:
        raise BadInput(
            f"--port {port} cannot be had on {HOST}: {error.strerror}. --port 0 takes one that is free."
        ) from None
    print(server.address, flush=True)
    say(
        "Whoever has this address can look, and change nothing. Ctrl+C ends it. From elsewhere: "
        f"ssh -L {server.port}:{HOST}:{server.port} {os.uname().nodename}"
    )
    try:
        server.run()
    finally:
        server.close()
