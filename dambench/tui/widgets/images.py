"""Images: a pane with the synthetic set in it."""

from rich.text import Text

from dambench.tui.models.sheet import Sheet, draw
from dambench.tui.widgets.lines import Lines


class Images(Lines):
    """A sheet that fits its pane."""

    sheet: Sheet | None = None

    def draw(self, sheet: Sheet | None, *, colour: bool = True) -> str:
        """Draw a sheet; returns in words what is not shown."""
        self.sheet = sheet
        if sheet is None:
            self.show([Text("no picture of the set yet")])
            return ""
        lines, omitted = draw(sheet, self.size.width, self.size.height, colour=colour)
        self.show(lines)
        return omitted
