"""Masked Representation Modeling: `loss += mrm(feats, decoder, pseudo_labels)`."""

from mrm_loss.cross_entropy import weighted_cross_entropy
from mrm_loss.loss import MRM
from mrm_loss.mask import random_mask
from mrm_loss.norm import frozen_norm_stats
from mrm_loss.rebuilder import Rebuilder

__version__ = "0.1.0"
__all__ = ["MRM", "Rebuilder", "frozen_norm_stats", "random_mask", "weighted_cross_entropy"]
