"""Errors a user can act on: one line that says what is wrong and names the mend."""


class BenchError(Exception):
    """Something the user asked for cannot be done; the message is all they need to see."""


class ConflictingResultError(BenchError):
    """The same key was measured twice with different outcomes."""
