"""The one exception that carries a message meant for a user.

Everything that a user can cause and mend (a wrong path, a value out of range, a port in use) is
raised as `SbError`; the command line prints it as one line and exits with 2. Programming errors
stay ordinary exceptions.
"""


class SbError(Exception):
    """A problem that the user can mend.

    Args:
        message: What is wrong, naming the field and the value.
        fix: What to type or change instead; a full sentence or command.
    """

    def __init__(self, message: str, *, fix: str = "") -> None:
        self.message = message
        self.fix = fix
        super().__init__(f"{message.rstrip('.')}. {fix}" if fix else message)


def no_room(error: Exception) -> bool:
    """Whether an engine says that the disk is full, or that a file may not grow any more."""
    text = str(error)
    return any(sign in text for sign in ("No space left on device", "File too large"))
