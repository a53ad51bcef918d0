"""The size of a set with all that it takes to train on it: images, labels, learning rate, whitening."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from dambench.core import files
from dambench.core.hard_labels import RATE, SOFT, TEACHER
from dambench.core.units import size
from dambench.store.results import Query
from dambench.store.rows import SqlRow

LABEL = 8
"""Bytes of a class, as sets store it."""

HEADER = 1_000_000
"""Bytes of the text at the beginning of a set's file, at most."""


@dataclass(frozen=True)
class SetBytes:
    """The bytes of a set."""

    parts: Mapping[str, int]
    """By part, as `images`."""
    real: int
    """Those of the real training set: a byte for each value of a pixel, and a label of 8 for each image."""

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def ratio(self) -> float:
        """Share of the real set's bytes. It may be above 1: soft labels and a whitening can be larger than images."""
        return self.total / self.real

    @property
    def carries(self) -> tuple[str, ...]:
        """What there is of it besides images, classes and their whitening, as `core.hard_labels` calls it."""
        return tuple(part for part in (SOFT, RATE, TEACHER) if part in self.parts)

    @property
    def in_words(self) -> str:
        """`14 kB, 0.21 % of the real set: images 12 kB, soft labels 2 kB`."""
        each = ", ".join(f"{part} {size(count)}" for part, count in self.parts.items())
        return f"{size(self.total)}, {100 * self.ratio:.3g} % of the real set: {each}"


def set_bytes(
    query: Query, sets: Iterable[str] | None = None, datasets: Mapping[int, str] | None = None
) -> dict[str, SetBytes]:
    """The bytes of sets by their SHA-256, where they are known.

    Runs from before they were recorded have a set's file on this machine, or nothing is known.

    Args:
        sets: those that are asked for; None: all.
        datasets: SHA-256 of the data of runs, by number, as far as the caller knows.
    """
    condition = "1" if sets is None else "sha256 in (select value from json_each(?))"
    # Plain rows of one index: to join runs takes twice as long for thousands.
    rows = query(
        f"select sha256, parts, run from artifacts where {condition}",
        *([] if sets is None else [json.dumps(sorted(set(sets)))]),
    )
    of_run = dict(datasets or {})
    if strange := {row["run"] for row in rows} - of_run.keys():
        numbers = json.dumps(sorted(strange))
        more = "select number, dataset_sha256 from runs where number in (select value from json_each(?))"
        of_run |= {row["number"]: row["dataset_sha256"] for row in query(more, numbers)}
    parts: dict[tuple[str, str], str] = {}
    for row in rows:
        if row["run"] in of_run:
            key = row["sha256"], of_run[row["run"]]
            parts[key] = max(parts.get(key, ""), row["parts"])
    data = {
        row["data"]: row for row in query("select sha256 as data, train_images, channels, height, width from datasets")
    }
    known = {}
    alike: dict[tuple[Any, ...], SetBytes | None] = {}
    told: dict[str, bool] = {}
    for (sha256, of), text in sorted(parts.items()):
        if of not in data:
            continue
        if text not in told:
            told[text] = bool(_told(text))
        # Thousands of sets have the same bytes. Where they are not recorded, each file is looked at.
        kind = text, of, "" if told[text] else sha256
        if kind not in alike:
            row = data[of] | {"sha256": sha256, "parts": text}
            images = row["channels"] * row["height"] * row["width"]
            each, real = _parts(row), row["train_images"] * (images + LABEL)
            alike[kind] = SetBytes(each, real) if each and images * row["train_images"] > 0 else None
        if (size_of_set := alike[kind]) is not None:
            known[str(sha256)] = size_of_set
    return known


def _parts(row: SqlRow) -> dict[str, int]:
    """The bytes by part; nothing: they are not known."""
    if stored := _told(row["parts"]):
        return stored
    if row["sha256"] == row["data"]:
        images = row["train_images"] * row["channels"] * row["height"] * row["width"]
        return {"images": images, "labels": LABEL * row["train_images"]}
    return _parts_of_file(str(row["sha256"]))


def _told(text: str) -> dict[str, int]:
    """The bytes by part as they were recorded; nothing: they were not, or somebody has written nonsense."""
    try:
        stored = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return dict(stored) if _is_sound(stored) else {}


def _is_sound(parts: Any) -> bool:
    return (
        bool(parts) and isinstance(parts, dict) and all(type(count) is int and count >= 0 for count in parts.values())
    )


def _parts_of_file(sha256: str) -> dict[str, int]:
    """Read the head of a set's file, in which the types and shapes of its tensors stand."""
    path = files.find_set(sha256)
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > HEADER:
                return {}
            header = json.loads(file.read(length))
        about = json.loads(header["__metadata__"]["dambench"])
        tensors = {name: header[name]["data_offsets"] for name in ("images", "labels")}
        sizes = {name: int(end) - int(begin) for name, (begin, end) in tensors.items()}
        parts = {"images": sizes["images"]}
        parts["soft labels" if len(header["labels"]["shape"]) == 2 else "labels"] = sizes["labels"]
        if about.get("lr") is not None:
            parts["learning rate"] = 4
        if teacher := about.get("teacher"):
            parts["teacher"] = files.teacher_path(str(teacher[1])).stat().st_size
        if about.get("whitening"):
            values = 1
            for extent in header["images"]["shape"][1:]:
                values *= int(extent)
            parts["whitening"] = 4 * (values + values * values)
    except (OSError, ValueError, LookupError, TypeError, RecursionError, AttributeError):
        return {}
    return parts if _is_sound(parts) else {}


def needs(known: SetBytes | None) -> dict[str, Any]:
    """The size of a set as `show` has it; None: it is not known."""
    return {
        "parts": dict(known.parts) if known else {},
        "needed_bytes": known.total if known else None,
        "share_of_real": known.ratio if known else None,
        "needs": known.in_words if known else "",
    }
