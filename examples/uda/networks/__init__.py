"""The networks of the trainers: encoders of a library, decoders written out here.

May import runtime.
"""

from .backbones import Encoder
from .build import DECODERS, OWN_ENCODERS, build_encoder, build_network, is_vit, known_encoder
from .checkpointing import checkpoint_activations
from .daformer import DAFormerHead
from .deeplab import DeepLabV2Head, DeepLabV3PlusHead
from .hrda import HRDA, HRDADecoder, HRDAFeatures, HRDALogits
from .segmentor import Levels, Segmentor
from .sliding import Box, sliding_boxes, sliding_predict, sliding_rows
from .vit import LightHead, ViTEncoder

__all__ = [
    "DECODERS",
    "HRDA",
    "OWN_ENCODERS",
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
    "checkpoint_activations",
    "is_vit",
    "known_encoder",
    "sliding_boxes",
    "sliding_predict",
    "sliding_rows",
]
