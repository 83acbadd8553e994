"""A ViT of which a part is not trained."""

from torch import nn

from eomt_mm.errors import UserError

EMBEDDINGS = ('patch_embed', 'pos_embed', 'cls_token', 'reg_token', 'norm_pre')


class Freezing:
    """Which parts of a ViT keep their weights in training.

    They get no gradients, and thus no state in the optimizer, and stay in evaluation
    mode. Queries and adapters, which no pre-training knows, are always trained.

    Args:
        depth (int): Number of blocks of the ViT.
        blocks (int | str): How many of its first blocks, or 'all'. Defaults to 'all'.
        embeddings (bool): Whether patch embedding, position codes, CLS and registers
            are frozen with them. Defaults to True.
        norm (bool): Whether the final norm is. Defaults to True where all blocks are,
            else to False.

    Raises:
        UserError: If there are not so many blocks.
    """

    def __init__(
        self,
        depth: int,
        blocks: int | str = 'all',
        embeddings: bool = True,
        norm: bool | None = None,
    ) -> None:
        self.blocks = depth if blocks == 'all' else blocks
        if not isinstance(self.blocks, int) or not 0 <= self.blocks <= depth:
            raise UserError(
                f'backbone.frozen.blocks is {blocks!r}, but the ViT has {depth} '
                f"blocks: expected a number from 0 to {depth}, or 'all'"
            )
        self.embeddings = embeddings
        self.norm = self.blocks == depth if norm is None else norm

    def modules(self, vit: nn.Module) -> list[nn.Module]:
        """The frozen modules of a ViT."""
        names = [*EMBEDDINGS] * self.embeddings + ['norm'] * self.norm
        modules = [vit._modules.get(name) for name in names]
        return [*vit.blocks[: self.blocks], *(m for m in modules if m is not None)]

    def apply(self, vit: nn.Module) -> None:
        """Take the gradients from what is frozen.

        Args:
            vit (nn.Module): A `PlainViT`; changed in place.
        """
        for module in self.modules(vit):
            module.requires_grad_(False)
        for name in EMBEDDINGS if self.embeddings else ():
            parameter = vit._parameters.get(name)
            if parameter is not None:
                parameter.requires_grad_(False)
