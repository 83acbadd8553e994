"""The hook that compiles the blocks of a backbone before they are trained."""

import shutil

from mmengine.hooks import Hook
from mmengine.logging import print_log

from eomt_mm.errors import UserError
from eomt_mm.registry import HOOKS

from .wrapped import unwrapped


@HOOKS.register_module()
class CompileHook(Hook):
    """Compiles each block of the backbone; `tools/train.py --compile` adds it.

    Parameters and their names stay, so that checkpoints fit with and without it. The
    first iterations take a minute or more, as does the first one after the annealing of
    a block has begun or ended. Activation checkpointing works along with it.

    Args:
        backend (str): That of `torch.compile`. Defaults to 'inductor'.
    """

    def __init__(self, backend: str = 'inductor') -> None:
        self.backend = backend

    def before_train(self, runner) -> None:
        """Compile, before the first iteration.

        Raises:
            UserError: The backbone has no blocks, or a CPU has no C++ compiler.
        """
        model = unwrapped(runner.model)
        blocks = model.backbone._modules.get('blocks')
        if blocks is None:
            raise UserError(
                f'--compile compiles the blocks of a ViT, and backbone '
                f'{type(model.backbone).__name__} has none: leave --compile out'
            )
        device = next(model.parameters()).device.type
        needs_compiler = device == 'cpu' and self.backend == 'inductor'
        if needs_compiler and not any(map(shutil.which, ('c++', 'g++', 'clang++'))):
            raise UserError(
                '--compile on a CPU needs a C++ compiler, and there is no c++, g++ or '
                'clang++: install one, or leave --compile out'
            )
        for block in blocks:
            unwrapped(block).compile(backend=self.backend, dynamic=False)
        print_log(
            f'compiling {len(blocks)} blocks: the first iterations take a minute or '
            'more',
            logger='current',
        )
