"""The networks of the trainers: encoders of a library, decoders written out here.

May import no other room.
"""

from .backbones import Encoder
from .build import DECODERS, build_network
from .daformer import DAFormerHead
from .deeplabv2 import DeepLabV2Head
from .deeplabv3plus import DeepLabV3PlusHead
from .hrda import HRDA, HRDADecoder, HRDAFeatures, HRDALogits
from .segmentor import Levels, Segmentor
from .sliding import Box, sliding_boxes, sliding_predict

__all__ = [
    "DECODERS",
    "HRDA",
    "Box",
    "DAFormerHead",
    "DeepLabV2Head",
    "DeepLabV3PlusHead",
    "Encoder",
    "HRDADecoder",
    "HRDAFeatures",
    "HRDALogits",
    "Levels",
    "Segmentor",
    "build_network",
    "sliding_boxes",
    "sliding_predict",
]
