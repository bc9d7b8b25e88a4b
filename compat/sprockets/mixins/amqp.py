"""sprockets_amqp under the name of sprockets.mixins.amqp, which it replaces: this module is that package.

What is set, patched or raised under one name is so under the other.
"""

import sys
from importlib.abc import MetaPathFinder
from typing import Any

import sprockets_amqp
from sprockets_amqp import *  # noqa: F403 - for whoever reads the source instead of running it


class _NoSubmodules(MetaPathFinder):
    """Refuses modules below this name: they would be second copies, whose exceptions nothing raises."""

    def find_spec(self, fullname: str, *_: Any) -> None:
        if fullname.startswith(f"{__name__}."):
            raise ModuleNotFoundError(
                f"{fullname}: import names from {__name__}, or from sprockets_amqp", name=fullname
            )


sys.meta_path.insert(0, _NoSubmodules())
sys.modules[__name__] = sprockets_amqp
