"""Networks of the study: the trainers' small one with another encoder or decoder, levels and strides as before."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn
from trainers import Segmentor, SmallEncoder

from mrm_loss.layers import Block, sincos_position


class GlobalView(nn.Module):
    """Two transformer blocks on the cells of the encoder's coarse level, so that each sees the whole image."""

    def __init__(self, channels: int = 128) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(channels, 4, 2 * channels), Block(channels, 4, 2 * channels))
        self.norm = nn.LayerNorm(channels)
        nn.init.zeros_(self.norm.weight)  # starts as the encoder without it

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = x.shape[-2:]
        tokens = rearrange(x, "b c h w -> b (h w) c")
        tokens = tokens + self.norm(self.blocks(tokens + sincos_position((rows, cols), x.shape[1]).to(x)))
        return rearrange(tokens, "b (h w) c -> b c h w", h=rows)


def global_encoder(network: Segmentor) -> None:
    network.encoder.stage = nn.Sequential(network.encoder.stage, GlobalView())


class SmallMiT(nn.Module):
    """A two-stage Mix Transformer (SegFormer's encoder) with the small encoder's channels and strides, from scratch."""

    def __init__(self) -> None:
        from transformers import SegformerConfig, SegformerModel

        super().__init__()
        self.out_channels, self.strides = [32, 128], [4, 8]
        config = SegformerConfig(
            num_encoder_blocks=2,
            depths=[2, 3],
            hidden_sizes=self.out_channels,
            patch_sizes=[7, 3],
            strides=[4, 2],
            num_attention_heads=[1, 4],
            sr_ratios=[4, 2],
            mlp_ratios=[4, 2],
            drop_path_rate=0.0,
        )
        self.body = SegformerModel(config)

    level_rows = SmallEncoder.level_rows

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self.body(images, output_hidden_states=True).hidden_states)


def small_mit(network: Segmentor) -> None:
    network.encoder = SmallMiT()


def context_free_decoder(network: Segmentor) -> None:
    """The decoder keeps no dilated convolution: it sees a cell and, through resizing, its direct neighbours."""
    network.decoder.context = nn.ModuleList()
