"""Chart: a pane with a chart in it."""

from collections.abc import Sequence

from dambench.tui.models.chart import Series, legend, lines
from dambench.tui.widgets.lines import Lines


class Chart(Lines):
    """A chart that fits its pane; its first line is the legend."""

    def draw(
        self,
        series: Sequence[Series],
        *,
        log: bool = False,
        ascii: bool = False,
        unit: str = "",
        steady: bool = False,
        nothing: str = "",
    ) -> None:
        """Draw these series; only lines that changed are repainted."""
        width, height = self.size
        drawn = lines(series, width, height - 1, log=log, ascii=ascii, unit=unit, steady=steady, nothing=nothing)
        self.show([legend(series, log=log), *drawn])
