"""The one kind of error a user's mistake raises."""


class UserError(Exception):
    """A mistake in what the user gave: one sentence saying what is wrong, where, and what to do.

    Command line and job scripts print it without a traceback and exit with a non-zero code.
    """
