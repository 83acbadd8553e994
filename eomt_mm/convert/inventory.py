"""Numbers of a network, read off its tensors, and the configs that fit them."""

import math
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor

from eomt_mm.errors import UserError

SIZES = {(384, 12): 'S', (768, 12): 'B', (1024, 24): 'L', (1536, 40): 'g'}
# Names of timm's models.
FAMILIES = {
    'DINOv2': re.compile(r'vit_\w+_patch14_reg4_dinov2'),
    # The others, S+ and H+, have an MLP with gates.
    'DINOv3': re.compile(r'vit_(?!\w+_plus)\w+_patch16_dinov3(_qkvb)?'),
}


@dataclass(frozen=True)
class Inventory:
    """Numbers of a network; None if its tensors do not show them.

    Attributes:
        family (str, optional): 'DINOv2' (with registers), 'DINOv3' or another.
        embed_dims (int): Channels of the tokens.
        depth (int): Number of blocks.
        patch_size (int): Side of a patch in pixels.
        num_queries (int): Number of queries.
        num_classes (int): Number of classes without "no object".
        num_blocks (int, optional): Last blocks that carry the queries.
        img_size (int, optional): Side of the square input in pixels.
    """

    family: str | None
    embed_dims: int
    depth: int
    patch_size: int
    num_queries: int
    num_classes: int
    num_blocks: int | None
    img_size: int | None

    def rows(self) -> list[tuple[str, str]]:
        """Return the summary for the user, as label and text."""
        size = SIZES.get((self.embed_dims, self.depth))
        name = ' '.join(filter(None, (self.family, f'ViT-{size}' if size else 'ViT')))
        side = f'{self.img_size} x {self.img_size}' if self.img_size else '?'
        return [
            (
                'backbone',
                f'{name}: {self.depth} blocks, {self.embed_dims} channels, '
                f'patches of {self.patch_size}',
            ),
            (
                'queries',
                f'{self.num_queries}, in the last {self.num_blocks or "?"} blocks',
            ),
            ('classes', f'{self.num_classes}, and "no object"'),
            ('input', f'{side} pixels'),
        ]


def take_inventory(
    network: dict[str, Tensor], unused: dict[str, Tensor], beside: dict
) -> Inventory:
    """Read the numbers off the tensors.

    Args:
        network (dict[str, Tensor]): Tensors under this package's names.
        unused (dict[str, Tensor]): Tensors outside the network; `attn_mask_probs` is
            read.
        beside (dict): The `config.json` beside the file, or nothing. It supplements the
            tensors if it has the same number of queries.

    Returns:
        Inventory: The known numbers.

    Raises:
        UserError: If a tensor that is read is missing.
    """
    queries = _shape(network, 'backbone.queries', 2)
    classes = _shape(network, 'head.class_head.weight', 2)
    patch = _shape(network, 'backbone.patch_embed.proj.weight', 4)
    blocks = [re.match(r'backbone\.blocks\.(\d+)\.', key) for key in network]
    stated = {}
    if beside.get('num_queries') == queries[0]:
        stated = {key: value for key, value in beside.items() if isinstance(value, int)}
    probs = unused.get('attn_mask_probs')
    return Inventory(
        family=_family(network),
        embed_dims=queries[1],
        depth=1 + max((int(match[1]) for match in blocks if match), default=-1),
        patch_size=patch[-1],
        num_queries=queries[0],
        num_classes=classes[0] - 1,
        num_blocks=stated.get('num_blocks') if probs is None else probs.numel(),
        img_size=_side(network, patch[-1]) or stated.get('image_size'),
    )


def fitting_configs(inventory: Inventory, configs: dict[Path, Config]) -> list[Path]:
    """List the configs whose numbers are those of a network.

    Args:
        inventory (Inventory): The network. A number that is None fits all.
        configs (dict[Path, Config]): All configs.

    Returns:
        list[Path]: Configs of the smallest input first, then of the shortest path.
    """
    known = {
        key: value
        for key, value in asdict(inventory).items()
        # The depth belongs to the architecture: a missing block is reported later.
        if key == 'family' or (value is not None and key != 'depth')
    }
    fits = []
    for path, cfg in configs.items():
        numbers = config_numbers(cfg.get('model') or {})
        if known.items() <= numbers.items() and not _is_tested_elsewhere(cfg):
            fits.append((numbers['img_size'], len(path.parts), path))
    return [path for *_, path in sorted(fits)]


def _is_tested_elsewhere(cfg: Config) -> bool:
    """Whether a config takes another one's network to another data set."""
    train, test = (
        (cfg.get(f'{split}_dataloader') or {}).get('dataset', {}).get('type')
        for split in ('train', 'test')
    )
    return None not in (train, test) and train != test


def config_numbers(model: ConfigDict) -> dict:
    """Read the numbers of `Inventory` off a config's `model`.

    Args:
        model (ConfigDict): Config of any model.

    Returns:
        dict: Numbers by the names of `Inventory`; empty if the model is not an EoMT.
    """
    # Not at the top: reading a checkpoint needs no timm.
    from eomt_mm.models.network import head_of

    backbone = model.get('backbone') or {}
    head = head_of(model) or {}
    # Token merging has no weights: its configs take those of the one without.
    if 'num_queries' not in backbone or backbone.get('token_merging'):
        return {}
    things, stuff = (head.get(f'num_{x}_classes', 0) for x in ('things', 'stuff'))
    sides = backbone.get('img_size')
    sides = {sides} if isinstance(sides, int) else set(sides)
    return dict(
        family=family_of(backbone.get('arch', '')),
        embed_dims=head.get('embed_dims') or channels_of(backbone),
        patch_size=backbone.get('patch_size', 16),
        num_queries=backbone['num_queries'],
        num_classes=head.get('num_classes', things + stuff),
        num_blocks=backbone.get('num_blocks', 4),
        img_size=sides.pop() if len(sides) == 1 else 0,
    )


def channels_of(backbone: dict) -> int | None:
    """Return the channels of a config's ViT, None if timm does not know it."""
    own = (backbone.get('timm_args') or {}).get('embed_dim')
    return own or _published_channels(backbone.get('arch', ''))


@cache
def _published_channels(arch: str) -> int | None:
    # Not at the top: reading a checkpoint needs no timm.
    from eomt_mm.models.pretrained import check_arch
    from eomt_mm.models.timm_vit import build_vit

    with torch.device('meta'):
        try:
            check_arch(arch)
            # One block is enough to see the channels.
            return build_vit(arch.partition('.')[0], dict(depth=1)).embed_dim
        except UserError:
            return None


def family_of(arch: str) -> str | None:
    """Return the pre-training that a model's name in timm stands for, if known."""
    name = arch.partition('.')[0]
    return next((f for f, names in FAMILIES.items() if names.fullmatch(name)), None)


def _family(network: dict[str, Tensor]) -> str | None:
    gates = 'backbone.blocks.0.mlp.fc1_g.weight'
    if 'backbone.reg_token' not in network or gates in network:
        return None
    # DINOv3 has rotary codes, and no biases of the attention in some of its sizes.
    return 'DINOv2' if 'backbone.pos_embed' in network else 'DINOv3'


def _shape(network: dict[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    if key not in network:
        raise UserError(
            f'the file is incomplete: nothing in it is {key}. Take a whole one'
        )
    if network[key].ndim != ndim:
        raise UserError(
            f'{key} is of shape {tuple(network[key].shape)}; expected {ndim} axes'
        )
    return tuple(network[key].shape)


def _side(network: dict[str, Tensor], patch_size: int) -> int | None:
    """Return the side of the input, if position codes form a square of patches."""
    if 'backbone.pos_embed' not in network:
        return None
    patches = network['backbone.pos_embed'].shape[-2]
    side = math.isqrt(patches)
    return side * patch_size if side**2 == patches else None
