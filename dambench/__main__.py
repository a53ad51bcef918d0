"""The `dambench` program."""

import sys
from typing import NoReturn

from dambench import process


def main() -> NoReturn:
    """Run a command. Those that train start themselves anew first, before anything large is imported twice."""
    if sys.argv[1:2] in (["run"], ["resume"], ["evaluate"]) or sys.argv[1:3] == ["experts", "train"]:
        process.keep_freed_memory()
    from dambench import cli

    cli.main()


if __name__ == "__main__":
    main()
