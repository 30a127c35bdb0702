"""The one error that wrong settings raise."""


class ConfigError(ValueError):
    """A setting is unknown or has a value that cannot work; the message is one sentence and names the setting."""
