"""What travels in the file: task, classes, thresholds, the way of a photo to the input.

The keys are those that `eomt_mm.deploy.model_file` expects.
"""

from mmengine.config import Config
from mmengine.registry import DATASETS, TRANSFORMS

from eomt_mm import __version__
from eomt_mm.cli import config_reading as reading
from eomt_mm.deploy.model_file import FORMAT, HIGHEST, LONGEST, is_sound
from eomt_mm.errors import UserError
from eomt_mm.models.network import NetworkModel

# Steps that leave the pixels of a photo alone.
HARMLESS = ('PackSegInputs', 'PackDetInputs', 'DecodeSixteenBit', 'CheckLabelSize')


def meta_of(cfg: Config, model: NetworkModel, dtype: str) -> dict:
    """The metadata of an export.

    Args:
        cfg (Config): The config.
        model (NetworkModel): Its model.
        dtype (str): Of the file, such as 'fp32'.

    Returns:
        dict: For JSON.

    Raises:
        UserError: The test pipeline has steps that the predictor does not know, or
            numbers are beyond its bounds.
    """
    head, fusion = model.mask_head, getattr(model, 'panoptic_fusion_head', None)
    test = {} if fusion is None else fusion.test_cfg
    classes, palette = reading.classes_and_colours(cfg, head.num_classes)
    meta = dict(
        format=FORMAT,
        version=__version__,
        task=_task(fusion),
        classes=classes,
        palette=palette,
        num_things=0 if fusion is None else head.num_things_classes,
        size=list(model.backbone.img_size),
        dtype=dtype,
        test=dict(
            score_thr=test.get('object_mask_thr', 0.8),
            overlap_thr=test.get('iou_thr', 0.8),
            max_per_image=test.get('max_per_image', 100),
        ),
        **_pipeline(cfg),
    )
    if not is_sound(meta):
        seen = {key: meta[key] for key in ('size', 'resize', 'test')}
        raise UserError(
            f'the config has {seen}, which the predictor of exported models does not '
            f'take: expected sides of 1 to {LONGEST} pixels, and thresholds and '
            f'max_per_image from 0 to {HIGHEST - 1}'
        )
    return meta


def _task(fusion) -> str:
    if fusion is None:
        return 'semantic'
    for task in ('panoptic', 'instance'):
        if fusion.test_cfg[f'{task}_on']:
            return task
    raise UserError(
        'test_cfg has panoptic_on=False and instance_on=False: set one of them, with '
        '--cfg-options model.test_cfg.panoptic_on=True'
    )


def _pipeline(cfg: Config) -> dict:
    """How a photo is loaded and resized."""
    found = dict(upright=True, resize=None)
    scope = reading.scope_of(cfg)
    for step in reading.without_labels(reading.pipeline_of(cfg)):
        name = reading.type_name(step)
        if 'LoadImage' in name:
            color = step.get('color_type', 'color')
            found['upright'] = color == 'color'
            if color not in ('color', 'color_ignore_orientation'):
                raise UserError(
                    f'the loader of the test pipeline has color_type={color!r}, '
                    "expected 'color' or 'color_ignore_orientation'"
                )
        elif name in ('ResizeShortSide', 'FitInside'):
            with TRANSFORMS.switch_scope_and_registry(scope) as registry:
                built = registry.build(dict(step))
            found['resize'] = (
                dict(short_side=built.size, max_aspect=built.max_aspect)
                if name == 'ResizeShortSide'
                else dict(rows=built.size[0], cols=built.size[1])
            )
        elif name not in HARMLESS and not reading.loads_labels(step):
            raise UserError(
                f'the test pipeline has a step {name}, which the exported model cannot '
                'repeat: expected eomt_mm.ResizeShortSide or eomt_mm.FitInside, as in '
                'configs/_base_/datasets'
            )
    return found


def first_photo(cfg: Config) -> str | None:
    """The first image of the test dataset, if it is at hand."""
    scope = reading.scope_of(cfg)
    for dataset in reading.leaves_of(cfg, 'test'):
        try:
            built = DATASETS.build({**dataset, 'pipeline': [], '_scope_': scope})
            return built.get_data_info(0)['img_path']
        except (OSError, IndexError, ValueError):
            return None
    return None
