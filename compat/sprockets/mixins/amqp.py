"""sprockets_amqp under the name of sprockets.mixins.amqp, which it replaces: this module is that package.

What is set, patched or raised under one name is so under the other.
"""

import sys

import sprockets_amqp
from sprockets_amqp import *  # noqa: F403 - for whoever reads the source instead of running it

sys.modules[__name__] = sprockets_amqp
