"""Settings of tasks as frozen dataclasses; nothing here imports torch."""
