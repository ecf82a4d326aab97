"""The networks of the trainers: encoders of a library, decoders written out here.

May import settings.
"""

from .backbones import Encoder
from .build import build_encoder, build_network, is_vit, network_of
from .daformer import DAFormerHead
from .deeplab import DeepLabV2Head, DeepLabV3PlusHead
from .hrda import HRDA, HRDADecoder, HRDAFeatures, HRDALogits
from .segmentor import Levels, Segmentor
from .sliding import Box, sliding_boxes, sliding_predict
from .vit import LightHead, ViTEncoder

__all__ = [
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
    "LightHead",
    "Segmentor",
    "ViTEncoder",
    "build_encoder",
    "build_network",
    "is_vit",
    "network_of",
    "sliding_boxes",
    "sliding_predict",
]
