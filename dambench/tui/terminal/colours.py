"""Colours of charts and states, on a dark and on a light background.

They were sought so that the six of them stay apart for people who see no red, no green or no blue as well (by at least
13 in CIELAB as simulated after Machado, Oliveira and Fernandes, 2009), and can be read on every background of Textual's
themes. Nothing is told by a colour alone: series carry letters, states are words.
"""

from rich.terminal_theme import TerminalTheme

ANSI_ON_DARK = TerminalTheme(
    (18, 18, 18),
    (224, 224, 224),
    # Black, red, green, yellow, blue, magenta, cyan, white.
    [
        *((0, 0, 0), (255, 100, 37), (20, 240, 120), (245, 240, 60)),
        *((129, 146, 251), (222, 117, 165), (110, 197, 249), (208, 208, 208)),
    ],
)

ANSI_ON_LIGHT = TerminalTheme(
    (224, 224, 224),
    (0, 0, 0),
    [(0, 0, 0), (110, 0, 0), (0, 100, 62), (115, 80, 6), (0, 0, 117), (110, 0, 95), (0, 88, 166), (80, 80, 80)],
)
