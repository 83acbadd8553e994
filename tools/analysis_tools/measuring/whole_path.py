"""The path from a photo file to a result file: this package and others, same weights.

- `ours`: the inferencers of MMDetection and MMSegmentation with this package's detector
  and segmentor;
- `stock`: the same inferencers and weights, in MMDetection's `MaskFormer` with its own
  fusion head, and in MMSegmentation's `EncoderDecoder`, which slides a window;
- `hugging face`: image processor, model and post-processing of transformers.

Nothing is painted. The result is the PNG file that the inferencers write.
"""

import copy
import functools
from pathlib import Path

import mmcv
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from PIL import Image
from torch import Tensor, nn

from eomt_mm.cli import config_reading as reading
from eomt_mm.errors import UserError
from eomt_mm.evaluation import id2rgb
from eomt_mm.models.backbone_sizes import write_sizes
from eomt_mm.models.network import DTYPES, is_eomt, speed_up
from eomt_mm.models.postprocess import INSTANCE_OFFSET

from . import hugging_face as hf
from . import inputs
from .configs import Entry, build
from .inference import photo_info, photo_pipeline, windows_of
from .measure import Work

CONFIGS = (
    'configs/eomt/eomt_vits_coco_panoptic_640_1x.py',
    'configs/eomt/eomt_vits_ade20k.py',
)
CONTENDERS = ('ours', 'stock', 'hugging face')
VOID = 0  # of a panoptic PNG


def prepare(
    who: str, entry: Entry, photo: str, kept: int, device: torch.device, folder: Path
) -> Work:
    """Load everything and return a function that processes one photo.

    Args:
        who (str): One of `CONTENDERS`.
        entry (Entry): A model of this package.
        photo (str): The image file.
        kept (int): Queries that find something without a checkpoint.
        device (torch.device): Device of the computation.
        folder (Path): Folder of checkpoints and results.

    Returns:
        Callable: A run that returns the path of the result file.

    Raises:
        UserError: If the model is not of this package, or the contender is missing.
    """
    shared = _shared(entry.config, entry.checkpoint, photo, kept, device, folder)
    cfg, model, weights = shared
    out = folder / who.replace(' ', '_') / entry.dtype
    out.mkdir(parents=True, exist_ok=True)
    if who == 'hugging face':
        return _hugging_face(cfg, model, entry.dtype, photo, out)
    if who == 'stock':
        cfg = stock_config(cfg)
    if cfg.default_scope == 'mmdet':
        work, inferencer = _det_inferencer(cfg, weights, device, photo, out)
    else:
        work, inferencer = _seg_inferencer(cfg, weights, device, photo, out)
    speed_up(inferencer.model, entry.dtype, entry.compiled)
    return work


@functools.lru_cache(maxsize=1)
def _shared(
    config: str,
    checkpoint: str | None,
    photo: str,
    kept: int,
    device: torch.device,
    folder: Path,
) -> tuple[Config, nn.Module, str]:
    """Return the config, model and checkpoint of all contenders."""
    cfg, model = build(Entry(config, checkpoint), device)
    if not is_eomt(model):
        raise UserError(
            f'{config} makes a {type(model).__name__}: --whole-path measures models of '
            'this package'
        )
    if cfg.default_scope == 'mmdet' and not model.test_cfg.get('panoptic_on', True):
        raise UserError(
            f'{config} has panoptic_on=False: --whole-path writes panoptic results'
        )
    if checkpoint:
        return cfg, model, checkpoint
    if cfg.default_scope == 'mmdet':
        # The masks of a random network hide each other; none would be left.
        cfg.model.test_cfg.iou_thr = 0.0
    photos = pseudo_collate([photo_pipeline(cfg)(photo_info(photo))])
    images = windows_of(model, photos)[:1]
    inputs.fit_class_head(model.backbone, model.mask_head, images, kept)
    weights = folder / f'{Path(config).stem}.pth'
    metainfo = reading.metainfo_of(reading.leaves_of(cfg, 'test')[0], cfg.default_scope)
    meta = {key: metainfo[key] for key in ('classes', 'palette')}
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=meta)), weights
    )
    return cfg, model, str(weights)


def stock_config(cfg: Config) -> Config:
    """Put a network into the framework's own class, with its own post-processing.

    Args:
        cfg (Config): Config of a segmentor or detector of this package.

    Returns:
        Config: Config of an `EncoderDecoder` or a `MaskFormer`.
    """
    cfg = copy.deepcopy(cfg)
    write_sizes(cfg.model)
    if cfg.default_scope == 'mmdet':
        head = cfg.model.panoptic_head
        cfg.model.type = 'MaskFormer'
        cfg.model.panoptic_fusion_head = ConfigDict(
            type='MaskFormerFusionHead',
            num_things_classes=head.num_things_classes,
            num_stuff_classes=head.get('num_stuff_classes', 0),
        )
        cfg.model.test_cfg.filter_low_score = True
        return cfg
    size = cfg.model.backbone.img_size
    cfg.model.type = 'EncoderDecoder'
    # As MMSegmentation's configs do it: two thirds of the window further each time.
    cfg.model.test_cfg = ConfigDict(
        mode='slide', crop_size=size, stride=tuple(2 * side // 3 for side in size)
    )
    preprocessor = cfg.model.data_preprocessor
    preprocessor.type, preprocessor.size = 'SegDataPreProcessor', None
    return cfg


def _det_inferencer(
    cfg: Config, weights: str, device: torch.device, photo: str, out: Path
) -> tuple[Work, BaseInferencer]:
    from mmdet.apis import DetInferencer

    inferencer = DetInferencer(cfg, weights, str(device), show_progress=False)

    def work() -> Path:
        found = inferencer(
            photo, no_save_vis=True, no_save_pred=False, out_dir=str(out)
        )
        return Path(found['predictions'][0]['panoptic_seg_path'])

    return work, inferencer


def _seg_inferencer(
    cfg: Config, weights: str, device: torch.device, photo: str, out: Path
) -> tuple[Work, BaseInferencer]:
    from mmseg.apis import MMSegInferencer

    inferencer = MMSegInferencer(cfg, weights, device=str(device))
    inferencer.show_progress = False

    def work() -> Path:
        inferencer.num_pred_imgs = 0  # the same file each time
        # MMSeg's own call would paint as well.
        BaseInferencer.__call__(inferencer, photo, pred_out_dir=str(out))
        return out / '00000000_pred.png'

    return work, inferencer


def _hugging_face(
    cfg: Config, model: nn.Module, dtype: str, photo: str, out: Path
) -> Work:
    """Run transformers as in its documentation; the writers are MM's."""
    head, side = model.mask_head, model.backbone.img_size[0]
    device = next(model.parameters()).device
    windows = cfg.default_scope == 'mmseg'
    processor = hf.processor(side, windows)
    reference = hf.reference_model(model.backbone, head).to(device, DTYPES[dtype])

    @torch.inference_mode()
    def work() -> Path:
        image = Image.open(photo).convert('RGB')
        size = image.size[::-1]
        batch = processor(images=[image], return_tensors='pt')
        outputs = reference(batch['pixel_values'].to(device))
        if windows:
            outputs.patch_offsets = batch['patch_offsets']
            (labels,) = processor.post_process_semantic_segmentation(outputs, [size])
            path = out / 'semantic.png'
            Image.fromarray(labels.byte().cpu().numpy()).save(path)
            return path
        stuff = list(range(head.num_things_classes, head.num_classes))
        (result,) = processor.post_process_panoptic_segmentation(
            outputs,
            [size],
            threshold=cfg.model.test_cfg.object_mask_thr,
            overlap_mask_area_threshold=cfg.model.test_cfg.iou_thr,
            stuff_classes=stuff,
        )
        ids = hf.panoptic_ids(result, head.num_classes, head.num_things_classes)
        path = out / 'panoptic.png'
        _write_ids(ids, head.num_classes, path)
        return path

    return work


def _write_ids(ids: Tensor, num_classes: int, path: Path) -> None:
    """Write a panoptic PNG, as MMDetection's inferencer does."""
    ids = ids.cpu().numpy()
    ids[ids % INSTANCE_OFFSET == num_classes] = VOID
    mmcv.imwrite(id2rgb(ids)[:, :, ::-1], str(path))
