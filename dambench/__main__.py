"""The `dambench` program."""

import sys
from typing import NoReturn

from dambench import process


def main() -> NoReturn:
    """Run a command. Those that train start themselves anew first, before anything large is imported twice."""
    if sys.argv[1:2] in (["run"], ["resume"], ["evaluate"]) or sys.argv[1:3] == ["experts", "train"]:
        process.keep_freed_memory()
    try:
        from dambench import cli
    except KeyboardInterrupt:  # a second before there is anything that could be stopped
        sys.exit(130)
    cli.main()


if __name__ == "__main__":
    main()
