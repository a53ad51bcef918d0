"""`python -m benchmarks.readme`: write the README's figures of speed anew, from the newest records of a CPU."""

import re
from collections.abc import Iterable, Sequence

from benchmarks.contest import ROOT
from benchmarks.records import Record, read

README = ROOT / "README.md"
BEGIN, END = "## How fast it is", "### How it computes"

OF = "MNIST n=128 "
FORMS = ("official default malloc", "official", "fp32", "bf16")
ROWS = {"DataDAM": "DataDAM", "DataDAM, BatchNorm": "DataDAM BatchNorm", "DM": "DM"}


def renewed(text: str, records: Iterable[Record]) -> str:
    """The README with the figures of the newest records of distil, memory and start, each with its range.

    Raises:
        ValueError: a sentence that one belongs in is not there.
    """
    newest = {one["benchmark"]: one for one in records if one["device"] == "cpu"}
    before, begin, rest = text.partition(BEGIN)
    section, end, after = rest.partition(END)
    for pattern, values in (
        *_of_distil(newest["distil"]),
        *_of_memory(newest["memory"]),
        *_of_start(newest["start"]),
        (r"Records: (.*?)\. Every", ["; ".join(_named(newest[name]) for name in ("distil", "memory", "start"))]),
    ):
        section = _with(section, pattern, values)
    return before + begin + section + end + after


def _with(section: str, pattern: str, values: Sequence[str]) -> str:
    """The text with other words where the pattern has groups; a space in it is any white space of the text."""
    found = re.search(pattern.replace(" ", r"\s+"), section, re.M | re.S)
    if found is None:
        raise ValueError(f"README.md has no place for {', '.join(values)}: {pattern}")
    for group, value in reversed([*enumerate(values, 1)]):
        if found[group].split() != value.split():  # a line break in it stays where it is
            section = section[: found.start(group)] + value + section[found.end(group) :]
    return section


def _of_distil(one: Record) -> Iterable[tuple[str, list[str]]]:
    yield r"\(medians of (\d+) rounds", [str(one["rounds"])]
    for title, form in ROWS.items():
        seconds = [one["forms"][f"{OF}{form}, {how}"]["measured"]["seconds"] for how in FORMS]
        row = " | ".join(
            f"{each['median']:.2f} ({min(each['values']):.2f}–{max(each['values']):.2f})" for each in seconds
        )
        yield rf"^\| {title} \| (.*?) \|$", [row]
    ratios = [
        f"{one['ratios'][f'{OF}{method}, {official} / {OF}{method}, fp32']['median']:.1f}"
        for method in ("DataDAM", "DM")
        for official in FORMS[:2]
    ]
    yield r"DataDAM is ([\d.]+)× as fast .*? and ([\d.]+)× with .*?; DM ([\d.]+)× and ([\d.]+)×", ratios
    floors = [f"{one['figures'][f'{OF}{method}, fp32 / floor fp32']:.1f}" for method in ("DataDAM", "DM")]
    yield r"at ([\d.]+) times \(DM ([\d.]+)\)", floors


def _of_memory(one: Record) -> Iterable[tuple[str, list[str]]]:
    forms = (f"MNIST n=256 DataDAM{form}" for form in (", fp32", " BatchNorm, fp32", ", official default malloc"))
    peaks = [f"{one['forms'][form]['measured']['peak bytes']['median'] / 1e9:.1f}" for form in forms]
    yield r"class: ([\d.]+) GB \(BatchNorm ([\d.]+)\), where the official form takes ([\d.]+)\.", peaks


def _of_start(one: Record) -> Iterable[tuple[str, list[str]]]:
    yield (
        r"iteration ([\d.]+) s after",
        [f"{one['figures']['dambench run, MNIST shapes: after import torch, seconds']:.1f}"],
    )


def _named(one: Record) -> str:
    return f"{one['benchmark']} of {one['at'][:10]} at commit {one['machine']['git_commit'][:8]}"


if __name__ == "__main__":
    README.write_text(renewed(README.read_text(), read()))
