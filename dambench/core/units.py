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


def age(seconds: float) -> str:
    """`15 s`, `9 min`, `3 h`, `2 d`, `8 w`. Seconds by fives: a line that counts each costs a kilobyte in each."""
    for size, name in ((7 * 86400 * 2, "w"), (86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // (7 * 86400 if name == 'w' else size))} {name}"
    return f"{int(seconds // 5) * 5} s"


def countdown(seconds: float) -> str:
    """`0:41:10`, `1 d 1:01:01`."""
    whole = round(seconds)
    days = f"{whole // 86400} d " if whole >= 86400 else ""
    return f"{days}{whole % 86400 // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


def milliseconds(seconds: float) -> str:
    """`12.3 ms`; from a second on as `duration` has them."""
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else duration(seconds)


def rate(per_second: float) -> str:
    """`41.2 it/s`."""
    return f"{per_second:.3g} it/s"
