"""The bytes of all that the sets need at training time, beside IPC, and their share of the real set."""

from collections.abc import Sequence

from dambench.core.units import size
from dambench.report import wording
from dambench.report.parts import Part, Records, Section
from dambench.report.wording import MISSING, TableEntry
from dambench.store.leaderboard import Leaderboard
from dambench.store.set_bytes import SetBytes


def parts(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> list[Part]:
    """A table of bytes and shares; none where of no set they are known."""
    lines = []
    known = _known(board)
    names = list(dict.fromkeys(part for sizes in known.values() for part in sizes.parts))
    for (method, dataset, ipc), sizes in known.items():
        place = wording.name(["dataset", "ipc"], (dataset, ipc))
        each = [size(sizes.parts[part]) if part in sizes.parts else MISSING for part in names]
        share = f"{100 * sizes.ratio:.3g} %"
        entries = [TableEntry(text) for text in (place, size(sizes.total), share, *each)]
        lines.append((wording.name(["method"], (method,)), entries))
    if not lines:
        return []
    notes = [
        "Bytes of all that is needed to train on a set, as it is stored; the real set is its images, a byte for each "
        "value of a pixel, and a label of 8 bytes each. Of several sets the largest counts."
    ]
    head = ["method", "dataset", "in all", "of the real set", *names]
    return [Part("What the sets need", head, lines, notes)]


def records(board: Leaderboard, rows: Sequence[str], columns: Sequence[str]) -> Records:
    """One for each set whose bytes are known."""
    head = ["method", "dataset", "ipc", "set_sha256", "bytes", "share", "real_bytes", "parts"]
    lines = []
    seen = set()
    for score in board.scores:
        sizes = board.set_bytes.get(score.set_sha256)
        key = (score.method, score.dataset, score.ipc, score.set_sha256)
        if sizes is None or key in seen:
            continue
        seen.add(key)
        each = "; ".join(f"{part} {count}" for part, count in sizes.parts.items())
        lines.append([*key, sizes.total, sizes.ratio, sizes.real, each])
    return Records([*head], lines)


def _known(board: Leaderboard) -> dict[tuple[str, str, int | None], SetBytes]:
    """The largest set of each method, dataset and IPC."""
    known: dict[tuple[str, str, int | None], SetBytes] = {}
    for score in board.scores:
        sizes, key = board.set_bytes.get(score.set_sha256), (score.method, score.dataset, score.ipc)
        if sizes is not None and (key not in known or sizes.total > known[key].total):
            known[key] = sizes
    return known


SECTION = Section("the bytes of all that the sets need, and their share of the real set", parts, records)
