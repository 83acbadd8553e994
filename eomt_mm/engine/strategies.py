"""Strategies of MMEngine's FlexibleRunner: a training whose state is in shares.

MMEngine's own lack what the recipe needs: the norm of a gradient that is in shares,
blocks as the unit of sharing, checkpoints that any run reads and that are whole or
absent. PyTorch's newer argument order breaks its resuming.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from itertools import chain
from pathlib import Path

from mmengine._strategy import DeepSpeedStrategy as MMEngineDeepSpeedStrategy
from mmengine._strategy import FSDPStrategy as MMEngineFSDPStrategy
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.optim import BaseOptimWrapper, OptimWrapper
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from eomt_mm.compat import installed_version
from eomt_mm.errors import UserError
from eomt_mm.files import atomic_path
from eomt_mm.models.checkpoint_check import compare_states
from eomt_mm.models.plain_vit import PlainViT
from eomt_mm.registry import STRATEGIES

from .wrapped import plain_name, unwrapped, whole_state


@STRATEGIES.register_module()
class FSDPStrategy(MMEngineFSDPStrategy):
    """Weights, gradients and optimizer in shares, by PyTorch's FSDP.

    Each block of the ViT is gathered when it computes; embeddings, queries and head
    are gathered for the whole step. A checkpoint is that of a run without a strategy:
    either goes on with the other's.

    Args:
        wrapped_classes (Sequence[str], optional): Names of the classes of modules that
            are gathered one by one. None means the blocks of the backbone. Defaults
            to None.
        **kwargs: Those of MMEngine's `FSDPStrategy`, except `state_dict_cfg`.
    """

    def __init__(
        self, *, wrapped_classes: Sequence[str] | None = None, **kwargs
    ) -> None:
        self.wrapped_classes = wrapped_classes
        # Process 0 writes whole weights. On a CPU there is nowhere to move them to.
        options = dict(rank0_only=True, offload_to_cpu=get_device() != 'cpu')
        whole = dict(
            state_dict_type='FULL_STATE_DICT',
            state_dict_config=dict(type='FullStateDictConfig', **options),
            optim_state_dict_config=dict(type='FullOptimStateDictConfig', **options),
        )
        super().__init__(state_dict_cfg=whole, **kwargs)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        options = dict(self.model_wrapper or {})
        if 'auto_wrap_policy' not in options:
            classes = classes_to_wrap(model, self.wrapped_classes)
            options['auto_wrap_policy'] = ModuleWrapPolicy(classes)
        if get_device() == 'cpu':
            options.setdefault('device_id', 'cpu')
        self.model_wrapper = options
        return super()._wrap_model(model)

    def build_optim_wrapper(
        self, optim_wrapper: BaseOptimWrapper | dict, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        """Build it, and clip by the norm of the whole gradient."""
        built = super().build_optim_wrapper(optim_wrapper, model)
        if isinstance(built, OptimWrapper) and built.clip_grad_kwargs:
            if built.grad_name == 'grad_norm':
                built.clip_func = partial(_clip_whole_norm, model)
        return built

    def save_checkpoint(self, filename: str, **kwargs) -> None:
        """Write a checkpoint whole or not at all; process 0 alone does."""
        with atomic_path(filename) if is_main_process() else nullcontext('') as path:
            super().save_checkpoint(str(path), **kwargs)

    def model_state_dict(self) -> dict:
        """Whole weights; without FSDP's notes, which would be pickled as code."""
        return {key: value.detach() for key, value in self.model.state_dict().items()}

    def load_model_state_dict(self, state_dict: dict, **kwargs) -> None:
        """Load whole weights; refuse those of another model.

        Raises:
            UserError: They do not fit.
        """
        whole = whole_state(self.model)
        if isinstance(getattr(unwrapped(self.model), 'backbone', None), PlainViT):
            compare_states(whole, state_dict)
        super().load_model_state_dict(state_dict, **kwargs)

    def optim_state_dict(self) -> dict:
        """State of the optimizer as it is without a strategy."""
        wrapper = self.optim_wrapper
        state = FSDP.optim_state_dict(self.model, wrapper.optimizer)
        if not state:
            return {}  # not process 0
        groups = [group['params'] for group in state['param_groups']]
        numbers = {name: i for i, name in enumerate(chain(*groups))}
        state = renamed(state, numbers.__getitem__)
        if wrapper.base_param_settings is not None:
            state['base_param_settings'] = wrapper.base_param_settings
        return state

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load what `optim_state_dict`, or a run without a strategy, has saved."""
        wrapper = self.optim_wrapper
        settings = state_dict.pop('base_param_settings', None)
        own = {id(p): plain_name(n) for n, p in self.model.named_parameters()}
        names = [
            own[id(parameter)]
            for group in wrapper.optimizer.param_groups
            for parameter in group['params']
        ]
        state = FSDP.optim_state_dict_to_load(
            self.model, wrapper.optimizer, renamed(state_dict, names.__getitem__)
        )
        if settings is not None:
            state['base_param_settings'] = settings
        wrapper.load_state_dict(state)


@STRATEGIES.register_module()
class DeepSpeedStrategy(MMEngineDeepSpeedStrategy):
    """Gradients and optimizer in shares, by DeepSpeed's ZeRO.

    The config's optimizer wrapper stays as it is: its clipping is handed to DeepSpeed.
    A checkpoint is a folder that DeepSpeed alone reads. A training may start from any
    file (`load_from`).

    Args:
        **kwargs: Those of MMEngine's `DeepSpeedStrategy`.

    Raises:
        UserError: This DeepSpeed is not the one that MMEngine knows.
    """

    def __init__(self, **kwargs) -> None:
        try:
            super().__init__(**kwargs)
        except ImportError as error:
            raise UserError(
                f'DeepSpeed {installed_version("deepspeed")} lacks what MMEngine '
                f"imports ({error}): pip install 'deepspeed<0.17'"
            ) from error

    def prepare(self, model: nn.Module | dict, **kwargs):
        """Build model, optimizer and schedules."""
        batch = (kwargs.get('dispatch_kwargs') or {}).get(
            'train_micro_batch_size_per_gpu', 1
        )
        self.config.setdefault('train_micro_batch_size_per_gpu', batch)
        return super().prepare(model, **kwargs)

    def build_optim_wrapper(
        self, optim_wrapper: BaseOptimWrapper | dict, model: nn.Module | None = None
    ) -> BaseOptimWrapper:
        """Build DeepSpeed's wrapper from the config of MMEngine's own.

        Raises:
            UserError: The config has something that DeepSpeed does in its own way.
        """
        options = dict(optim_wrapper, type='DeepSpeedOptimWrapper')
        clipping = dict(options.pop('clip_grad', None) or {})
        if clipping:
            if (
                clipping.get('type', 'norm') != 'norm'
                or clipping.get('norm_type', 2) != 2
            ):
                raise UserError(
                    f'optim_wrapper.clip_grad is {clipping}: DeepSpeed clips by the '
                    '2-norm alone, so write clip_grad=dict(max_norm=...)'
                )
            self.config['gradient_clipping'] = clipping['max_norm']
        counts = options.pop('accumulative_counts', 1)
        self.config['gradient_accumulation_steps'] = counts
        return super().build_optim_wrapper(options, model)

    def save_checkpoint(
        self, filename: str, *, save_optimizer: bool = True, **kwargs
    ) -> None:
        """Write a folder to go on from, or the weights alone as a file."""
        is_writer = not save_optimizer and is_main_process()
        with atomic_path(filename) if is_writer else nullcontext(filename) as path:
            super().save_checkpoint(str(path), save_optimizer=save_optimizer, **kwargs)

    def resume(
        self, filename: str, *, callback: Callable | None = None, **kwargs
    ) -> dict:
        """Go on from a folder of DeepSpeed's, and tell the hooks."""
        checkpoint = super().resume(filename, **kwargs)
        if callback is not None:
            callback(checkpoint)
        return checkpoint

    def load_checkpoint(
        self, filename: str, *, callback: Callable | None = None, **kwargs
    ) -> dict:
        """Load weights from a file, or from a folder of DeepSpeed's."""
        if Path(filename).is_dir():
            return super().load_checkpoint(filename, callback=callback, **kwargs)
        self.logger.info(f'Load checkpoint from {filename}')
        checkpoint = CheckpointLoader.load_checkpoint(filename, map_location='cpu')
        if callback is not None:
            callback(checkpoint)
        weights = checkpoint.pop('state_dict', checkpoint)
        unwrapped(self.model).load_state_dict(weights, strict=False)
        # The optimizer steps on copies of its own.
        if hasattr(self, 'optim_wrapper'):
            self.optim_wrapper.optimizer.refresh_fp32_params()
        return checkpoint


def classes_to_wrap(model: nn.Module, names: Sequence[str] | None) -> set[type]:
    """Find the classes of the modules that FSDP gathers one by one.

    Args:
        model (nn.Module): A segmentor or detector.
        names (Sequence[str], optional): Names of classes; None means those of
            `model.backbone.blocks`.

    Returns:
        set[type]: At least one class.

    Raises:
        UserError: The model has no module of a class, or no blocks.
    """
    if names is None:
        blocks = dict(model.named_modules()).get('backbone.blocks')
        if blocks is None:
            raise UserError(
                f'{type(model).__name__} has no backbone.blocks to wrap: name the '
                'classes of its parts, as in strategy.wrapped_classes="[Block]"'
            )
        return {type(block) for block in blocks}
    known = {type(module).__name__: type(module) for module in model.modules()}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UserError(
            f'strategy.wrapped_classes={list(names)}: the model has no module of class '
            f'{", ".join(unknown) or "(none is named)"}; it has '
            f'{", ".join(sorted(known))}'
        )
    return {known[name] for name in names}


def renamed(state: dict, new: Callable) -> dict:
    """Give the parameters of an optimizer's state other keys.

    Args:
        state (dict): `state` and `param_groups`; not changed.
        new (Callable): From an old key to a new one.
    """
    groups = [
        dict(group, params=[new(key) for key in group['params']])
        for group in state['param_groups']
    ]
    found = {new(key): value for key, value in state['state'].items()}
    return dict(state, state=found, param_groups=groups)


def _clip_whole_norm(
    model: FSDP, _parameters: list[Tensor], max_norm: float, norm_type: float = 2.0
) -> Tensor:
    """Clip as `torch.nn.utils.clip_grad_norm_`, over the shares of all processes."""
    return model.clip_grad_norm_(max_norm, norm_type)
