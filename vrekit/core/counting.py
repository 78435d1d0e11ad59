"""Numbers of things in messages for people."""


def counted(count: int, what: str, plural: str | None = None) -> str:
    """Return a number and what it counts: `counted(1, "row") == "1 row"`, `counted(2, "row") == "2 rows"`.

    Args:
        count: How many.
        what: One of them, in English.
        plural: Several of them, where that is not `what` with an s.
    """
    return f"{count} {what if count == 1 else plural or f'{what}s'}"
