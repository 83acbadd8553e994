"""A model inside the wrappers of a run: its parts, names and whole weights.

Wrappers are DDP's, FSDP's, DeepSpeed's and that of test-time augmentation. Whatever
looks into a model while it is trained looks through these functions.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

# What wrappers of inner modules add to the names of parameters.
_PREFIXES = ('_fsdp_wrapped_module.', '_checkpoint_wrapped_module.')


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside all wrappers.

    Args:
        model (nn.Module): That of a Runner, or one block of it.
    """
    while is_model_wrapper(model) or isinstance(model, (BaseTTAModel, FSDP)):
        model = model.module
    return model


def plain_name(name: str) -> str:
    """Return the name that a parameter has without wrappers."""
    for prefix in _PREFIXES:
        name = name.replace(prefix, '')
    return name


def is_sharded(model: nn.Module) -> bool:
    """Whether the processes hold shares of the weights."""
    return isinstance(model, FSDP)


def own_state(model: nn.Module) -> Mapping[str, Tensor]:
    """Return what this process holds of the weights, by plain names.

    Args:
        model (nn.Module): That of a Runner. Where FSDP has split it, these are flat
            shares of its parameters, some of them empty.
    """
    inner = unwrapped(model)
    if not is_sharded(model):
        return inner.state_dict()
    return {plain_name(name): share for name, share in inner.named_parameters()}


def whole_state(model: nn.Module) -> Mapping[str, Tensor]:
    """Return the state dict with whole weights, on each process.

    Args:
        model (nn.Module): That of a Runner. Where FSDP has split it, all processes
            must call.
    """
    if not is_sharded(model):
        return unwrapped(model).state_dict()
    return get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))


def forward_outside(model: nn.Module) -> AbstractContextManager:
    """Allow parts of the model to run outside its own forward pass.

    FSDP gathers the weights outside of wrapped blocks in the forward pass of the whole
    model alone. All processes must enter.
    """
    if not is_sharded(model):
        return nullcontext()
    return FSDP.summon_full_params(model, recurse=False, writeback=False)
