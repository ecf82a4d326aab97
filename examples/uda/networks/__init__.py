"""The networks of the trainers: encoders of a library, decoders written out here.

May import runtime.
"""

from .backbones import Encoder
from .build import DECODERS, OWN_ENCODERS, build_encoder, build_network, is_vit, known_encoder
from .checkpointing import checkpoint_activations
from .heads import DAFormerHead, DeepLabV2Head, DeepLabV3PlusHead, LightHead
from .hrda import HRDA, HRDADecoder, HRDAFeatures, HRDALogits
from .segmentor import Levels, Segmentor
from .sliding import Box, sliding_boxes, sliding_rows
from .vit import ViTEncoder

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
    "sliding_rows",
]
