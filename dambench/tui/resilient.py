"""Resilient: whatever hears messages goes on hearing them after a fault of its own.

Textual ends the loop of a screen or a widget in which a message could not be dealt with: it would be drawn for ever as
it was, and answer no key.
"""

from textual.message import Message
from textual.message_pump import MessagePump


class Resilient(MessagePump):
    """The first base of everything here that hears messages."""

    async def _dispatch_message(self, message: Message) -> None:
        try:
            await super()._dispatch_message(message)
        except Exception as error:
            self.app._handle_exception(error)
