"""The README's pictures of the console, made of the ledger's runs: `make pictures`."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent.parent
SIZE = "140x40"

PICTURES = {
    "live": ["live", "--run", "method:dm dataset:digits ipc=10"],
    "run": ["run", "--run", "method:dm dataset:mnist ipc=10"],
    "compare": ["compare", "--keys", "p,p,j,space,j,space"],
    "queue": ["queue"],
}
"""By file, the words of `dambench shot`; of a filter, the newest run that it means."""

QUEUED = ["queue", "add", "--method", "dm,random", "--dataset", "digits", "--ipc", "1,10", "--seeds", "5-7"]


def dambench(*words: str, **environ: str) -> str:
    """Run a command; returns what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "dambench", *words],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout


def main() -> None:
    """Make them all, with a copy of the ledger to which some runs are queued."""
    with tempfile.TemporaryDirectory() as folder:
        database = Path(folder) / "runs.db"
        shutil.copy(HERE / "runs.db", database)
        own = {"XDG_STATE_HOME": folder, "XDG_CONFIG_HOME": folder}
        dambench(*QUEUED, "--db", str(database), **own)
        for name, words in PICTURES.items():
            chosen = [newest(database, word) if ":" in word else word for word in words]
            output = HERE / "docs" / f"{name}.png"
            options = ["-o", str(output), "--size", SIZE, "--theme", "textual-dark", "--db", str(database)]
            dambench("shot", *chosen, *options, **own)


def newest(database: Path, only: str) -> str:
    """The id of the newest run that a filter means."""
    listed = json.loads(dambench("runs", "--filter", only, "--json", "--db", str(database)))
    return str(listed[0]["id"])


if __name__ == "__main__":
    main()
