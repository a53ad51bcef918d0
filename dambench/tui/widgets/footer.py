"""The last line of a place: its keys."""

from typing import cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Footer
from textual.widgets._footer import FooterKey

from dambench.tui.console import Console
from dambench.tui.resilient import Resilient


class KeysLine(Resilient, Footer):
    """The keys of a place that do something as things stand.

    Textual's own has whatever screen is in front compose it anew. If that is a box which is closed at that very moment,
    the box waits for the line, the console for the box, and the line for the console, for ever. This one does it.
    """

    def compose(self) -> ComposeResult:
        if not self._bindings_ready:
            return
        console, offered = cast(Console, self.app), dict[str, tuple[Binding, bool, str]]()
        for _, binding, enabled, tooltip in self.screen.active_bindings.values():
            if binding.show and console.offers(binding.action, self.screen):
                offered.setdefault(binding.action, (binding, enabled, tooltip))
        self.styles.grid_size_columns = len(offered)
        for action, (binding, enabled, tooltip) in offered.items():
            key = self.app.get_key_display(binding)
            shown = FooterKey(binding.key, key, binding.description, action, disabled=not enabled, tooltip=tooltip)
            yield shown.data_bind(compact=Footer.compact)

    def bindings_changed(self, screen: Screen[object]) -> None:
        """Draw the keys anew, after what this widget has to do already."""
        self._bindings_ready = True
        if self.is_attached and screen is self.screen and screen.app.app_focus:
            self.refresh(recompose=True)
