"""Processes of runs: what whoever starts one hears of it."""

import os
from pathlib import Path

from dambench.runner import processes


def test_what_a_process_says_until_it_names_its_run_is_heard_and_nothing_after_it(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    until = "note: one\nrun abc has done this already\n"
    log.write_text(f"{until}iteration 1\n")
    ours, theirs = os.pipe()
    os.write(theirs, f"abc {len(until)}\n".encode())
    heard: list[str] = []
    assert processes._announced(ours, log, heard.append) == "abc"
    assert heard == until.splitlines()
    os.close(theirs)
    assert processes._announced(ours, log, heard.append) == ""
    assert heard[2:] == [*until.splitlines(), "iteration 1"]
    os.close(ours)
