"""Sizes that follow from the backbone, so that a config states them once.

Channels and patch size belong to the backbone. A head or neck that derives from
`FollowsBackbone` takes them from there; a config may still state them, and an explicit
value that contradicts the backbone is an error before anything is trained.
"""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from eomt_mm.compat import flips_channels
from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS, class_of

from .plain_vit import PlainViT
from .pretrained import RGB

# What MMSegmentation and MMDetection call a head.
HEADS = ('decode_head', 'panoptic_head')


class FollowsBackbone:
    """A head or neck whose sizes are those of the backbone."""

    @classmethod
    def sizes_from(cls, backbone: PlainViT, config: dict) -> dict:
        """Return the arguments that the backbone decides.

        Args:
            backbone (PlainViT): The backbone of the model.
            config (dict): The part's own config.

        Returns:
            dict: Names and values of arguments.
        """
        return dict(embed_dims=backbone.embed_dims, patch_size=backbone.patch_size)


def complete_config(config: dict, backbone: nn.Module, name: str) -> dict:
    """Complete the config of a head or neck with the sizes of the backbone.

    Args:
        config (dict): Config of the part; left as it is.
        backbone (nn.Module): The backbone of the model, already built.
        name (str): Name of the part in the model's config, for the error.

    Returns:
        dict: A copy with all sizes. Parts that do not follow the backbone, and parts
        after other backbones than a `PlainViT`, are returned unchanged.

    Raises:
        UserError: If the config states a size that the backbone does not have.
    """
    if not (isinstance(backbone, PlainViT) and follows_backbone(config)):
        return config
    sizes = class_of(config).sizes_from(backbone, config)
    for key, derived in sizes.items():
        stated = config.get(key)
        if stated is not None and stated != derived:
            raise UserError(
                f'model.{name}.{key} is {stated}, but the backbone {backbone.arch} '
                f'makes it {derived}: leave {key} out, it follows from the backbone'
            )
    # A copy of the same class: MMDetection reads its configs by attribute.
    completed = config.copy()
    completed.update(sizes)
    return completed


def follows_backbone(config: dict | None) -> bool:
    """Whether the sizes of a part are those of the backbone; True without a part."""
    if not config:
        return True
    found = class_of(config)
    return inspect.isclass(found) and issubclass(found, FollowsBackbone)


def write_sizes(model: dict) -> None:
    """Write the sizes that follow from the backbone into a model's config.

    MMSegmentation's and MMDetection's own `EncoderDecoder` and `MaskFormer` build a
    head without a look at the backbone, and need them in the config.

    Args:
        model (dict): Config of a model of this package; changed in place.
    """
    with torch.device('meta'):  # sizes without values
        backbone = MODELS.build(model['backbone'])
    for name in ('neck', *HEADS):
        if model.get(name):
            model[name] = complete_config(model[name], backbone, name)
    if model.get('data_preprocessor'):
        model['data_preprocessor'].setdefault('size', backbone.img_size)


def set_input_size(preprocessor: nn.Module, backbone: nn.Module) -> None:
    """Give a preprocessor the input size and the channels of the backbone.

    Args:
        preprocessor (nn.Module): A data preprocessor of this package; its `size` is set
            if the config leaves it out. Others are left alone.
        backbone (nn.Module): The backbone of the model.

    Raises:
        UserError: If the config states another size, or means of other channels.
    """
    if not isinstance(preprocessor, PadsToBackbone):
        return
    if not isinstance(backbone, PlainViT):
        preprocessor.require_size()
        return
    preprocessor.set_channels(backbone.in_channels)
    if preprocessor.size is None:
        preprocessor.size = backbone.img_size
    if tuple(preprocessor.size) != backbone.img_size:
        raise UserError(
            f'model.data_preprocessor.size is {tuple(preprocessor.size)}, but '
            f'model.backbone.img_size is {backbone.img_size}: leave size out, it '
            'follows from the backbone'
        )


def first_channel(
    mean: Sequence[float] | None, std: Sequence[float] | None
) -> dict[str, Sequence[float] | None]:
    """Arguments of a stock preprocessor, which refuses some numbers of channels.

    MMEngine's takes one and three, and MMSegmentation's is one of them in the fork.
    """
    return dict(mean=mean and mean[:1], std=std and std[:1])


class PadsToBackbone:
    """A data preprocessor that pads images to the input size of the backbone.

    Attributes:
        size (tuple[int, int], optional): Height and width in pixels; None until a
            segmentor or detector of this package settles it.
        channels (int, optional): Of the images; likewise.
    """

    size: tuple[int, int] | None
    channels: int | None = None

    def cast_data(self, data: dict) -> dict:
        """Bring a batch to the device; from pinned memory nobody waits for the copy.

        Args:
            data (dict): Tensors and data samples, however nested.

        Returns:
            dict: The same on the device of the model.
        """
        self._non_blocking = True  # MMSegmentation's class does not take the argument
        return super().cast_data(data)

    def set_normalisation(
        self, mean: Sequence[float] | None, std: Sequence[float] | None
    ) -> None:
        """Settle means and deviations, of any number of channels."""
        if mean is not None:
            self.mean, self.std = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std))

    def set_channels(self, channels: int) -> None:
        """Settle the number of channels.

        Raises:
            UserError: If means, deviations or the order of colours are for another
                number.
        """
        self.channels = channels
        for name in ('mean', 'std'):
            values = getattr(self, name, None)  # none without normalisation
            if values is not None and len(values) not in (1, channels):
                raise UserError(
                    f'model.data_preprocessor.{name} has {len(values)} values, but '
                    f'model.backbone.in_channels is {channels}: call set_bands(_base_, '
                    'mean, std) of eomt_mm.bands in the config, which sets them all'
                )
            if values is not None and not _scales(values, name):
                raise UserError(
                    f'model.data_preprocessor.{name} is {values.flatten().tolist()}, '
                    f'expected finite numbers{", above 0" if name == "std" else ""}: '
                    'images are divided by std after mean is subtracted'
                )
        if channels != RGB and flips_channels(self):
            raise UserError(
                f'model.data_preprocessor turns BGR to RGB, but images have {channels} '
                'channels (model.backbone.in_channels), whose order is that of the '
                'file: set bgr_to_rgb=False'
            )

    def check_channels(self, data: dict) -> None:
        """Compare the images of a batch with the network's input.

        Args:
            data (dict): `inputs`, images (C, H, W), and perhaps `data_samples`.

        Raises:
            UserError: If an image has another number of channels.
        """
        images, samples = data['inputs'], data.get('data_samples')
        for i, image in enumerate(images):
            if self.channels not in (None, len(image)):
                name = samples[i].metainfo.get('img_path', '') if samples else ''
                raise UserError(
                    f'the image {name} has {len(image)} channels, but the network '
                    f'takes {self.channels} (model.backbone.in_channels): set both '
                    'with set_bands of eomt_mm.bands, and choose bands there'
                )

    def require_size(self) -> tuple[int, int]:
        """Return the size.

        Raises:
            UserError: If nothing has set it.
        """
        if self.size is None:
            raise UserError(
                'model.data_preprocessor.size is missing: EoMTSegmentor and '
                'EoMTDetector take it from the backbone, other models need it, such as '
                'size=(640, 640)'
            )
        return self.size


def _scales(values: Tensor, name: str) -> bool:
    """Whether a mean or a deviation can normalise images; True on the meta device."""
    return values.is_meta or bool(
        values.isfinite().all() and (name != 'std' or (values > 0).all())
    )
