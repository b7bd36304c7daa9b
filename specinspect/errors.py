"""The one exception base: what went wrong, and what to do about it."""


class SpecinspectError(Exception):
    """An expected failure that a front end shows as one line.

    Args:
        message: what was expected and what was found.
        hint: what the user can do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        """Return message and hint as one line."""
        return f"{self.message} ({self.hint})" if self.hint else self.message


class CheckpointError(SpecinspectError):
    """A file or directory that cannot be read as a checkpoint."""


class AmbiguousKeyError(CheckpointError):
    """Several state dicts in one file, and no way to tell which is meant."""


class LayerError(SpecinspectError):
    """No layer to analyse, or a layer whose tensors do not fit together."""


class SettingsError(SpecinspectError):
    """An option or a configuration value that makes no sense."""


class ResourceError(SpecinspectError):
    """The machine cannot do it: no such device, or no memory for a layer."""
