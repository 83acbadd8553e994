"""Faster inference of a finished model: half precision, compilation, oneDNN on a CPU.

Half precision is PyTorch's autocast around the network alone. What decides results
stays in fp32: the residual stream, norms, rotary codes, class logits, and everything
behind the network. Weights of matrix products are cast once, not in every forward pass.
"""

from collections.abc import Callable

import torch
from mmengine.logging import print_log
from timm.layers import Mlp
from torch import Tensor, nn

from eomt_mm.errors import UserError

from . import onednn
from .criterion import Prediction
from .mask_head import MaskHead
from .masked_attention import RotarySplitAttention, SplitAttention
from .onednn_attention import attention_in_pieces
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
        backbone (QueryViT): On its device. It is changed in place, and can no longer
            be trained.
        head (MaskHead): The same.
        dtype (str): 'fp32', 'bf16' or 'fp16'. Defaults to 'fp32'.
        compiled (bool): Whether to compile it, for each batch size anew, at the first
            call; on a GPU with CUDA graphs. Defaults to False.

    Returns:
        Callable: Maps normalised images (B, 3, H, W) to class logits and mask logits.

    Raises:
        UserError: If there is no such dtype on this device, or if token merging is to
            be compiled whose numbers of tokens depend on the image.
    """
    merging = backbone.token_merging
    if compiled and merging is not None and not merging.fixed_lengths:
        raise UserError(
            'token merging by a threshold leaves another number of tokens in every '
            'image, and a compiled network is compiled anew for each of them: leave '
            'out --compile, or fix the numbers with token_merging.keep instead of '
            'token_merging.threshold'
        )
    if dtype not in DTYPES:
        raise UserError(f'unknown dtype {dtype!r}: expected one of {", ".join(DTYPES)}')
    if dtype == 'fp16' and backbone.queries.device.type == 'cpu':
        raise UserError('fp16 on a CPU: it computes in bf16 or fp32, take one of these')
    on_cpu = backbone.queries.device.type == 'cpu'
    if on_cpu:
        onednn.keep_freed_memory()
    for module in (backbone, head):
        if dtype != 'fp32':
            cast_weights(module, DTYPES[dtype])
        if on_cpu and onednn.is_available(DTYPES[dtype]):
            use_onednn(module)
    return FastNetwork(backbone, head, dtype, compiled)


class FastNetwork:
    """What `fast_network` returns; its copies have the weights of their own network.

    Args:
        backbone (QueryViT): Prepared for inference.
        head (MaskHead): The same.
        dtype (str): 'fp32', 'bf16' or 'fp16'.
        compiled (bool): Whether to compile.
    """

    def __init__(
        self, backbone: QueryViT, head: MaskHead, dtype: str, compiled: bool
    ) -> None:
        self.backbone, self.head, self.dtype = backbone, head, dtype
        self.compiled = compiled
        self.graph: Network | None = None

    def __getstate__(self) -> dict:
        # What was compiled has the weights of the original.
        return {**vars(self), 'graph': None}

    def __call__(self, images: Tensor) -> Prediction:
        """Predict, on a CPU as many images at a time as there are threads.

        More make nothing faster there: they only use memory, which is slow to come by.
        What is compiled gets all of them, and so do images that are merged together.
        """
        if self.compiled:
            if self.graph is None:
                self.graph = compiled_network(self.predict)
            return self.graph(images)
        # By a threshold, the images of a batch are merged to one length.
        merging = self.backbone.token_merging
        independent = merging is None or merging.fixed_lengths
        in_parts = images.device.type == 'cpu' and independent
        at_once = torch.get_num_threads()
        if not in_parts or len(images) <= at_once:
            return self.predict(images)
        parts = [self.predict(some) for some in images.split(at_once)]
        classes, masks = (torch.cat(outputs) for outputs in zip(*parts, strict=True))
        return classes, masks

    def predict(self, images: Tensor) -> Prediction:
        """All images at once, not compiled."""
        with autocast(images.device, self.dtype):
            return self.backbone.predict(images, self.head)


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


def use_onednn(module: nn.Module) -> None:
    """Let a network on a CPU compute its products by oneDNN.

    Args:
        module (nn.Module): A `QueryViT` or a `MaskHead`; changed in place. Parameters
            and their names stay.
    """
    for name, child in list(module.named_modules()):
        if type(child) is nn.Linear and name != 'class_head':
            child.__class__ = onednn.OneDnnLinear
            child.weight.data = onednn.inputs_side_by_side(child.weight.data)
        elif isinstance(child, (SplitAttention, RotarySplitAttention)):
            child.fast_attention = attention_in_pieces
            child.multiply = onednn.linear
    for child in module.modules():
        # Adapters and quantisation put classes of their own in the place of `fc1`.
        is_fast = isinstance(child, Mlp) and isinstance(child.fc1, onednn.OneDnnLinear)
        if is_fast and is_exact_gelu(child.act) and not child.fc1._forward_hooks:
            child.fc1.gelu, child.act = True, nn.Identity()
    if isinstance(module, MaskHead):
        module.mask_product = onednn.mask_product


def is_exact_gelu(layer: nn.Module) -> bool:
    """Whether a layer is the GELU that oneDNN computes along with a product."""
    return isinstance(layer, nn.GELU) and layer.approximate == 'none'


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
    """A segmentor or detector whose `network` can be replaced by a faster one."""

    compiled = False
    fast: str | None = None  # the dtype, after `speed_up`

    def network(self, images: Tensor) -> Prediction:
        """Class logits and mask logits of images of the backbone's size."""
        return self.backbone.predict(images, self.mask_head)

    def train(self, mode: bool = True) -> nn.Module:
        """As of any module, but for `speed_up` no way back.

        Raises:
            UserError: If the model was made faster.
        """
        if mode and self.fast:
            raise UserError(
                f'the model was made faster for inference, in {self.fast}, and can no '
                'longer be trained: build and load it anew'
            )
        return super().train(mode)


def is_eomt(model: nn.Module) -> bool:
    """Whether a model is EoMT, and not a baseline that shares its bridge."""
    return (
        isinstance(model, FastInference)
        and type(model.backbone) is QueryViT
        and isinstance(model.mask_head, MaskHead)
    )


def speed_up(model: nn.Module, dtype: str = 'fp32', compiled: bool = False) -> None:
    """Make a finished model faster, in place; it can no longer be trained.

    Of EoMT the network is replaced, see `fast_network`. Any other model of
    MMSegmentation or MMDetection runs under autocast, and its backbone is compiled; it
    is not to be copied afterwards.

    Args:
        model (nn.Module): In evaluation mode on its device, with its weights loaded.
        dtype (str): 'fp32', 'bf16' or 'fp16'. Defaults to 'fp32'.
        compiled (bool): Whether to compile. Defaults to False.

    Raises:
        UserError: If there is no such dtype, or the model has another one.
    """
    if is_eomt(model):
        if model.fast not in (None, dtype):
            raise UserError(
                f'the model was made faster before, in {model.fast}, which is fixed: '
                'build and load it anew for another dtype'
            )
        model.network = fast_network(model.backbone, model.mask_head, dtype, compiled)
        model.fast, model.compiled = dtype, compiled
        return
    if dtype != 'fp32':
        device = next(model.parameters()).device
        model.forward = autocast(device, dtype)(model.forward)
    if compiled:
        model.backbone.forward = torch.compile(model.backbone.forward)
