"""Side-by-side measurements: `make bench`. Each file is one question; `official.py` is what we are measured against.

A benchmark's forms do the same work and are timed in turn, round by round, so that whatever else the machine does
meets all of them. Every run appends a record to `records.jsonl`; `python -m benchmarks --show` prints them.
"""
