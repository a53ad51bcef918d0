"""The `dambench` program."""

import sys
from typing import NoReturn

from dambench import process


def main() -> NoReturn:
    """Run a command. `run` starts itself anew first, before anything large is imported twice."""
    if sys.argv[1:2] == ["run"]:
        process.keep_freed_memory()
    from dambench import cli

    cli.main()


if __name__ == "__main__":
    main()
