"""What can be set: the fields with their help, the presets, the command line.

May import networks.
"""

from .checks import FEATURE_DISTANCE
from .command_line import parse
from .fields import METHODS, MRM_ON, Settings, load_settings, settings_of
from .presets import preset_values

__all__ = [
    "FEATURE_DISTANCE",
    "METHODS",
    "MRM_ON",
    "Settings",
    "load_settings",
    "parse",
    "preset_values",
    "settings_of",
]
