"""How text that came from outside is shown: names, paths, class names, error messages.

A run's name can hold an escape sequence that writes to the reader's clipboard, a direction mark that
reorders the line, or a newline that forges a row of a report. All such text passes through here, both when
it is stored and when it is drawn.
"""

import re
import unicodedata

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#&!$])")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def display(text: str, limit: int = 200) -> str:
    """One line of harmless text: control, format (bidi) and surrogate characters become U+FFFD.

    Args:
        limit: longer text is cut and ends in an ellipsis.
    """
    flat = " ".join(text.split()) if not text.isprintable() else text
    safe = flat
    if not flat.isprintable():  # what is printable is of none of these categories
        safe = "".join(
            _REPLACEMENT if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} else c for c in flat
        )
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def counted(number: int, what: str) -> str:
    """`1 thread`, `2 threads`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def display_lines(text: str, limit: int = 400, most: int = 500) -> str:
    """Each line as `display` shows it; of more than `most` lines the last, where a traceback says what happened."""
    return "\n".join(display(line, limit) for line in text.splitlines()[-most:])


def markdown(text: str, limit: int = 200) -> str:
    """`display`, with every character that markdown or HTML would read as markup escaped."""
    return _MARKDOWN.sub(r"\\\1", display(text, limit))
