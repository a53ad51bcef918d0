"""The last line of a place: its keys."""

from textual.screen import Screen
from textual.widgets import Footer

from dambench.tui.resilient import Resilient


class KeysLine(Resilient, Footer):
    """The keys of a place.

    Textual's own has whatever screen is in front compose it anew. If that is a box which is closed at that very moment,
    the box waits for the line, the console for the box, and the line for the console, for ever. This one does it.
    """

    def bindings_changed(self, screen: Screen[object]) -> None:
        """Draw the keys anew, after what this widget has to do already."""
        self._bindings_ready = True
        if self.is_attached and screen is self.screen and screen.app.app_focus:
            self.refresh(recompose=True)
