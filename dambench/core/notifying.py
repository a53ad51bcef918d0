"""Notifying: how a terminal is made to call its person, who looks elsewhere. Over SSH, nothing else can."""

import os
from collections import Counter
from collections.abc import Collection, Sequence

from dambench.core.sanitize import counted, display

ESC, BEL = "\x1b", "\x07"


def signals(kinds: Collection[str], text: str) -> str:
    """The characters that make the terminal ring, or show a notification.

    OSC 9 is iTerm2's, also of Windows Terminal, kitty, WezTerm and Ghostty; OSC 777 that of urxvt, foot, Ghostty and
    of terminals built on VTE. tmux passes them on if its `allow-passthrough` is on.

    Args:
        kinds: of preferences.Notice; a toast is drawn, and no signal.
        text: what has happened. It is shown as one line of plain characters, whatever it holds.
    """
    said = display(text, 200).replace(";", ",")
    sent = [BEL] if "bell" in kinds else []
    sent += [_passed(f"{ESC}]9;{said}{BEL}")] if "osc9" in kinds else []
    sent += [_passed(f"{ESC}]777;notify;dambench;{said}{BEL}")] if "osc777" in kinds else []
    return "".join(sent)


def in_words(ended: Sequence[tuple[str, str]]) -> str:
    """The sentence for runs that have ended.

    Args:
        ended: id and state of each, at least one.
    """
    if len(ended) == 1:
        run, state = ended[0]
        return f"The run {run} is {state}."
    states = ", ".join(f"{number} {state}" for state, number in Counter(state for _, state in ended).items())
    return f"{counted(len(ended), 'run')} have ended: {states}."


def _passed(sequence: str) -> str:
    """The sequence as tmux hands it on to the terminal around it."""
    return f"{ESC}Ptmux;{sequence.replace(ESC, ESC * 2)}{ESC}\\" if os.environ.get("TMUX") else sequence
