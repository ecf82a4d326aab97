"""What can be set: the fields with their help, the presets, the command line.

May import no other room.
"""

from .command_line import parse
from .fields import DECODERS, METHODS, MRM_ON, Settings, load_settings, settings_of
from .presets import preset_values

__all__ = ["DECODERS", "METHODS", "MRM_ON", "Settings", "load_settings", "parse", "preset_values", "settings_of"]
