"""What keeps a run or a request from going on, told so that its message is enough; all else keeps its traceback."""


class SeriesError(Exception):
    """An error whose message says what to do: a program prints it and no traceback."""


class SettingError(SeriesError, ValueError):
    """A setting that cannot be: of a model, a recipe, a profile, a device."""


class StoppedError(SeriesError, RuntimeError):
    """A run that was told to stop, and has saved what it had; told_by: the signal."""

    def __init__(self, message: str, told_by: int) -> None:
        super().__init__(message)
        self.told_by = told_by


class LostError(SeriesError, RuntimeError):
    """A run that cannot go on because another of its processes is gone."""


def require(condition: bool, message: str) -> None:
    """SettingError with the message, unless the condition holds."""
    if not condition:
        raise SettingError(message)
