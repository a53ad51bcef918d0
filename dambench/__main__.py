"""The `dambench` program."""

import sys
from typing import NoReturn

from dambench import allocator


def main() -> NoReturn:
    """Run a command. `run` starts itself anew first, before anything large is imported twice."""
    if sys.argv[1:2] == ["run"]:
        allocator.keep_freed_memory()
    from dambench import cli

    cli.main()


if __name__ == "__main__":
    main()
