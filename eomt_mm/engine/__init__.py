"""Training machinery: annealing, learning rates, seeds, files."""

from .fast_inference import FastInferenceHook
from .iteration_seed import IterationSeedHook
from .layer_decay import LayerDecayConstructor, layer_decay_scale
from .mask_annealing import MaskAnnealingHook, annealing_windows, mask_probability
from .warmup_poly import TwoStageWarmupPolyLR, two_stage_factor

__all__ = [
    'FastInferenceHook',
    'IterationSeedHook',
    'LayerDecayConstructor',
    'MaskAnnealingHook',
    'TwoStageWarmupPolyLR',
    'annealing_windows',
    'layer_decay_scale',
    'mask_probability',
    'two_stage_factor',
]
