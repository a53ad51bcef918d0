"""Clock: the time, read here alone, so that a test can stop it."""

from datetime import UTC, datetime


def now() -> datetime:
    return datetime.now(UTC)


def since(moment: str) -> float:
    """Seconds since a time of the database; at least 0: a clock may have been set back."""
    return max(0.0, (now() - datetime.fromisoformat(moment)).total_seconds())
