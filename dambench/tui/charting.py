"""Charting: what keys do to the charts of a screen, the same wherever there are any."""

from dataclasses import replace
from typing import ClassVar

from textual.binding import Binding, BindingType

from dambench.tui import hints, run_actions
from dambench.tui.models.chart import Series
from dambench.tui.models.chart_view import AXES, SMOOTHING, AxisName, ChartView, extent, points

PAN = 0.5
"""A step of panning, as a share of what is shown."""

NO_AXIS = {
    "images": "How many real images an iteration looks at is not known of this run's method.",
    "seconds": "Nothing is logged yet that tells how long it took.",
}


class ChartScreen(run_actions.RunActionsScreen):
    """A screen with charts that are looked at in one place, with one cursor."""

    CHART_KEYS: ClassVar[list[BindingType]] = [
        Binding("L", "log_axis", "Log y"),
        Binding("m", "smooth", "Smooth", show=False, tooltip="Smooth the curves: not, by 0.9, by 0.99"),
        Binding("a", "axis", "X axis", show=False, tooltip="Count x in iterations, in seconds, in real images"),
        Binding("o", "overlay", "Overlay", show=False, tooltip="Draw the curves of the marked runs, too"),
        Binding("left,h", "cursor(-1)", "Cursor left", show=False),
        Binding("right,l", "cursor(1)", "Cursor right", show=False),
        Binding("plus,equals_sign", "magnify(0.5)", "Zoom in", key_display="+", show=False),
        Binding("minus", "magnify(2.0)", "Zoom out", key_display="-", show=False),
        Binding("less_than_sign", "pan(-1)", "Pan left", key_display="<", show=False),
        Binding("greater_than_sign", "pan(1)", "Pan right", key_display=">", show=False),
        Binding("0", "whole", "Whole chart", show=False, tooltip="Show all of the chart again, without a cursor"),
    ]

    view = ChartView()
    overlaid = False
    """The curves of marked runs are drawn, too."""

    def drawn_series(self) -> list[Series]:
        """Everything that is drawn over the axis now, in all charts."""
        raise NotImplementedError

    def axis_is_known(self, axis: AxisName) -> bool:
        """Whether the run that is shown can be drawn over that axis."""
        raise NotImplementedError

    def plot_columns(self) -> int:
        """Columns of a plot: a step of the cursor is one."""
        raise NotImplementedError

    def paint_charts(self) -> None:
        """Draw all charts anew."""
        raise NotImplementedError

    def remember_view(self) -> None:
        """Take over what was chosen the last time."""
        settings = self.console_app.settings
        smooth, axis = settings.get("charts.smooth", SMOOTHING[0]), settings.get("charts.axis", AXES[0])
        self.view = ChartView(
            axis=axis if axis in AXES else AXES[0],
            log=bool(settings.get("charts.log", False)),
            smooth=smooth if smooth in SMOOTHING else SMOOTHING[0],
        )

    def _look(self, view: ChartView) -> None:
        before, self.view = self.view, view
        for name in ("log", "smooth", "axis"):
            if getattr(view, name) != getattr(before, name):
                self.console_app.settings.set(f"charts.{name}", getattr(view, name))
        self.paint_charts()

    def idle_actions(self) -> set[str]:
        idle, view = super().idle_actions(), self.view
        if not self.drawn_series():
            idle |= {"log_axis", "smooth", "axis", "cursor(-1)", "cursor(1)", "magnify(0.5)", "magnify(2.0)"}
        if view.window is None:
            idle |= {"pan(-1)", "pan(1)", "magnify(2.0)"} | (set() if view.cursor is not None else {"whole"})
        if not (self.overlaid or self.console_app.marked()):
            idle.add("overlay")
        return idle

    def action_log_axis(self) -> None:
        self._look(replace(self.view, log=not self.view.log))

    def action_smooth(self) -> None:
        self._look(replace(self.view, smooth=SMOOTHING[(SMOOTHING.index(self.view.smooth) + 1) % len(SMOOTHING)]))

    def action_axis(self) -> None:
        """Count in something else; what is not known of this run is left out, and that is said."""
        at = AXES.index(self.view.axis)
        for axis in (*AXES[at + 1 :], *AXES[: at + 1]):
            if self.axis_is_known(axis):
                self._look(self.view.on(axis))
                return
            self.console_app.say(NO_AXIS[axis])

    def action_overlay(self) -> None:
        """Draw the marked runs, too, or no more."""
        marked = len(self.console_app.marked())
        if not self.overlaid and not marked:
            mark = hints.hint("runs.mark", "space")
            self.console_app.say(f"No run is marked: in Runs, {mark} marks one, and its curves are drawn here, too.")
            return
        self.overlaid = not self.overlaid
        self.ask()

    def action_cursor(self, step: int) -> None:
        series = self.drawn_series()
        self._look(self.view.moved(step, points(series), extent(series), self.plot_columns()))

    def action_magnify(self, factor: float) -> None:
        self._look(self.view.zoomed(factor, extent(self.drawn_series())))

    def action_pan(self, direction: int) -> None:
        self._look(self.view.panned(direction * PAN, extent(self.drawn_series())))

    def action_whole(self) -> None:
        self._look(self.view.whole())
