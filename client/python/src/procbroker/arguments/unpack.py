"""``typing.Unpack``, which Python before 3.11 lacks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

__all__ = ["Unpack"]

if TYPE_CHECKING:
    from typing_extensions import Unpack
elif sys.version_info >= (3, 11):
    from typing import Unpack
else:

    class Unpack:
        """What stands for it where annotations are read at run time: its own argument."""

        def __class_getitem__(cls, options: Any) -> Any:
            """Return the argument."""
            return options
