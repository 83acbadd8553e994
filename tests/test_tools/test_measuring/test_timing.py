"""Seconds of the blocks of a network."""

import torch

from measuring.parts import block_seconds


def test_seconds_of_blocks_add_up_over_groups():
    """Two passes through the same blocks, one after the other."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = torch.nn.Identity(), torch.nn.Identity()

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = torch.nn.ModuleList([Block(), Block()])
            self.norm = torch.nn.Identity()

        def forward(self, x):
            for block in self.blocks:
                block.norm2(block.norm1(x))
            return self.norm(x)

    vit = Network()
    spent = block_seconds(vit, lambda: (vit(1), vit(1)))
    assert len(spent) == 2 and all(half > 0 for halves in spent for half in halves)
    vit(1)
    assert not vit.norm._forward_pre_hooks
