"""Faster inference of a finished model: half precision, compilation.

Half precision is PyTorch's autocast around the network alone. What decides results
stays in fp32: the residual stream, norms, rotary codes, class logits, and everything
behind the network. Weights of matrix products are cast once, not in every forward pass.
"""

from collections.abc import Callable

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from eomt_mm.errors import UserError

from .criterion import Prediction
from .mask_head import MaskHead
from .query_vit import QueryViT

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
# What autocast runs in half precision anyway, with weights of its own.
CASTABLE = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

Network = Callable[[Tensor], Prediction]


def fast_network(
    backbone: QueryViT, head: MaskHead, dtype: str = 'fp32', compiled: bool = False
) -> Network:
    """The network as one function of the images, for inference.

    Args:
        backbone (QueryViT): Its weights are changed in place where `dtype` is not
            'fp32': it can no longer be trained.
        head (MaskHead): The same.
        dtype (str): 'fp32', 'bf16' or 'fp16'. Defaults to 'fp32'.
        compiled (bool): Whether to compile it, for each batch size anew, at the first
            call; on a GPU with CUDA graphs. Defaults to False.

    Returns:
        Callable: Maps normalised images (B, 3, H, W) to class logits and mask logits.

    Raises:
        UserError: If there is no such dtype.
    """
    if dtype not in DTYPES:
        raise UserError(f'unknown dtype {dtype!r}: expected one of {", ".join(DTYPES)}')
    if dtype != 'fp32':
        cast_weights(backbone, DTYPES[dtype])
        cast_weights(head, DTYPES[dtype])

    def run(images: Tensor) -> Prediction:
        with autocast(images.device, dtype):
            return backbone.predict(images, head)

    return compiled_network(run) if compiled else run


def autocast(device: torch.device, dtype: str) -> torch.autocast:
    """Autocast to a dtype by its short name; to 'fp32' it does nothing."""
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != 'fp32')


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights that autocast would cast in every forward pass.

    Args:
        module (nn.Module): A `QueryViT` or a `MaskHead`; changed in place.
        dtype (torch.dtype): bf16 or fp16.
    """
    for name, child in module.named_modules():
        if isinstance(child, CASTABLE) and name != 'class_head':
            child.to(dtype)


def compiled_network(run: Network) -> Network:
    """Compile a network for the sizes it is called with; see `fast_network`."""

    def call(images: Tensor) -> Prediction:
        if images.shape not in shapes:
            shapes.add(images.shape)
            size = ' x '.join(map(str, images.shape))
            print_log(f'compiling for {size}: a minute or more, once', logger='current')
        outputs = compiled(images)
        if not images.is_cuda:
            return outputs
        # The next call writes over the memory of a CUDA graph.
        return tuple(output.clone() for output in outputs)

    shapes = set()
    mode = 'reduce-overhead' if torch.cuda.is_available() else None
    compiled = torch.compile(run, dynamic=False, mode=mode)
    return call


class FastInference:
    """A segmentor or detector of EoMT, whose `network` can be replaced."""

    compiled = False

    def speed_up(self, dtype: str = 'fp32', compiled: bool = False) -> None:
        """Make a finished model faster; it can no longer be trained.

        Args:
            dtype (str): 'fp32', 'bf16' or 'fp16'. Defaults to 'fp32'.
            compiled (bool): Whether to compile the network. Defaults to False.
        """
        self.network = fast_network(self.backbone, self.mask_head, dtype, compiled)
        self.compiled = compiled

    def network(self, images: Tensor) -> Prediction:
        """Class logits and mask logits of images of the backbone's size."""
        return self.backbone.predict(images, self.mask_head)


def speed_up(model: nn.Module, dtype: str = 'fp32', compiled: bool = False) -> None:
    """Make any model of MMSegmentation or MMDetection faster, in place.

    Args:
        model (nn.Module): In evaluation mode, with its weights loaded.
        dtype (str): 'fp32', 'bf16' or 'fp16'. Defaults to 'fp32'.
        compiled (bool): Whether to compile. Defaults to False.
    """
    if isinstance(model, FastInference):
        model.speed_up(dtype, compiled)
    else:
        speed_up_any(model, dtype, compiled)


def speed_up_any(model: nn.Module, dtype: str, compiled: bool) -> None:
    """The way of models other than EoMT: autocast, and a compiled backbone."""
    if dtype != 'fp32':
        device = next(model.parameters()).device
        model.forward = autocast(device, dtype)(model.forward)
    if compiled:
        model.backbone.forward = torch.compile(model.backbone.forward)
