"""The one error of this room."""


class DataError(ValueError):
    """A text, tokenizer or window that cannot be had; the message is one sentence that says why and what to do."""
