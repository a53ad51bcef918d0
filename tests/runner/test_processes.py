"""Processes of runs: what whoever starts one hears of it."""

import os
import subprocess
from pathlib import Path

from dambench.runner import processes


def test_what_a_process_says_until_it_names_its_run_is_heard_and_nothing_after_it(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    until = "note: one\nrun abc has done this already\n"
    log.write_text(f"{until}iteration 1\n")
    heard: list[str] = []

    def child(said: bytes) -> processes.Child:
        ours, theirs = os.pipe()
        os.write(theirs, said)
        os.close(theirs)
        ended = subprocess.Popen(["true"])
        ended.wait()
        return processes.Child(ended, log, ours)

    named = child(f"abc {len(until)}\n".encode())
    processes._read_aloud(named, heard.append)
    assert named.run == "abc"
    assert heard == until.splitlines()
    nameless = child(b"")
    processes._read_aloud(nameless, heard.append)
    assert nameless.run == ""
    assert heard[2:] == [*until.splitlines(), "iteration 1"]
