"""Chart: a pane with a chart in it."""

from collections.abc import Sequence

from rich.text import Text

from dambench.tui.models.chart import MARGIN, ChartLook, Series, legend_lines, lines
from dambench.tui.models.chart_view import UNITS, ChartView, extent, place
from dambench.tui.widgets.lines import Lines

WHOLE = ChartView()


class Chart(Lines):
    """A chart that fits its pane; above it is the legend, with the values at the cursor where there is one."""

    def draw(
        self,
        series: Sequence[Series],
        view: ChartView = WHOLE,
        *,
        log: bool | None = None,
        ascii: bool = False,
        steady: bool = False,
        nothing: str = "",
    ) -> None:
        """Draw these series; only lines that changed are repainted.

        Args:
            log: whatever the view says, of base 10 or not.
        """
        width, height = self.size
        logarithmic = view.log if log is None else log
        smoothed = [one.smoothed(view.smooth) for one in series]
        where = Text()
        if view.cursor is not None and series:
            where.append(f"{place(view.cursor, view.axis)}  ", "bold")
        begin, end = view.shown(extent(series))
        look = ChartLook(logarithmic, view.cursor, view.smooth, view.window, (end - begin) / self.columns)
        above = legend_lines(series, max(10, width - where.cell_len), max(1, height // 4), look)
        above[0] = where + above[0]
        above[0].no_wrap = True
        drawn = lines(
            smoothed,
            width,
            height - len(above),
            log=logarithmic,
            ascii=ascii,
            unit=UNITS[view.axis],
            steady=steady and view.window is None,
            nothing=nothing,
            cursor=view.cursor,
            window=view.window,
        )
        self.show([*above, *drawn])

    @property
    def columns(self) -> int:
        """Columns of its plot."""
        return max(1, self.size.width - MARGIN - 1)
