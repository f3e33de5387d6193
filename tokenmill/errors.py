"""The error that a user is meant to read: what is wrong, and what to do about it."""


class TokenmillError(Exception):
    """A failure whose message is enough for the user; no stack trace is shown for it.

    Args:
        message: What happened: the file, line, field or value, and what was expected.
        hint: What to do next, if there is one thing to do.
    """

    def __init__(self, message: str, hint: str = ""):
        # Beam makes an error of a worker anew from its args.
        super().__init__(message, *([hint] if hint else []))
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()
