"""Encoders: thin wrappers around those of segmentation_models_pytorch and timm, with weights by name or from a file.

segmentation_models_pytorch's MiT encoders have the keys and shapes of SegFormer's and stochastic depth 0.1 growing
linearly with depth. Mind that SegFormer's weights may be used for research only; the ResNets' may be used by anyone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from ..runtime.files import load_strictly, mistaken_for, read_tensors, state_dict_of

_LEVELS = 4
_HUB = ("hub", "imagenet")  # weights of these names are fetched


class Encoder(nn.Module):
    """The last four levels of a segmentation_models_pytorch encoder.

    Args:
        name: "mit_b0" to "mit_b5", "resnet50", "resnet101" or any other of the library's names.
        weights: "imagenet" or "hub" downloads them once from the hub; None starts from random weights; anything else
            is a path to a file (see `load_encoder_weights`).
        output_stride: pixels of the image per cell of the last level: 32, or 16 or 8 where strides give way to
            dilations (ResNets). DeepLabV2 uses 8.

    `out_channels` holds the channels of the four levels, fine to coarse, and `strides` their pixels per cell.
    """

    def __init__(self, name: str, weights: str | None = None, output_stride: int = 32) -> None:
        try:
            from segmentation_models_pytorch.encoders import get_encoder
        except ModuleNotFoundError as error:
            needs = "needs segmentation_models_pytorch: pip install 'mrm-loss[models]'"
            raise ModuleNotFoundError(f"encoder {name}: {needs} ({error})") from error

        super().__init__()
        hub = "imagenet" if weights in _HUB else None
        try:
            self.body = get_encoder(name, weights=hub, output_stride=output_stride)
        except KeyError as error:
            raise ValueError(f"name: expected an encoder of segmentation_models_pytorch; {error.args[0]}") from error
        except Exception as error:
            if hub is None:
                raise
            raise ConnectionError(_how_to_fetch(name, _smp_weights(name), error)) from error
        if weights is not None and hub is None:
            load_encoder_weights(self.body, weights)
        self.name = name
        self.output_stride = output_stride
        self.out_channels = list(self.body.out_channels[-_LEVELS:])
        self.strides = [min(4 * 2**level, output_stride) for level in range(_LEVELS)]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to four levels (B, C_l, h_l, w_l), fine to coarse, from stride 4 on.

        What the library returns besides, the image itself and a level at stride 2, is left out.
        """
        return cast("list[Tensor]", self.body(images)[-_LEVELS:])


def load_encoder_weights(encoder: nn.Module, path: str | Path) -> None:
    """Load ImageNet weights from a local file into an encoder, strictly but for the classifier.

    Reads `.safetensors` (the hub's files) and what `torch.load(weights_only=True)` reads: SegFormer's mit_b*.pth,
    torchvision's resnet*.pth, each bare or under "state_dict", with or without a "backbone." prefix.

    Raises: as `read_weights`; also ValueError where keys or shapes do not fit.
    """
    state, prefix = read_weights(path), "backbone."
    if any(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    for classifier in ("head.weight", "head.bias", "fc.weight", "fc.bias"):
        state.pop(classifier, None)
    load_strictly(encoder, state, f"encoder weights: {path} does not fit the encoder")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a local weight file, bare or under "state_dict"; nothing but tensors is unpickled.

    Raises: FileNotFoundError; ValueError where the file is damaged, or holds other things.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'encoder weights: expected "hub", "imagenet" or a file, found no file {path}')
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            if other := mistaken_for(path):
                raise ValueError(other)
            return load_file(path)
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"encoder weights: {path}: expected a whole file of weights; {error}") from error
    try:
        return state_dict_of(read_tensors(path))
    except ValueError as error:
        raise ValueError(f"encoder weights: {path}: expected a file of weights; {error}") from error


class TimmPyramid(nn.Module):
    """The levels of a timm encoder that has strides 4 to 32, such as "convnext_base.dinov3_lvd1689m".

    For name and weights see `make_body`, for the rest `Encoder`.
    """

    def __init__(self, name: str, weights: str | None = None, output_stride: int = 32) -> None:
        super().__init__()
        whole, _ = make_body(name, weights, output_stride=output_stride)
        # not by features_only, which would take any file's weights, or none, without a word
        from timm.models import FeatureListNet

        self.body = FeatureListNet(whole, out_indices=tuple(range(_LEVELS)), flatten_sequential=True)
        self.out_channels: list[int] = self.body.feature_info.channels()
        self.strides: list[int] = self.body.feature_info.reduction()

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to levels (B, C_l, h_l, w_l), fine to coarse."""
        return cast("list[Tensor]", self.body(images))


def make_body(name: str, weights: str | None, **options: Any) -> tuple[Any, dict[str, Tensor] | None]:
    """A timm model and, where its weights came from a file, that file's content.

    Args:
        name: timm's, with the tag of the weights behind the dot.
        weights: "hub" downloads them once; None starts from random weights; anything else is a file, in timm's form or
            as its authors published it.
        options: of `timm.create_model`.

    Raises:
        ValueError: no such model or tag, one that does not take the options, or a file that does not fit it.
        FileNotFoundError: no such file.
        ConnectionError: the weights could not be fetched; the message says from where to do it by hand.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"encoder {name}: needs timm: pip install 'mrm-loss[models]' ({error})") from error

    if not timm.is_model(name.partition(".")[0]):
        raise ValueError(f"name: expected an encoder of timm or segmentation_models_pytorch, got {name!r}")
    try:
        published = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:  # a wrong tag
        raise ValueError(f"encoder {name}: {error}") from error
    from_hub, repository = weights in _HUB, published.hf_hub_id if published else None
    if from_hub and not repository:
        raise ValueError(f"encoder weights: timm has none for {name} on the hub; give a file")
    state = None if weights is None or from_hub else read_weights(weights)
    overlay: dict[str, Any] = {} if state is None else {"pretrained_cfg_overlay": {"state_dict": dict(state)}}
    try:
        return timm.create_model(name, pretrained=weights is not None, **overlay, **options), state
    except TypeError as error:  # an architecture without one of the options
        raise ValueError(f"encoder {name}: cannot be built as needed here ({error})") from error
    except Exception as error:
        if from_hub:
            url = f"https://huggingface.co/{repository}/resolve/main/model.safetensors"
            raise ConnectionError(_how_to_fetch(name, url, error)) from error
        if state is None:
            raise
        reasons = " ".join(line.strip() for line in str(error).splitlines())
        raise ValueError(f"encoder weights: {weights} does not fit {name}: {reasons[:400]}") from error


def _smp_weights(name: str) -> str:
    """Where an encoder's weights lie; "them" for timm's, "tu-...", whose place the library does not list."""
    from segmentation_models_pytorch.encoders import encoders

    if name not in encoders:
        return "them"
    settings = encoders[name]["pretrained_settings"]["imagenet"]
    return f"https://huggingface.co/{settings['repo_id']}/resolve/{settings['revision']}/model.safetensors"


def _how_to_fetch(name: str, weights: str, error: Exception) -> str:
    return (
        f"the weights of {name} could not be fetched ({type(error).__name__}: {' '.join(str(error).split())[:300]}); "
        f"download {weights} on a machine with a connection and give the file: --encoder-weights FILE"
    )
