"""Statistics and trials to find ALGM's threshold for a trained model."""

import math
from dataclasses import asdict, dataclass

import torch
from mmengine.config import Config
from torch import Tensor, nn

from eomt_mm.errors import UserError
from eomt_mm.models.token_merging import ALGM, MergePoint, TokenMerging
from eomt_mm.models.token_merging.build import build_merging, method_class
from eomt_mm.models.token_merging.window_merges import passing, window_similarity

from .inference import Images, merging_with, score
from .tokens import count_tokens, forward_macs

# What a calibration finds out, or what rules it out.
_NOT_CALIBRATED = ('threshold', 'calibration', 'keep')


class SimilarityRecorder(TokenMerging):
    """Records the similarity of all windows in a block, and merges nothing.

    Args:
        block (int): Number of the block, from 1.
        window (int): Side of the windows in patches.
    """

    def __init__(self, block: int, window: int) -> None:
        super().__init__([block])
        self.window = window
        self.seen: list[Tensor] = []

    def default_blocks(self, depth: int, num_free: int) -> tuple[int, ...]:
        """Return no blocks: the block is always named."""
        return ()

    def propose(self, point: MergePoint) -> None:
        """Record the similarities of a batch."""
        scores = window_similarity(point.tokens, point.grid, self.window)
        self.seen.append(scores.flatten().cpu())


@dataclass
class Trial:
    """Result of a threshold.

    Attributes:
        threshold (float, optional): The threshold; None without merging.
        merged (float): Share of the windows that are merged.
        tokens (list[float]): Mean tokens of an image at the MLP of every block.
        gflops (float): Giga multiply-accumulates of an image, or window of one.
        score (float): Score on the images tried, in percent.
    """

    threshold: float | None
    merged: float
    tokens: list[float]
    gflops: float
    score: float


def method_options(cfg: Config) -> dict:
    """Remove token merging from a config, and return it without a threshold.

    Raises:
        UserError: If it is not ALGM, has no local merge or is invalid.
    """
    cfg.model.backbone.type = 'eomt_mm.MergingViT'
    options = cfg.model.backbone.pop('token_merging', None) or dict(type='eomt_mm.ALGM')
    if method_class(options) is not ALGM or options.get('local_block', 1) is None:
        raise UserError(
            f'model.backbone.token_merging is {dict(options)}: expected eomt_mm.ALGM '
            'with a local_block, whose threshold is to be found'
        )
    options = {k: v for k, v in options.items() if k not in _NOT_CALIBRATED}
    # What is wrong is told before the measuring.
    build_merging(dict(options, threshold=1.0))
    del options['type']
    # Each image by itself, so that the result does not depend on batches.
    return {**options, 'policy': 'image'}


def similarities(
    model: nn.Module, images: Images, block: int, window: int, batch_size: int
) -> Tensor:
    """Measure the similarity of every window of some images.

    Args:
        model: A model without token merging.
        images: The images.
        block: Number of the block, from 1.
        window: Side of the windows in patches.
        batch_size: Images at a time.

    Returns:
        Tensor: Shape (W,), ascending.
    """
    recorder = SimilarityRecorder(block, window)
    with merging_with(model.backbone, recorder), torch.inference_mode():
        for batch in images.batches(batch_size):
            model.test_step(batch)
    return torch.cat(recorder.seen).sort().values


def threshold_for(similarities: Tensor, fraction: float) -> float:
    """Return the threshold that a share of the windows passes.

    Args:
        similarities: Shape (W,), ascending.
        fraction: The share, in [0, 1].
    """
    count = round(fraction * len(similarities))
    if count == 0:
        return 1.0
    # Rounded down, so that nothing of the share is lost to typing it.
    return max(-1.0, math.floor(similarities[-count].item() * 1e6) / 1e6)


def merged_fraction(similarities: Tensor, threshold: float) -> float:
    """Return the share of the windows that pass a threshold."""
    return passing(similarities, threshold).float().mean().item()


def attempt(
    cfg: Config,
    model: nn.Module,
    images: Images,
    method: TokenMerging | None,
    merged: float,
    batch_size: int,
) -> tuple[Trial, str]:
    """Test a model on some images.

    Args:
        cfg: The config, for its evaluator.
        model: The model.
        images: Images to test on.
        method: The token merging, or None.
        merged: Share of the windows that it merges, for the record.
        batch_size: Images at a time.

    Returns:
        tuple[Trial, str]: The result, and the name of the score.
    """
    evaluator = images.evaluator(cfg)
    with (
        merging_with(model.backbone, method),
        count_tokens(model.backbone) as tokens,
        torch.inference_mode(),
    ):
        for batch in images.batches(batch_size):
            results = model.test_step(batch)
            evaluator.process(data_samples=results, data_batch=batch)
    name, value = score(evaluator.evaluate(len(images)))
    macs = forward_macs(model.backbone, model.mask_head, tokens)
    threshold = method.threshold if isinstance(method, ALGM) else None
    return Trial(threshold, merged, tokens.means(), macs / 1e9, value), name


def lowest_within(plain: Trial, tried: list[Trial], loss: float) -> Trial | None:
    """Return the trial that merges most among those with a small loss.

    Args:
        plain: The trial without merging.
        tried: Trials with thresholds.
        loss: Largest acceptable loss of score, in points.

    Returns:
        Trial | None: None if all of them lose more.
    """
    within = [trial for trial in tried if plain.score - trial.score <= loss]
    return min(within, key=lambda trial: trial.threshold, default=None)


def as_json(trial: Trial) -> dict:
    """Return a trial with significant digits only."""
    content = asdict(trial)
    content['tokens'] = [round(n, 1) for n in trial.tokens]
    return {
        key: round(value, 6) if isinstance(value, float) else value
        for key, value in content.items()
    }
