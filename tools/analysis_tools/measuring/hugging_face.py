"""Hugging Face's EoMT with this package's weights and encoding of results."""

from functools import cache

import torch
from torch import Tensor, nn

from eomt_mm.convert.hugging_face import model_config
from eomt_mm.errors import UserError
from eomt_mm.models import Criterion, MaskHead, QueryViT
from eomt_mm.models.postprocess import INSTANCE_OFFSET


def reference_model(backbone: QueryViT, head: MaskHead) -> nn.Module:
    """Build `EomtForUniversalSegmentation` with the weights of this package's network.

    Args:
        backbone (QueryViT): A backbone that transformers supports.
        head (MaskHead): Its head.

    Returns:
        nn.Module: The model in evaluation mode, without masks, on the CPU.

    Raises:
        UserError: If transformers is not installed, or knows no such model.
    """
    transformers = _transformers()
    network = nn.ModuleDict(dict(backbone=backbone, head=head))
    # What the converter asks a model for.
    described = nn.Module()
    described.backbone, described.head = backbone, nn.Module()
    described.head.upscale, described.head.criterion = head.upscale, Criterion()
    layout, config = model_config(described, 'head')
    config = transformers.AutoConfig.for_model(
        **config, num_labels=head.num_classes, attn_implementation='sdpa'
    )
    cls = getattr(transformers, config.architectures[0])
    model = cls(config)
    tensors = layout.to_file_names(network.state_dict(), {})
    loaded = model.load_state_dict(tensors, strict=False)
    if loaded.unexpected_keys or set(loaded.missing_keys) - {
        'attn_mask_probs',
        'criterion.empty_weight',
    }:
        raise UserError(
            f'transformers {transformers.__version__} has other parameters than the '
            f'tables of this package: {loaded}'
        )
    model.attn_mask_probs.zero_()
    return model.eval()


@cache
def processor(side: int, windows: bool = False) -> object:
    """Build its image processor, which fits an image into a square or cuts windows."""
    return _transformers().EomtImageProcessor(
        size=dict(shortest_edge=side, longest_edge=None if windows else side),
        do_split_image=windows,
        do_pad=not windows,
    )


def outputs(
    class_logits: Tensor, mask_logits: Tensor, patch_offsets: list | None = None
) -> object:
    """Pack logits for its post-processing."""
    from transformers.models.eomt.modeling_eomt import (
        EomtForUniversalSegmentationOutput,
    )

    return EomtForUniversalSegmentationOutput(
        class_queries_logits=class_logits,
        masks_queries_logits=mask_logits,
        patch_offsets=patch_offsets,
    )


def panoptic_ids(result: dict, num_classes: int, num_things: int) -> Tensor:
    """Convert its panoptic result to class + instance * INSTANCE_OFFSET.

    Args:
        result (dict): `segmentation` (H, W), -1 for void, and `segments_info`.
        num_classes (int): Number of classes, the code of void.
        num_things (int): Labels below it are things.

    Returns:
        Tensor: Shape (H, W) int64.
    """
    ids, instance = [num_classes], 0
    for segment in result['segments_info']:
        label = segment['label_id']
        if label < num_things:
            instance += 1
            label += instance * INSTANCE_OFFSET
        ids.append(label)
    table = torch.tensor(ids, device=result['segmentation'].device)
    return table[result['segmentation'].long() + 1]


def _transformers():
    try:
        import transformers
    except ImportError as error:
        raise UserError(f'transformers is not installed ({error})') from error
    return transformers
