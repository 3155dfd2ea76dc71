"""What ends a job in one sentence: a user's mistake, or a request to stop."""


class UserError(Exception):
    """A mistake in what the user gave: one sentence saying what is wrong, where, and what to do.

    Command line and job scripts print it without a traceback and exit with a non-zero code. Names and values of a
    user's files are in it: what would break the line or steer a terminal is shown as its escape.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message))


class Stopped(BaseException):
    """A request from outside to stop, which nothing that handles errors on the way may take for one of its own."""
