"""The natural order of names: numbers in them as numbers."""

import re


def natural(name: str) -> tuple[tuple[str, int], ...]:
    """A key for sorting: `fgsm_8` before `fgsm_32`."""
    parts = re.findall(r"(\D*)(\d{0,18})", name)
    return tuple((text, int(number or -1)) for text, number in parts)
