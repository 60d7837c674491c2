"""What this package tells the application's log, under the name ``procbroker``: connections lost, requests repeated."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    import logging

_logger: Optional[logging.Logger] = None


def warn(message: str, *args: Any) -> None:
    """Log that something is not as it should be, and is being mended."""
    _own().warning(message, *args)


def inform(message: str, *args: Any) -> None:
    """Log what was mended, or was announced."""
    _own().info(message, *args)


def _own() -> logging.Logger:
    """Return the package's logger. It is made with the first message: most clients never have one."""
    global _logger  # noqa: PLW0603 - loggers are the interpreter's, as modules are
    if _logger is None:
        import logging  # noqa: PLC0415 - it takes long

        _logger = logging.getLogger("procbroker")
        # An application that sets up no logging is to hear nothing of it on its standard error.
        _logger.addHandler(logging.NullHandler())
    return _logger
