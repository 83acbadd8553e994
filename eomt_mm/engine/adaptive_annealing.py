"""Mask annealing that follows the network: less masking where masks change less.

The published schedule (arXiv 2503.19108, section 3.3) anneals the blocks one after
the other, at iterations chosen beforehand. Here each block is annealed as far as the
network predicts the same with its mask and without. A ceiling ends at 0 by a stated
iteration, whatever is measured.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from eomt_mm.errors import UserError
from eomt_mm.models.network import Network
from eomt_mm.registry import HOOKS

from .mask_annealing import FIRST_START, LAST_START, WINDOW, MaskAnnealingHook
from .wrapped import forward_outside, unwrapped

STATE = 'adaptive_mask_annealing'
MEASUREMENTS = 200  # in a run, unless `interval` says otherwise
NEWEST = 0.3  # share of the newest measurement in the running mean


@dataclass(frozen=True)
class BlockState:
    """What is remembered of a block.

    Args:
        agreement (float | None): Running mean of the agreement, 0 to 1.
        lowest (float): The lowest running mean so far.
        probability (float): Mask probability, which never rises.
    """

    agreement: float | None = None
    lowest: float = 1.0
    probability: float = 1.0


def followed(state: BlockState, agreement: float) -> BlockState:
    """Follow a new measurement.

    The probability is the disagreement left, as a share of the largest there was: 1
    where a mask matters as much as ever, 0 where it matters no more.

    Args:
        state (BlockState): Before.
        agreement (float): Of the predictions with the block's mask and without, 0 to 1.

    Returns:
        BlockState: After; its probability is not above the one before.
    """
    mean = agreement
    if state.agreement is not None:
        mean = NEWEST * agreement + (1 - NEWEST) * state.agreement
    lowest = min(state.lowest, mean)
    left = (1 - mean) / (1 - lowest) if lowest < 1 else 0.0
    return BlockState(mean, lowest, min(state.probability, left))


@torch.no_grad()
def agreements(network: Network, images: Tensor) -> Tensor:
    """How far the final masks stay the same if one block is masked, or none.

    Args:
        network (Network): Its `mask_probs` are as before when this returns.
        images (Tensor): Normalised images, shape (B, 3, H, W).

    Returns:
        Tensor: Shape (blocks,), the IoU of both predictions over all queries.
    """
    backbone = network.backbone
    before, count = backbone.mask_probs, len(backbone.mask_probs)
    try:
        masks = []
        for masked in range(-1, count):
            backbone.mask_probs = [float(i == masked) for i in range(count)]
            masks.append(network.all_predictions(images)[-1][1] > 0)
    finally:
        backbone.mask_probs = before
    free, *single = masks
    shared = torch.stack([(free & mask).sum() for mask in single]).float()
    either = torch.stack([(free | mask).sum() for mask in single]).float()
    return torch.where(either > 0, shared / either.clamp(min=1), 1.0)


@HOOKS.register_module()
class AdaptiveMaskAnnealingHook(MaskAnnealingHook):
    """Lowers the probability of each block as its mask ceases to matter.

    Every `interval` iterations, from `start` on, the batch is predicted once without
    masks and once with the mask of each block alone: as many forward passes without
    gradient as there are masked blocks, and one. What is measured is in the message
    hub, and thereby in checkpoints. Use it in place of `MaskAnnealingHook`:

        --cfg-options custom_hooks.0.type=eomt_mm.AdaptiveMaskAnnealingHook

    Args:
        start (int | float): Where measuring begins; all blocks are masked before. An
            int is an iteration, a float a share of the run. Defaults to 1/6.
        end (int | float): From here on nothing is masked, whatever is measured. A
            sixth of the run before, the ceiling of all blocks begins to fall. Defaults
            to 5/6.
        interval (int, optional): Iterations between measurements. None makes 200 of
            them in a run. Defaults to None.
        power (float): Exponent of the decay of the ceiling. Defaults to 0.9.
    """

    def __init__(
        self,
        start: int | float = float(FIRST_START),
        end: int | float = float(LAST_START + WINDOW),
        interval: int | None = None,
        power: float = 0.9,
    ) -> None:
        super().__init__(power=power)
        self.measured_from, self.ends_at, self.interval = start, end, interval
        for name, value in (('start', start), ('end', end)):
            if value < 0 or (isinstance(value, float) and value > 1):
                raise UserError(
                    f'{name} of the adaptive annealing is {value}: expected an '
                    'iteration, or a share of the run from 0.0 to 1.0'
                )
        if interval is not None and interval < 1:
            raise UserError(f'interval is {interval}: expected 1 iteration or more')

    def windows(self, num_blocks: int, max_iters: int) -> list[tuple[int, int]]:
        """The window in which the ceiling falls, the same for all blocks.

        Raises:
            UserError: It would end after the run.
        """
        end = _iteration(self.ends_at, max_iters)
        if end > max_iters:
            raise UserError(
                f'the adaptive annealing ends at iteration {end}, after the run of '
                f'{max_iters}: lower `end`'
            )
        return [(max(0, end - round(WINDOW * max_iters)), end)] * num_blocks

    def before_train(self, runner) -> None:
        """Refuse what cannot be measured; go on where a resumed run was."""
        super().before_train(runner)
        network = self._network(runner)
        count = len(network.backbone.mask_probs)
        stored = runner.message_hub.runtime_info.get(STATE) or [{}] * count
        if len(stored) != count:
            raise UserError(
                f'the checkpoint has annealed {len(stored)} blocks, the model masks '
                f'{count}: resume with the config of the run'
            )
        self._states = [BlockState(**state) for state in stored]
        if runner.iter:
            self._apply(runner, network, runner.iter - 1)

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Measure where it is due, and set the probabilities of this iteration."""
        network, step = self._network(runner), runner.iter
        start = _iteration(self.measured_from, runner.max_iters)
        every = self.interval or max(1, runner.max_iters // MEASUREMENTS)
        end = self.windows(1, runner.max_iters)[0][1]
        if start <= step < end and (step - start) % every == 0:
            with forward_outside(runner.model):
                found = agreements(network, _images(runner, data_batch))
            all_reduce(found, 'mean')
            self._states = [
                followed(state, value)
                for state, value in zip(self._states, found.tolist(), strict=True)
            ]
            for block, state in enumerate(self._states):
                name = f'train/mask_agreement_{block}'
                runner.message_hub.update_scalar(name, state.agreement)
        self._apply(runner, network, step)

    def _apply(self, runner, network: Network, step: int) -> None:
        ceilings = self.probabilities(
            step, runner.max_iters, len(network.backbone.mask_probs)
        )
        self._states = [
            replace(state, probability=min(state.probability, ceiling))
            for state, ceiling in zip(self._states, ceilings, strict=True)
        ]
        probabilities = [state.probability for state in self._states]
        network.backbone.mask_probs = probabilities
        for block, probability in enumerate(probabilities):
            runner.message_hub.update_scalar(f'train/mask_prob_{block}', probability)
        states: Sequence[dict] = [asdict(state) for state in self._states]
        runner.message_hub.update_info(STATE, states)

    @staticmethod
    def _network(runner) -> Network:
        model = unwrapped(runner.model)
        network = getattr(model, 'network', None)
        if not isinstance(network, Network):
            raise UserError(
                'AdaptiveMaskAnnealingHook measures an EoMT, and '
                f'{type(model).__name__} is none: use MaskAnnealingHook'
            )
        return network


def _images(runner, data_batch: dict) -> Tensor:
    """The normalised images of a batch, which is left as it is."""
    preprocess = unwrapped(runner.model).data_preprocessor
    return preprocess(deepcopy(data_batch), True)['inputs']


def _iteration(value: int | float, max_iters: int) -> int:
    return value if isinstance(value, int) else round(value * max_iters)
