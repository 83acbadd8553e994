"""Training machinery: annealing, learning rates, seeds, files."""

from .adaptive_annealing import AdaptiveMaskAnnealingHook
from .checkpoint_hook import CheckpointHook
from .compile_hook import CompileHook
from .crop_size_check import CropSizeHook
from .divergence import DivergenceHook
from .due_validation import DueValidationHook
from .ema import EMAHook
from .fast_inference import FastInferenceHook
from .interrupts import InterruptHook
from .iteration_seed import IterationSeedHook
from .latest_checkpoint import latest_checkpoint
from .layer_decay import LayerDecayConstructor, layer_decay_scale
from .mask_annealing import (
    MaskAnnealingHook,
    annealing_hook,
    annealing_windows,
    mask_probability,
    unfinished_annealing,
)
from .resume_check import ResumeCheckHook
from .warmup_poly import TwoStageWarmupPolyLR, two_stage_factor

__all__ = [
    'AdaptiveMaskAnnealingHook',
    'CheckpointHook',
    'CompileHook',
    'CropSizeHook',
    'DivergenceHook',
    'DueValidationHook',
    'EMAHook',
    'FastInferenceHook',
    'InterruptHook',
    'IterationSeedHook',
    'LayerDecayConstructor',
    'MaskAnnealingHook',
    'ResumeCheckHook',
    'TwoStageWarmupPolyLR',
    'annealing_hook',
    'annealing_windows',
    'latest_checkpoint',
    'layer_decay_scale',
    'mask_probability',
    'two_stage_factor',
    'unfinished_annealing',
]
