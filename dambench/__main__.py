"""The `dambench` program."""

import os
import sys
from typing import NoReturn

from dambench.core import allocator, collection


def main() -> NoReturn:
    """Run a command. Those that train start themselves anew first, before anything large is imported twice."""
    if sys.argv[1:2] in (["run"], ["resume"], ["evaluate"]) or sys.argv[1:3] == ["experts", "train"]:
        allocator.keep_freed_memory()
    collection.left_at_exit()
    try:
        with collection.importing():
            from dambench.cli import app

        if os.environ.get("TORCHELASTIC_RUN_ID"):  # by torchrun: one of several processes of one run
            from dambench.cli import rank

            rank.under_torchrun(app.main)
        app.main()
    except KeyboardInterrupt:  # a second before there is anything that could be stopped
        sys.exit(130)


if __name__ == "__main__":
    main()
