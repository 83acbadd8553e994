"""The core against its opponents: network, post-processing, both, training step.

Opponents have the same random weights and inputs: `naive` is a plain EoMT without any
optimisation, `hugging face` is that of transformers. Nothing here needs MMSegmentation
or MMDetection.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from eomt_mm.errors import UserError
from eomt_mm.models import Criterion
from eomt_mm.models.network import FastNetwork, Network, autocast, compiled_function
from eomt_mm.models.postprocess import Size, instance_result, panoptic_result
from eomt_mm.models.windows import class_map, resized_argmax

from . import attention, inputs, stock
from . import hugging_face as hf
from .check import TrainingStep
from .measure import Work
from .naive import NaiveEoMT, naive_instances, naive_panoptic, naive_semantic
from .operations import count_operations

# Mask probabilities of the last blocks; a phase of the annealing each.
PHASES = {'masked': 1.0, 'partly masked': 0.5, 'free': 0.0}
POSTPROCESS = ('panoptic', 'instance', 'semantic')
STAGES = {
    'network': ('network',),
    'postprocess': POSTPROCESS,
    'inference': ('inference',),
    'train': tuple(f'train {phase}' for phase in PHASES),
    'attention': ('attention',),
}
OPPONENTS = ('hugging face', 'naive')
# Only where it is asked for: MMDetection's head for panoptic and instance results.
STOCK = 'mmdet'


@dataclass(frozen=True)
class Case:
    """A piece of work.

    Attributes:
        task (str): One of the values of `STAGES`.
        size (str): Size of the model, see `inputs.SIZES`.
        image_size (int): Side of the input in pixels.
        batch (int): Images at a time.
        queries (int): Number of queries.
        kept (int): Number of queries that are sure of a class.
        ori_shape (tuple[int, int]): Height and width of results.
    """

    task: str
    size: str
    image_size: int
    batch: int
    queries: int
    kept: int
    ori_shape: tuple[int, int]

    def __str__(self) -> str:
        if self.task in POSTPROCESS:
            height, width = self.ori_shape
            return (
                f'{self.task}, {self.kept} of {self.queries} kept, '
                f'{self.image_size} to {width} x {height}'
            )
        kept = f', {self.kept} kept' if self.task == 'inference' else ''
        if self.task == 'attention':
            kept = ', forward and backward'
        return (
            f'{self.task}, ViT-{self.size} {self.image_size}, batch {self.batch}, '
            f'{self.queries} queries{kept}'
        )

    @property
    def shapes(self) -> tuple[Size, Size, Size]:
        """The sizes of the image in the input, of the input, and of the results."""
        factor = self.image_size / max(self.ori_shape)
        within = tuple(round(side * factor) for side in self.ori_shape)
        return within, (self.image_size, self.image_size), self.ori_shape

    @property
    def overlap_thr(self) -> float:
        """The least part of its mask that a segment must own.

        The masks of a random network hide each other: a whole inference keeps all.
        """
        return 0.0 if self.task == 'inference' else 0.8


@dataclass(frozen=True)
class Contender:
    """An implementation and its precision."""

    who: str
    dtype: str
    compiled: bool | str = False

    def __str__(self) -> str:
        return f'{self.who} {self.dtype}' + (' compiled' if self.compiled else '')


def rivals(
    case: Case, against: Sequence[str], dtypes: Sequence[str], compiled: bool | str
) -> list[Contender]:
    """List the contenders of a case, of which the first is the reference.

    Args:
        case (Case): The work.
        against (Sequence[str]): Selected opponents.
        dtypes (Sequence[str]): Selected precisions; attention and post-processing are
            always fp32, and never compiled; fp8 is ours alone.
        compiled (bool | str): Whether to compile, see `FastNetwork`.
    """
    if case.task == 'attention':
        return [Contender(variant, 'fp32') for variant in attention.VARIANTS]
    if case.task in POSTPROCESS:
        dtypes, compiled = ('fp32',), False
    names = [who for who in against if who != STOCK or case.task in stock.TASKS]
    return [
        Contender(who, dtype, compiled)
        for dtype in dtypes
        for who in ('ours', *(names if dtype != 'fp8' else ()))
    ]


def prepare(case: Case, contender: Contender, device: torch.device) -> Work:
    """Make all inputs and a function that does the work once.

    Args:
        case (Case): The work.
        contender (Contender): The implementation.
        device (torch.device): Device of the computation.

    Returns:
        Callable: Returns a result that `check` can compare.

    Raises:
        UserError: If the contender cannot do it; names the reason.
    """
    if case.task in POSTPROCESS:
        return _postprocess(case, contender, device)
    if case.task == 'attention':
        numbers = (case.size, case.image_size, case.batch, case.queries)
        return attention.prepare(contender.who, *numbers, device)
    if case.task.startswith('train'):
        return _training_step(case, contender, device)
    images = inputs.photographs(case.batch, case.image_size).to(device)
    run = _network(_shared(case, device), contender, device)
    if case.task == 'network':
        return torch.inference_mode()(lambda: run(images))
    finish = _POSTPROCESS['panoptic', contender.who]

    @torch.inference_mode()
    def work() -> list[Tensor]:
        return [finish(case, *logits) for logits in zip(*run(images), strict=True)]

    return work


def _shared(case: Case, device: torch.device) -> inputs.Network:
    return inputs.shared_network(
        case.size, case.image_size, case.queries, case.kept, device
    )


def _network(
    network: inputs.Network, contender: Contender, device: torch.device
) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Return a contender's class logits and mask logits of images."""
    dtype, compiled = contender.dtype, contender.compiled
    if contender.who == 'hugging face':
        model = hf.reference_model(*network).to(device)
        if dtype != 'fp32':
            model = model.to(autocast(device, dtype).fast_dtype)

        def run(images: Tensor) -> tuple[Tensor, Tensor]:
            outputs = model(pixel_values=images)
            return outputs.class_queries_logits, outputs.masks_queries_logits

    elif contender.who == 'naive':
        naive = NaiveEoMT(*network)

        def run(images: Tensor) -> tuple[Tensor, Tensor]:
            with autocast(device, dtype):
                return naive(images)

    else:
        # A copy: it is changed, and the others share theirs.
        return FastNetwork(Network(*copy.deepcopy(network)), dtype, compiled)
    return compiled_function(run, compiled) if compiled else run


def _training_step(case: Case, contender: Contender, device: torch.device) -> Work:
    """Make a training step: forward, loss and backward."""
    if contender.compiled:
        raise UserError('a training step is measured without compilation')
    backbone, head = network = _shared(case, device)
    images = inputs.photographs(case.batch, case.image_size).to(device)
    targets = inputs.targets(case.batch, case.image_size, device)
    prob = PHASES[case.task.removeprefix('train ')]
    if contender.who == 'hugging face':
        model = hf.reference_model(*network).to(device).train()
        model.attn_mask_probs.fill_(prob)
        masks = [target.masks.float() for target in targets]
        labels = [target.labels for target in targets]

        def loss_of() -> tuple[Tensor, tuple[Tensor, Tensor]]:
            out = model(pixel_values=images, mask_labels=masks, class_labels=labels)
            return out.loss, (out.class_queries_logits, out.masks_queries_logits)

    else:
        model, criterion = NaiveEoMT(backbone, head).train(), Criterion()

        def loss_of() -> tuple[Tensor, tuple[Tensor, Tensor]]:
            if contender.who == 'naive':
                predictions = model.forward_masked(images)
            else:
                predictions = backbone.forward_masked(images, head)
            return sum(criterion(predictions, targets).values()), predictions[-1]

    # The last to be reached on the way back. The loss of transformers draws its points
    # otherwise.
    deepest = [backbone.queries, backbone.patch_embed.proj.weight]
    compared = [] if contender.who == 'hugging face' else deepest

    def work() -> TrainingStep:
        torch.manual_seed(0)  # the same queries are freed
        backbone.mask_probs = [prob] * backbone.num_blocks
        model.zero_grad(set_to_none=True)
        with autocast(device, contender.dtype):
            loss, prediction = loss_of()
        loss.backward()
        return TrainingStep(
            tuple(tensor.detach() for tensor in prediction),
            [parameter.grad.clone() for parameter in compared],
        )

    return work


def _postprocess(case: Case, contender: Contender, device: torch.device) -> Work:
    """Make a post-processing step: logits of one image become its result."""
    if contender.dtype != 'fp32' or contender.compiled:
        raise UserError('post-processing is always fp32 and not compiled')
    # Made before the work begins, so that memory does not count them.
    classes = inputs.class_logits(case.queries, case.kept).to(device)
    masks = inputs.mask_logits(case.queries, case.image_size // 4).to(device)
    finish = _POSTPROCESS[case.task, contender.who]
    return torch.inference_mode()(lambda: finish(case, classes, masks))


def _panoptic(by: Callable, case: Case, classes: Tensor, masks: Tensor) -> Tensor:
    return by(classes, masks, *case.shapes, inputs.THINGS, overlap_thr=case.overlap_thr)


def _instances(
    by: Callable, case: Case, classes: Tensor, masks: Tensor
) -> tuple[Tensor, ...]:
    return by(classes, masks, *case.shapes, inputs.THINGS)


def _semantic(by: Callable, case: Case, classes: Tensor, masks: Tensor) -> Tensor:
    _, size, ori_shape = case.shapes
    return by(classes, masks, size, ori_shape)


def _our_semantic(
    classes: Tensor, masks: Tensor, size: Size, ori_shape: Size
) -> Tensor:
    return resized_argmax(class_map(classes, masks, size), ori_shape)


def _hf_panoptic(case: Case, classes: Tensor, masks: Tensor) -> Tensor:
    (result,) = hf.processor(case.image_size).post_process_panoptic_segmentation(
        hf.outputs(classes[None].float(), masks[None].float()),
        [case.ori_shape],
        stuff_classes=list(range(inputs.THINGS, inputs.CLASSES)),
        overlap_mask_area_threshold=case.overlap_thr,
    )
    return hf.panoptic_ids(result, inputs.CLASSES, inputs.THINGS)


def _hf_semantic(case: Case, classes: Tensor, masks: Tensor) -> Tensor:
    (result,) = hf.processor(case.image_size).post_process_semantic_segmentation(
        hf.outputs(classes[None].float(), masks[None].float()), [case.ori_shape]
    )
    return result


def _hf_instances(case: Case, classes: Tensor, masks: Tensor) -> None:
    raise UserError('its instances follow another protocol (no top 100)')


# Functions of a case, class logits and mask logits.
_POSTPROCESS = {
    ('panoptic', 'ours'): partial(_panoptic, panoptic_result),
    ('instance', 'ours'): partial(_instances, instance_result),
    ('semantic', 'ours'): partial(_semantic, _our_semantic),
    ('panoptic', 'naive'): partial(_panoptic, naive_panoptic),
    ('instance', 'naive'): partial(_instances, naive_instances),
    ('semantic', 'naive'): partial(_semantic, naive_semantic),
    ('panoptic', STOCK): partial(_panoptic, stock.panoptic),
    ('instance', STOCK): partial(_instances, stock.instances),
    ('panoptic', 'hugging face'): _hf_panoptic,
    ('instance', 'hugging face'): _hf_instances,
    ('semantic', 'hugging face'): _hf_semantic,
}


@cache
def giga_operations(case: Case) -> float | None:
    """Return the paper's GFLOPs of one forward pass of one image.

    Args:
        case (Case): The work.

    Returns:
        float | None: None if the work is not a forward pass.
    """
    if case.task not in ('network', 'inference'):
        return None
    with torch.device('meta'):
        network = inputs.build_network(case.size, case.image_size, case.queries)
        images = torch.empty(1, 3, case.image_size, case.image_size)
        naive = NaiveEoMT(*network)
        return count_operations(lambda: naive(images), naive) / 1e9
