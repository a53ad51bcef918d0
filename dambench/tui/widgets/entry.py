"""Entry: a line of text to be typed."""

from textual.app import ComposeResult
from textual.command import CommandInput, CommandPalette
from textual.events import Key
from textual.widgets import Input

from dambench.tui.resilient import Resilient


class Entry(Resilient, Input):
    """A line of text. Its keys take effect in the order in which they come, however fast.

    Textual's looks for the binding of a key when it has come up to the app: characters overtake it meanwhile.
    """

    async def on_key(self, event: Key) -> None:
        focused = self.screen.focused
        if focused is not None and focused is not self:  # a key before this one has moved on
            focused._forward_event(Key(event.key, event.character))
        else:
            for binding in self._bindings.key_to_bindings.get(event.key, ()):
                if await self.app.run_action(binding.action, self):
                    break
            else:
                return
        event.stop()
        event.prevent_default()


class PaletteEntry(CommandInput, Entry):
    """The line of the palette."""


class Palette(Resilient, CommandPalette):
    """Textual's, with a line of ours."""

    def compose(self) -> ComposeResult:
        for widget in super().compose():
            if isinstance(widget, CommandInput):
                yield PaletteEntry(placeholder=widget.placeholder, select_on_focus=False)
            else:
                yield widget
