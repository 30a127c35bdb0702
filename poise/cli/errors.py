"""Errors that a command answers with one sentence, and the exit codes."""

DONE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class UsageError(Exception):
    """A command was called wrongly; the message is one sentence that says what to write instead."""


class MissingPackages(UsageError):
    """A command needs packages of an extra that is not installed."""

    def __init__(self, names: list[str], extra: str = "train") -> None:
        needed = ", ".join(sorted(names))
        super().__init__(
            f"this command needs packages that are not installed ({needed}); run pip install 'poise[{extra}]'."
        )
