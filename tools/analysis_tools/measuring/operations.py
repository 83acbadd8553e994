"""Counter of a network's operations, by the paper's convention.

The paper (arXiv 2503.19108, Sec. 4.1) counts with fvcore: a multiplication with its
addition is one operation; activations, residual sums and softmax cost nothing; norms,
resizing and sampling cost a few for each element. Fused attention, which fvcore does
not know, counts as its two matrix products. The scores of masked
`nn.MultiheadAttention` (`baddbmm`), which fvcore does not know either, are not counted:
they are 1.3 G in Mask2Former's decoder at 640 x 640.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import prod

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

aten = torch.ops.aten

Shape = Sequence[int]
# torch's counter counts a multiplication and its addition as two.
PER_OPERATION = 2


def _norm(shape: Shape, *args: object, out_shape: object) -> int:
    """Count layer, group and instance norms: 5 for each element."""
    return PER_OPERATION * 5 * prod(shape)


def _frozen_norm(shape: Shape, *args: object, out_shape: object) -> int:
    """Count batch norm in testing: a factor and a summand."""
    return PER_OPERATION * 2 * prod(shape)


def _batch_norm(
    shape: Shape, weight, bias, mean, var, training: bool, *args: object, out_shape
) -> int:
    count = _norm if training else _frozen_norm
    return count(shape, out_shape=out_shape)


def _for_each_output(cost: int) -> Callable[..., int]:
    def count(*args: object, out_shape: Shape, **kwargs: object) -> int:
        return PER_OPERATION * cost * prod(out_shape)

    return count


def _pooling(shape: Shape, *args: object, out_shape: Shape) -> int:
    return PER_OPERATION * prod(shape)


def _attention(q: Shape, k: Shape, v: Shape, *args, out_shape, **kwargs) -> int:
    return sdpa_flop_count(q, k, v)


def _nothing(*args: object, **kwargs: object) -> int:
    return 0


# fvcore's conventions, where torch's counter has others or none.
CONVENTIONS = {
    aten.native_layer_norm: _norm,
    aten.native_group_norm: _norm,
    aten.native_batch_norm: _batch_norm,
    aten._native_batch_norm_legit_no_training: _frozen_norm,
    aten.upsample_nearest2d: _for_each_output(1),
    aten.upsample_bilinear2d: _for_each_output(4),
    aten.grid_sampler_2d: _for_each_output(4),
    aten._adaptive_avg_pool2d: _pooling,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten.baddbmm: _nothing,
}


def count_operations(function: Callable[[], object], network: nn.Module) -> int:
    """Count the operations of a call.

    Args:
        function (Callable): Runs the network.
        network (nn.Module): The network, in evaluation mode.

    Returns:
        int: Operations; the paper's GFLOPs are these / 1e9.
    """
    deformed = []
    hooks = [
        module.register_forward_hook(
            # Compiled convolutions of mmcv, which the counter does not see.
            lambda module, _, out: deformed.append(
                out.numel() * module.weight[0].numel()
            )
        )
        for module in network.modules()
        if 'DeformConv' in type(module).__name__
    ]
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    # One opaque operator for a whole attention layer would not be counted.
    torch.backends.mha.set_fastpath_enabled(False)
    # Under the second name, the counter would look into an operator first.
    whole = {operator.default: count for operator, count in CONVENTIONS.items()}
    counter = FlopCounterMode(display=False, custom_mapping=CONVENTIONS | whole)
    try:
        with torch.no_grad(), counter:
            function()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
        for hook in hooks:
            hook.remove()
    return counter.get_total_flops() // PER_OPERATION + sum(deformed)


class ShapesOnly(TorchDispatchMode):
    """Runs a network on shapes alone, except for numbers that decide on shapes.

    Tensors on the device 'meta' replace images and features: they have shapes and no
    values. Tensors on the host keep their values, so that a network can split or
    reshape by them. Results of both have no values. Copies from the host to the device
    of the features stay on the host.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        if any(x.is_meta for x in tensors):
            args, kwargs = tree_map(_without_values, (args, kwargs))
        elif tensors and torch.device(kwargs.get('device') or 'cpu').type == 'meta':
            kwargs = kwargs | {'device': torch.device('cpu')}
        return func(*args, **kwargs)


def _without_values(x: object) -> object:
    return x.to('meta') if isinstance(x, Tensor) else x


@contextmanager
def parameters_without_values() -> Iterator[None]:
    """Build modules whose parameters, but not their buffers, are on 'meta'.

    A network of a billion parameters is built at once, without the memory for them.
    """
    register = nn.Module.register_parameter

    def register_without_values(
        module: nn.Module, name: str, parameter: nn.Parameter | None
    ) -> None:
        register(module, name, parameter)
        # A shared parameter, which is registered twice, stays one.
        if parameter is not None and not parameter.is_meta:
            shape_only = nn.Parameter(parameter.to('meta'), parameter.requires_grad)
            module._parameters[name] = shape_only

    nn.Module.register_parameter = register_without_values
    try:
        yield
    finally:
        nn.Module.register_parameter = register
