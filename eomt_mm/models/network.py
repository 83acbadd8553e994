"""Network: a backbone and its mask head as one function from images to predictions.

Prediction, half precision and compilation are here; what a CPU does differently is in
`cpu`. Half precision is PyTorch's autocast around the network alone. What decides
results stays in fp32: the residual stream, norms, rotary codes, class logits, and
everything behind the network. Weights of matrix products are cast once, not in every
forward pass. Only a CPU that gains a lot by it has residual and norms in bf16, too.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor, nn

from eomt_mm.errors import UserError

from . import cpu, fp8
from .backbone_sizes import HEADS
from .criterion import Prediction
from .mask_head import MaskHead
from .query_vit import QueryViT
from .tiles import Tiling

# Of fp8, that of everything but the linear layers of the blocks.
DTYPES = {
    'fp32': torch.float32,
    'bf16': torch.bfloat16,
    'fp16': torch.float16,
    'fp8': torch.bfloat16,
}
# Layers that autocast runs in half precision anyway.
CASTABLE = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)

Function = Callable[[Tensor], Prediction]


def head_of(model: nn.Module | dict) -> nn.Module | dict | None:
    """Return the head of a segmentor or detector, or its config; None without one.

    Args:
        model (nn.Module | dict): A model, or the `model` of a config.
    """
    get = model.get if isinstance(model, dict) else partial(getattr, model)
    heads = (get(name, None) for name in HEADS)
    return next((head for head in heads if head is not None), None)


class Network:
    """A backbone and its head; precision is the caller's.

    Args:
        backbone (QueryViT): Gives queries and patch features.
        head (MaskHead): Turns them into class logits and mask logits.
    """

    def __init__(self, backbone: QueryViT, head: MaskHead) -> None:
        self.backbone, self.head = backbone, head

    def __call__(self, images: Tensor) -> Prediction:
        """Predict; attention is masked while `mask_probs` are above 0.

        While training masks, validation masks too, as in the reference: a network that
        is not annealed yet fails without masks.

        Args:
            images (Tensor): Normalised images, shape (B, 3, H, W).

        Returns:
            tuple[Tensor, Tensor]: Class logits (B, K, classes + 1) and mask logits
            (B, K, H / 4, W / 4).
        """
        if any(self.backbone.mask_probs):
            return self.all_predictions(images)[-1]
        return self.head(*self.backbone(images))

    def all_predictions(self, images: Tensor) -> list[Prediction]:
        """Predict before each of the last blocks and after the last one."""
        return self.backbone.forward_masked(images, self.head)


class FastNetwork(Network):
    """A network for inference alone; copies have the weights of their own network.

    Args:
        network (Network): On its device. Backbone and head are changed in place, and
            can no longer be trained.
        dtype (str): One of `DTYPES`. Defaults to 'fp32'.
        compiled (bool | str): Whether to compile it, for each batch size anew, at the
            first call; on a GPU with CUDA graphs. 'max-autotune' has the compiler try
            more kernels, for minutes. Defaults to False.

    Raises:
        UserError: If there is no such dtype on this device, or if token merging is to
            be compiled whose numbers of tokens depend on the image.
    """

    def __init__(
        self, network: Network, dtype: str = 'fp32', compiled: bool | str = False
    ) -> None:
        super().__init__(network.backbone, network.head)
        if compiled and not self.backbone.fixed_lengths:
            raise UserError(
                'token merging by a threshold leaves another number of tokens in every '
                'image, and a compiled network is compiled anew for each of them: '
                'leave out --compile, or fix the numbers with token_merging.keep '
                'instead of token_merging.threshold'
            )
        device = self.backbone.queries.device
        check_dtype(dtype, device)
        self.dtype, self.compiled = dtype, compiled
        self.graph: Function | None = None
        modules = (self.backbone, self.head)
        if dtype == 'fp8':
            fp8.use_fp8(self.backbone.blocks)
        if dtype != 'fp32':
            for module in modules:
                cast_weights(module, DTYPES[dtype])
        self.throughout = device.type == 'cpu' and cpu.prepare(*modules, DTYPES[dtype])
        if self.throughout:
            for module in modules:
                cpu.cast_throughout(module)

    def __getstate__(self) -> dict:
        # The compiled graph holds the weights of the original.
        return {**vars(self), 'graph': None}

    def __call__(self, images: Tensor) -> Prediction:
        """Predict, on a CPU as many images at a time as there are threads.

        More images would cost memory and save no time there. A compiled network gets
        all of them, and so does one that merges the images together.
        """
        if self.compiled:
            if self.graph is None:
                self.graph = compiled_function(self.predict, self.compiled)
            return self.graph(images)
        # By a threshold, the images of a batch are merged to one length.
        in_parts = images.device.type == 'cpu' and self.backbone.fixed_lengths
        at_once = torch.get_num_threads()
        if not in_parts or len(images) <= at_once:
            return self.predict(images)
        parts = [self.predict(some) for some in images.split(at_once)]
        classes, masks = (torch.cat(outputs) for outputs in zip(*parts, strict=True))
        return classes, masks

    def predict(self, images: Tensor) -> Prediction:
        """Predict all images at once, not compiled."""
        if self.throughout:
            return super().__call__(images.to(DTYPES[self.dtype]))
        with autocast(images.device, self.dtype):
            return super().__call__(images)


def check_dtype(dtype: str, device: torch.device) -> None:
    """Refuse what a device does not compute in.

    Args:
        dtype (str): One of `DTYPES`.
        device (torch.device): That of the model.

    Raises:
        UserError: If there is no such dtype on this device.
    """
    if dtype not in DTYPES:
        raise UserError(f'unknown dtype {dtype!r}: expected one of {", ".join(DTYPES)}')
    if dtype == 'fp16' and device.type == 'cpu':
        raise UserError('fp16 on a CPU: it computes in bf16 or fp32, take one of these')
    if dtype == 'fp8':
        fp8.check_device(device)


def autocast(device: torch.device, dtype: str) -> torch.autocast:
    """Return autocast to a dtype by its short name; 'fp32' switches it off."""
    return torch.autocast(device.type, DTYPES[dtype], enabled=dtype != 'fp32')


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights that autocast would cast in every forward pass.

    Args:
        module (nn.Module): A `QueryViT` or a `MaskHead`; changed in place.
        dtype (torch.dtype): bf16 or fp16.
    """
    for name, child in module.named_modules():
        if isinstance(child, CASTABLE) and name != 'class_head':
            for parameter in child.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


def compiled_function(run: Function, how: bool | str = True) -> Function:
    """Compile a network for the sizes it is called with; see `FastNetwork`."""

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
    if isinstance(how, str):
        mode = how
    compiled = torch.compile(run, dynamic=False, mode=mode)
    return call


def product(x: Tensor, weight: Tensor) -> Tensor:
    """Return `x @ weight.mT` by the fastest library of its device, without gradients.

    Args:
        x (Tensor): Shape (..., I).
        weight (Tensor): Shape (O, I), contiguous.

    Returns:
        Tensor: Shape (..., O).
    """
    return cpu.product(x, weight) if x.is_cpu else F.linear(x, weight)


class NetworkModel:
    """A segmentor or detector around a `Network`.

    Attributes:
        fast (FastNetwork, optional): What `speed_up` has put in its place.
        tiling (Tiling, optional): What cuts images into tiles; None without.
    """

    fast: FastNetwork | None = None
    tiling: Tiling | None = None

    @property
    def mask_head(self) -> MaskHead:
        """The head, whatever the framework calls it."""
        return head_of(self)

    @property
    def network(self) -> Network:
        """Backbone and head; after `speed_up` the faster ones."""
        return self.fast or Network(self.backbone, self.mask_head)

    def train(self, mode: bool = True) -> nn.Module:
        """Switch to training, or to evaluation; `speed_up` leaves no way back.

        Raises:
            UserError: If the model was made faster.
        """
        if mode and self.fast:
            raise UserError(
                f'the model was made faster for inference, in {self.fast.dtype}, and '
                'can no longer be trained: build and load it anew'
            )
        return super().train(mode)


def is_eomt(model: nn.Module) -> bool:
    """Whether a model is EoMT, and not a baseline that shares its bridge."""
    return (
        isinstance(model, NetworkModel)
        and isinstance(model.backbone, QueryViT)
        and isinstance(model.mask_head, MaskHead)
    )


def speed_up(
    model: nn.Module, dtype: str = 'fp32', compiled: bool | str = False
) -> None:
    """Make a finished model faster, in place; it can no longer be trained.

    EoMT gets a `FastNetwork`. Any other model of MMSegmentation or MMDetection runs
    under autocast, and its backbone is compiled; do not copy it afterwards.

    Args:
        model (nn.Module): A model in evaluation mode, on its device, with its weights.
        dtype (str): One of `DTYPES`; 'fp8' is for EoMT alone. Defaults to 'fp32'.
        compiled (bool | str): Whether to compile, and how. Defaults to False.

    Raises:
        UserError: If there is no such dtype on the device of the model, or the model
            has another one.
    """
    if is_eomt(model):
        if model.fast and model.fast.dtype != dtype:
            raise UserError(
                f'the model was made faster before, in {model.fast.dtype}, which is '
                'fixed: build and load it anew for another dtype'
            )
        model.fast = FastNetwork(model.network, dtype, compiled)
        return
    device = next(model.parameters()).device
    check_dtype(dtype, device)
    if dtype == 'fp8':
        raise UserError(f'fp8 is for EoMT, and this is a {type(model).__name__}')
    if dtype != 'fp32':
        model.forward = autocast(device, dtype)(model.forward)
    if compiled:
        model.backbone.forward = torch.compile(model.backbone.forward)
