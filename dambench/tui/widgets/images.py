"""Images: panes with images in them, in half blocks, or as pixels where the terminal shows such."""

from collections.abc import Sequence
from typing import cast

from rich.cells import cell_len
from rich.text import Text
from textual._compositor import ChopsUpdate, CompositorUpdate
from textual.geometry import Region
from textual.widgets._toast import Toast

from dambench.tui.console import Console
from dambench.tui.models.placed import Placed
from dambench.tui.models.sheet import Sheet, draw
from dambench.tui.terminal.pixels import fits, sixels
from dambench.tui.widgets.lines import Lines


class Pictures(Lines):
    """Lines with images among them."""

    placed: tuple[Placed, ...] = ()
    sent = 0
    """Bytes of pixels that the last picture took."""
    drawn_over = True
    """As sixels they are where they belong."""
    _sixels: tuple[str, ...] = ()

    def place(self, lines: Sequence[Text], placed: Sequence[Placed]) -> None:
        """Show lines with these images at their places."""
        shown, self.sent = list(lines), 0
        console = cast(Console, self.app)
        terminal, kitty = console.pixels, console.kitty
        if terminal is None:
            self.show(shown)
            return
        # Half an image that is cut off by the pane is left to half blocks.
        inside = [one for one in placed if fits(one) and one.y + one.rows <= self.size.height]
        inside = [one for one in inside if one.x + one.columns <= self.size.width]
        if terminal.kind == "sixel":
            if not _same(self.placed, inside):
                self._sixels = tuple(sixels(one, terminal.cell) for one in inside)
                self.sent = sum(map(len, self._sixels))
                self.drawn_over = False
                self.refresh()
        elif kitty is not None:
            for one in inside:
                signs, sent = kitty.lines(one)
                self.sent += sent
                for row, line in enumerate(signs, start=one.y):
                    if row < len(shown):
                        cuts = [_index(shown[row].plain, column) for column in (one.x, one.x + one.columns)]
                        before, rest = shown[row].divide(cuts)[::2]
                        shown[row] = Text(no_wrap=True).append_text(before).append_text(line).append_text(rest)
        self.placed = tuple(inside)
        self.show(shown)

    def sixels_after(self, update: object) -> str:
        """What draws the images over the half blocks, if this frame has drawn those anew and nothing lies above.

        Args:
            update: the frame, as Textual has just sent it.
        """
        area = self.content_region
        if not self._sixels or not area or not self.is_on_screen:
            return ""
        if isinstance(update, CompositorUpdate) and _touches(update, area):
            self.drawn_over = False
        if self.drawn_over or any(toast.region.overlaps(area) for toast in self.screen.query(Toast)):
            return ""
        self.drawn_over = True
        places = [f"\x1b[{area.y + one.y + 1};{area.x + one.x + 1}H" for one in self.placed]
        images = "".join(place + image for place, image in zip(places, self._sixels, strict=True))
        return f"\x1b7{images}\x1b8"


def _index(text: str, column: int) -> int:
    """The index of the character at a column: some take two, and what stands above another takes none."""
    at = 0
    for index, character in enumerate(text):
        cells = cell_len(character)
        if at >= column and cells:
            return index
        at += cells
    return len(text)


def _same(before: Sequence[Placed], now: Sequence[Placed]) -> bool:
    return len(before) == len(now) and all(
        (a.x, a.y, a.columns, a.rows) == (b.x, b.y, b.columns, b.rows)
        and a.image.shape == b.image.shape
        and a.image.tobytes() == b.image.tobytes()
        for a, b in zip(before, now, strict=True)
    )


def _touches(update: CompositorUpdate, area: Region) -> bool:
    """Whether a frame has drawn anything in an area."""
    if isinstance(update, ChopsUpdate):
        return any(area.y <= y < area.bottom and x < area.right and end > area.x for y, x, end in update.spans)
    region = getattr(update, "region", None)
    return region is None or bool(region.overlaps(area))


class Images(Pictures):
    """A sheet that fits its pane."""

    sheet: Sheet | None = None

    def draw(self, sheet: Sheet | None, *, colour: bool = True) -> str:
        """Draw a sheet; returns in words what is not shown."""
        self.sheet = sheet
        if sheet is None:
            self.place([Text("no picture of the set yet")], [])
            return ""
        placed: list[Placed] = []
        lines, omitted = draw(sheet, self.size.width, self.size.height, colour=colour, placed=placed)
        self.place(lines, placed)
        return omitted
