"""Synthetic sets of several methods side by side: a row per class, a block of columns per method."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dambench.core import half_blocks
from dambench.core.errors import BadInput, folded, unknown
from dambench.core.half_blocks import Pixels
from dambench.core.sanitize import display
from dambench.report import names
from dambench.report.figures import drawing
from dambench.report.figures.drawing import Drawn, Look
from dambench.store.row_names import method_label
from dambench.store.rows import RunRow
from dambench.store.runs import Store

MOST_CLASSES = 20
"""Classes that are shown unless others are asked for."""
MOST_IMAGES = 10
"""Images of a class that are shown unless more are asked for."""
CRISP = 256
"""Pixels per image up to which small ones are enlarged in squares, so that no viewer blurs them."""
LONGEST_CLASS = 24


@dataclass(frozen=True)
class SetBlock:
    """The set of one run."""

    run: str
    label: str
    dataset: str
    classes: tuple[str, ...]
    images: NDArray[np.uint8]
    """(classes, images of each, H, W, 3)."""
    total: int
    """Images of each class that the set has."""
    thinned: bool
    """Whether its pixels are fewer than those of the set."""
    sha256: str
    """The digest of the set."""

    def lacks(self, classes: Sequence[int], images: int | None) -> bool:
        """Whether what is to be shown is not all in the picture of the database."""
        each = min(self.total, images or 0)
        return self.thinned or each > self.images.shape[1] or max(classes) >= len(self.images)


def choose(text: str, classes: Sequence[str]) -> list[int]:
    """The places of classes, by their names or by numbers as `0-4,7`; empty: the first.

    Raises:
        BadInput: there is no such class.
    """
    if not text.strip():
        return list(range(min(len(classes), MOST_CLASSES)))
    by_name = {folded(name): place for place, name in enumerate(classes)}
    chosen: list[int] = []
    for part in (one.strip() for one in text.split(",")):
        first, dash, last = part.partition("-")
        if folded(part) in by_name:
            chosen.append(by_name[folded(part)])
        elif part.isascii() and first.isdigit() and (last.isdigit() or not dash) and len(part) < 12:
            chosen += range(int(first), int(last if dash else first) + 1)
        else:
            raise unknown("class", part, classes)
    if not chosen or len(set(chosen)) < len(chosen) or max(chosen) >= len(classes):
        raise BadInput(
            f"--classes {display(text, 60)!r}: each once, by its name or by its number from 0 to {len(classes) - 1}."
        )
    return chosen


def read(store: Store, rows: Sequence[RunRow]) -> list[SetBlock]:
    """The sets of runs, as their previews in the database show them.

    Raises:
        BadInput: a run has none.
    """
    blocks = []
    different = len({row.ipc for row in rows}) > 1, len({(row.method, row.overrides) for row in rows}) < len(rows)
    for row in rows:
        png = store.preview(row.id)
        made = store.query(
            "select shape, sha256 from artifacts where run = ? order by iteration desc limit 1", row.number
        )
        if not png or not made:
            raise BadInput(f"The run {row.id} has no set yet, and so no picture.")
        height, width = json.loads(made[0]["shape"])[2:]
        try:
            images = half_blocks.tiles(png, height, width)[:, :, :-1, :-1]
        except ValueError as error:
            raise BadInput(f"The picture of the run {row.id} cannot be read: {error}.") from None
        classes, total, _ = store.extent(row.id)
        label = names.of("method", method_label(row.method, row.overrides))
        label += f", IPC {row.ipc}" if different[0] and row.ipc is not None else ""
        label += f", seed {row.seed}" if different[1] else ""
        thinned = images.shape[2:4] != (height, width)
        card = tuple(store.card(row).classes)
        each = total // max(1, classes)
        blocks.append(SetBlock(row.id, label, row.dataset, card, images, each, thinned, str(made[0]["sha256"])))
    return blocks


def draw(blocks: Sequence[SetBlock], classes: Sequence[int], images: int | None, look: Look) -> Drawn:
    """
    Args:
        classes: by place.
        images: of each class, at the most; None: MOST_IMAGES, or fewer where there are many blocks.

    Raises:
        BadInput: the sets are of different datasets.
    """
    first = blocks[0]
    for block in blocks:
        if block.classes != first.classes:
            raise BadInput(
                f"The runs {first.run} and {block.run} are of different datasets, {display(first.dataset, 40)} and "
                f"{display(block.dataset, 40)}: a sheet has the same classes in each row."
            )
    most = images or max(1, min(MOST_IMAGES, 24 // len(blocks)))
    shown = [block.images[:, :most] for block in blocks]
    lost = [block for block in blocks if max(classes) >= len(block.images)]
    if lost:
        raise BadInput(
            f"The picture of the run {lost[0].run} has only the first {len(lost[0].images)} of {len(first.classes)} "
            "classes, and its tensors are not on this machine: choose from these with --classes."
        )
    figure, across = _columns([part.shape[1] for part in shown], len(classes), first, look)
    labels = [drawing.printable(first.classes[place], look, LONGEST_CLASS) for place in classes]
    for number, (axes, block, part) in enumerate(zip(across, blocks, shown, strict=True)):
        sheet, high = _sheet(part[list(classes)])
        axes.imshow(sheet, interpolation="none", aspect="equal")
        axes.set_title(_wrapped(block.label, look, part.shape[1] / sum(one.shape[1] for one in shown)), pad=3)
        axes.set_xticks([])
        axes.grid(visible=False)
        centres = [(row + 0.5) * high for row in range(len(classes))]
        axes.set_yticks(centres if number == 0 else [], labels if number == 0 else [])
        axes.tick_params(length=0)
        for side in axes.spines.values():
            side.set_visible(False)
    dataset = display(names.of("dataset", first.dataset))
    about = f"Synthetic sets on {dataset}"
    parts = {(part.shape[1], block.total) for block, part in zip(blocks, shown, strict=True)}
    (each, of) = min(parts)
    alike = f" {each} of {of} images per class are shown." if len(parts) == 1 and each < of else ""
    notes = [
        f"run {block.run}: {part.shape[1]} of {block.total} images per class"
        for block, part in zip(blocks, shown, strict=True)
        if part.shape[1] < block.total and not alike
    ]
    notes += [f"{len(classes)} of {len(first.classes)} classes"] if len(classes) < len(first.classes) else []
    notes += [f"run {block.run}: from its thinned-out preview" for block in blocks if block.thinned]
    return Drawn(figure, about, f"{about}, a row per class.{alike}", tuple(notes))


def _wrapped(label: str, look: Look, share: float) -> str:
    """A label in as many lines as its part of the width needs."""
    letters = max(6, int(share * look.width * 0.88 * 72 / (0.6 * look.points)))
    return "\n".join(textwrap.wrap(drawing.printable(label, look), letters, drop_whitespace=True)[:4])


def _columns(widths: Sequence[int], rows: int, first: SetBlock, look: Look) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    high, wide = first.images.shape[2:4]
    ratio = rows * high / (sum(widths) * wide)
    height = look.height or min(drawing.MOST_INCHES, max(drawing.LEAST_INCHES, look.width * 0.88 * ratio + 0.35))
    figure: Any = Figure(figsize=(look.width, height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, wspace=0.02)
    (axes,) = figure.subplots(1, len(widths), squeeze=False, width_ratios=list(widths))
    return figure, list(axes)


def _sheet(images: NDArray[np.uint8]) -> tuple[Pixels, int]:
    """One picture, white between images, small ones enlarged in squares; and the height of a row."""
    rows, columns, high, wide, _ = images.shape
    by = max(1, CRISP // max(high, wide))
    large = images.repeat(by, 2).repeat(by, 3)
    gap = max(1, by * max(high, wide) // 24)
    sheet = np.full((rows * (high * by + gap), columns * (wide * by + gap), 3), 255, np.uint8)
    for row in range(rows):
        for column in range(columns):
            top, left = row * (high * by + gap), column * (wide * by + gap)
            sheet[top : top + high * by, left : left + wide * by] = large[row, column]
    return sheet[: -gap or None, : -gap or None], high * by + gap
