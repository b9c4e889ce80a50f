"""How a service ends, and how it says no."""

EXIT_STOPPED = 0  # asked to
EXIT_FAILED = 1  # something broke while it ran; starting again may help
EXIT_USAGE = 2
EXIT_CONFIG = 78  # EX_CONFIG, sysexits.h: options, keys or directories are wrong; starting again does not help


class StartError(Exception):
    """The service cannot start as configured; the text is for people: 'cannot X: why; fix: Y'."""


class RefusedError(Exception):
    """The answer to one request. ``code`` is for programs, ``why`` and ``fix`` are for people."""

    def __init__(self, code: str, why: str, fix: str = "") -> None:
        super().__init__(f"{why}; fix: {fix}" if fix else why)
        self.code, self.why, self.fix = code, why, fix
