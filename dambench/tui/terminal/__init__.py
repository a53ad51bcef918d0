"""The terminal itself: its clipboard, its signs and colours, how much it takes, and its end."""
