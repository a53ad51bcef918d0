"""Units: how bytes, time and energy are written, for people. Everything that is shown goes through here."""


def size(count: float) -> str:
    """Bytes: `512 kB`, `820 MB`, `1.6 GB`. A GB is 10⁹ bytes."""
    for unit, of in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * of:
            number = count / of
            return (
                f"{number:.1f} {unit}"
                if unit == "GB"
                else f"{number:.0f} {unit}"
                if number >= 10
                else f"{number:.2g} {unit}"
            )
    return f"{count:.0f} B"


def part_of(used: float, total: float | None) -> str:
    """Bytes of as many: `1.6/24.0 GB`; without a total, as `size` has them."""
    return f"{used / 1e9:.1f}/{total / 1e9:.1f} GB" if total else size(used)


def duration(seconds: float) -> str:
    """`12.3 s`, `4 min 10 s`, `3 h 20 min`, `2 d 4 h`."""
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for large, small, names in ((86400, 3600, "d h"), (3600, 60, "h min"), (60, 1, "min s")):
        if whole >= large:
            first, second = names.split()
            return f"{whole // large} {first} {whole % large // small} {second}"
    raise AssertionError


def energy(joules: float) -> str:
    """`2.5 kJ`, `0.31 kWh`."""
    return f"{joules / 3.6e6:.3g} kWh" if joules >= 36e3 else f"{joules / 1e3:.3g} kJ"
