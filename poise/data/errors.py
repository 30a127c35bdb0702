"""The one error of this room."""


class DataError(ValueError):
    """A text, tokenizer, window or set of samples cannot be had; the message is a sentence: why, and what to do."""
