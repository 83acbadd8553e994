"""A config and a checkpoint as a model of the page."""

import time
from copy import deepcopy

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, VISUALIZERS, init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from torch import Tensor, nn
from torch.nn import functional as F

from eomt_mm.checkpoints import weights_of
from eomt_mm.cli import config_reading as reading
from eomt_mm.deploy.painting import SURE
from eomt_mm.engine import unfinished_annealing
from eomt_mm.errors import UserError, shorten
from eomt_mm.models.confidence import CONFIDENCES, confidence_map
from eomt_mm.models.fp8 import has_products
from eomt_mm.models.network import NetworkModel, is_eomt, speed_up
from eomt_mm.models.postprocess import INSTANCE_OFFSET, instance_result, panoptic_result
from eomt_mm.models.token_merging import ALGM, MergingViT
from eomt_mm.models.token_merging.build import build_merging
from eomt_mm.models.windows import WindowAverage, class_map, resized_argmax

from .outputs import Logits, Model, Outputs, Size
from .segments import Segments, from_ids, from_masks, panoptic_scores
from .settings import OFF, OWN, Run, View

# What the frameworks' inferencers paint with unless they are told otherwise.
SEMANTIC_OPACITY = 0.8
SCORE_THR = 0.3
PAINTERS = {
    'semantic': 'SegLocalVisualizer',
    'panoptic': 'eomt_mm.DetVisualizer',
    'instance': 'eomt_mm.DetVisualizer',
}
MERGING_BACKBONES = ('QueryViT', 'MergingViT')


class ConfigModel(Model):
    """A segmentor or detector of this package.

    Args:
        cfg (Config): As loaded; changed here.
        checkpoint (str): Its weights, checked before.
        name (str): For the page.

    Raises:
        UserError: The checkpoint does not fit, or it is a model of another kind.
    """

    def __init__(self, cfg: Config, checkpoint: str, name: str) -> None:
        reading.refuse_bands(cfg, f'the page, which was given {name},')
        if (cfg.model.get('test_cfg') or {}).get('tiles') is not None:
            raise UserError(
                f'{name} has test_cfg.tiles, and the page shows what the network finds '
                'in the whole photo: give the config without tiles, whose pipeline '
                'fits photos into the input'
            )
        self.name, self.cfg, self.checkpoint = name, cfg, checkpoint
        self.device = torch.device(get_device())
        options = self._prepare_merging()
        self._variants = {'fp32': self._load()}
        model = self._variants['fp32']
        if not isinstance(model, NetworkModel):
            raise UserError(
                f'{cfg.model.type} is not a model of this package: the page shows '
                'EoMT and the baselines of configs/ladder'
            )
        self._set_task(model)
        self.dtypes = ['fp32', 'bf16'] if is_eomt(model) else ['fp32']
        if is_eomt(model) and self.device.type != 'cpu':
            self.dtypes.append('fp16')
            self.dtypes += ['fp8'] if has_products(self.device) else []
        self._merging = build_merging(options) if options else None
        merges = isinstance(model.backbone, MergingViT)
        own = [OWN] if options else []
        self.merging = [*own, OFF, *(['any'] if merges else [])]
        self.steps = _step_names(model) if is_eomt(model) else []
        self.confidences = [*CONFIDENCES] if self.task == 'semantic' else []
        steps = reading.without_labels(reading.pipeline_of(cfg))
        loader = dict(type=f'{cfg.default_scope}.LoadImageFromNDArray')
        self.pipeline = Compose(
            [
                loader if reading.type_name(step) == 'LoadImageFromFile' else step
                for step in steps
            ]
        )
        self.visualizer = self._build_visualizer()

    def _prepare_merging(self) -> dict | None:
        """Have the backbone merge tokens on demand; return the config's own way."""
        backbone = self.cfg.model.get('backbone') or {}
        if reading.type_name(backbone) not in MERGING_BACKBONES:
            return None
        if backbone.get('num_queries') == 0:
            return None
        options = backbone.pop('token_merging', None)
        backbone.type = 'eomt_mm.MergingViT'
        return options

    def _load(self) -> nn.Module:
        """Build the model with its weights, ready to predict."""
        init_default_scope(self.cfg.default_scope)
        model = revert_sync_batchnorm(MODELS.build(deepcopy(self.cfg.model))).eval()
        content = load_checkpoint(model, self.checkpoint, map_location='cpu')
        self._refuse_missing(model, weights_of(content, self.checkpoint))
        if is_eomt(model):
            blocks, meta = model.backbone.num_blocks, content.get('meta')
            self.warning = unfinished_annealing(self.cfg, blocks, meta) or ''
        return model.to(self.device)

    def _refuse_missing(self, model: nn.Module, weights: dict) -> None:
        """A training may start without a head; what is shown may not."""
        missing = sorted(model.state_dict().keys() - weights.keys())
        if missing:
            raise UserError(
                f'{self.checkpoint} does not fit the config: it has no '
                f'{shorten(missing)}; give the config that it was trained with'
            )

    def _set_task(self, model: NetworkModel) -> None:
        """Read task, classes and thresholds off the model."""
        head, fusion = model.mask_head, getattr(model, 'panoptic_fusion_head', None)
        self.classes, self.palette = reading.classes_and_colours(
            self.cfg, head.num_classes
        )
        if fusion is None:
            self.task, self.thresholds = 'semantic', {}
            return
        self.num_things, test = head.num_things_classes, fusion.test_cfg
        if test['panoptic_on']:
            names = ('object_mask_thr', 'iou_thr')
            self.task, self.thresholds = 'panoptic', {n: test[n] for n in names}
        elif test['instance_on']:
            self.task, self.box_from = 'instance', test['box_from']
            # The score below which nothing is painted, as everywhere in this package.
            self.thresholds = dict(
                object_mask_thr=SURE, max_per_image=test['max_per_image']
            )
        else:
            raise UserError(
                'test_cfg has panoptic_on=False and instance_on=False: set one of them '
                'in the config'
            )

    def _build_visualizer(self):
        """Build the painter of the framework's inferencer."""
        init_default_scope(self.cfg.default_scope)
        options = self.cfg.get('visualizer') or dict(type=PAINTERS[self.task])
        options = dict(options, vis_backends=None, name=f'page_{id(self)}')
        visualizer = VISUALIZERS.build(options)
        palette = [tuple(colour) for colour in self.palette]
        visualizer.dataset_meta = dict(classes=self.classes, palette=palette)
        visualizer.alpha = SEMANTIC_OPACITY if self.task == 'semantic' else 0.8
        return visualizer

    @torch.inference_mode()
    def look(self, pixels: np.ndarray, run: Run) -> Outputs:
        """See `Model.look`."""
        model = self._variant(run)
        start = time.perf_counter()
        item = self.pipeline(
            dict(
                img=np.ascontiguousarray(pixels[..., ::-1]),
                **dict(img_path='', img_id=0, seg_fields=[], reduce_zero_label=False),
            )
        )
        data = model.data_preprocessor(pseudo_collate([item]), False)
        meta, image = data['data_samples'][0].metainfo, data['inputs'][0]
        padded = tuple(image.shape[1:])
        windows = image[None]
        if self.task == 'semantic':
            average = WindowAverage(padded, model.backbone.img_size)
            corners = range(len(average.corners))
            windows = torch.stack([average.crop(image, i) for i in corners])
        self._wait()
        begun = time.perf_counter()
        at_once = (model.test_cfg or {}).get('max_windows', 16)
        if isinstance(model.backbone, MergingViT):
            model.backbone.set_merging(self._method(run.merging))
        parts = [_predict(model, some, run.inside) for some in windows.split(at_once)]
        self._wait()
        seconds = dict(fit=begun - start, network=time.perf_counter() - begun)
        steps = [
            Logits(*(torch.cat(outputs) for outputs in zip(*of_parts, strict=True)))
            for of_parts in zip(*parts, strict=True)
        ]
        return Outputs(steps, tuple(meta['img_shape'][:2]), padded, seconds)

    def _variant(self, run: Run) -> nn.Module:
        """Return the model in a dtype; loaded when it is first asked for."""
        if run.dtype == 'fp32':
            return self._variants['fp32']
        # Kernels that suit a network are not those that suit it while it merges.
        key = run.dtype, run.merging != OFF
        if key not in self._variants:
            model = self._load()
            if run.merging != OFF:
                model.backbone.set_merging(self._method(run.merging))
            speed_up(model, run.dtype)
            self._variants[key] = model
        return self._variants[key]

    def _method(self, merging: str | int):
        """Return the token merging that the page asks for."""
        if merging == OFF:
            return None
        if merging == OWN:
            return self._merging
        # Both merges of ALGM keep about the same share; pairs cannot go below half.
        kept = 1 - merging / 100
        last = max(0.5, kept**0.5)
        return ALGM(keep=(max(0.25, kept / last), last))

    def _wait(self) -> None:
        """Wait for the device, so that the time is that of the work."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    @torch.inference_mode()
    def finish(self, outputs: Outputs, view: View, size: Size) -> Segments:
        """See `Model.finish`."""
        step = outputs.steps[view.step]
        if self.task == 'semantic':
            scores = self._class_scores(outputs, step)
            labels = resized_argmax(scores, size).cpu().numpy()
            best, label = scores.max(0)
            sums = torch.bincount(label.flatten(), best.flatten().double())
            means = sums / torch.bincount(label.flatten()).clamp(min=1)
            means = dict(enumerate(means.clamp(max=1).tolist()))
            return from_ids(labels, -1, means, offset=2**31)
        if self.task == 'panoptic':
            ids = self._panoptic(outputs, view, size).cpu().numpy()
            logits = (part[0].float().cpu().numpy() for part in step)
            void = len(self.classes)
            scores = panoptic_scores(ids, void, *logits, outputs.fitted, outputs.padded)
            return from_ids(ids, void, scores, INSTANCE_OFFSET)
        return self._instance_segments(outputs, view, size)

    def _instance_segments(self, outputs: Outputs, view: View, size: Size) -> Segments:
        # It needs pycocotools, as MMDetection does.
        from pycocotools import mask as coco_masks

        from eomt_mm.run_lengths import encode_masks

        found = self._instances(outputs, view, size, encode_masks)
        least = (self.thresholds | view.thresholds)['object_mask_thr']
        scores, order = found.scores.sort(descending=True)
        sure = int((scores > least).sum())
        scores, order = scores[:sure].tolist(), order[:sure]
        runs = [found.masks[i] for i in order.tolist()]
        masks = (coco_masks.decode(encoded).astype(bool) for encoded in runs)
        labels = found.labels[order].tolist()
        return from_masks(masks, labels, scores, runs, size)

    def _class_scores(self, outputs: Outputs, step: Logits) -> Tensor:
        """Average class scores of the windows, (classes, H, W) of the resized photo."""
        window = tuple(self._variants['fp32'].backbone.img_size)
        average = WindowAverage(outputs.padded, window)
        for i, logits in enumerate(zip(*step, strict=True)):
            average.add(i, class_map(*logits, window))
        height, width = outputs.fitted
        return average.mean()[:, :height, :width]

    def _panoptic(self, outputs: Outputs, view: View, size: Size) -> Tensor:
        values = self.thresholds | view.thresholds
        classes, masks = (part[0] for part in outputs.steps[view.step])
        return panoptic_result(
            classes,
            masks,
            img_shape=outputs.fitted,
            input_size=outputs.padded,
            ori_shape=size,
            num_things=self.num_things,
            score_thr=values['object_mask_thr'],
            overlap_thr=values['iou_thr'],
        )

    def _instances(self, outputs: Outputs, view: View, size: Size, encode=None):
        values = self.thresholds | view.thresholds
        classes, masks = (part[0] for part in outputs.steps[view.step])
        return instance_result(
            classes,
            masks,
            img_shape=outputs.fitted,
            input_size=outputs.padded,
            ori_shape=size,
            num_things=self.num_things,
            max_per_image=values['max_per_image'],
            encode=encode,
            box_from=self.box_from,
        )

    @torch.inference_mode()
    def confidence(self, outputs: Outputs, view: View, size: Size) -> np.ndarray:
        """See `Model.confidence`."""
        scores = self._class_scores(outputs, outputs.steps[view.step])
        return confidence_map(scores, view.confidence, size).cpu().numpy()

    @torch.inference_mode()
    def query_masks(
        self, outputs: Outputs, queries: list[int], size: Size
    ) -> np.ndarray:
        """See `Model.query_masks`; masks of several windows are averaged."""
        height, width = outputs.fitted
        found = []
        for step in outputs.steps:
            masks = step.masks[:, queries].float()
            window = tuple(self._variants['fp32'].backbone.img_size)
            if self.task != 'semantic':
                window = outputs.padded
            average = WindowAverage(outputs.padded, window)
            for i, some in enumerate(masks):
                some = F.interpolate(some[None], window, mode='bilinear')[0]
                average.add(i, some.sigmoid())
            whole = average.mean()[None, :, :height, :width]
            # Areas, as thumbnails are much smaller.
            small = F.interpolate(whole, size, mode='area')[0]
            found.append((255 * small).round().byte().cpu().numpy())
        return np.stack(found)

    @torch.inference_mode()
    def picture(self, pixels: np.ndarray, outputs: Outputs, view: View) -> np.ndarray:
        """See `Model.picture`."""
        size = pixels.shape[:2]
        options = dict(draw_gt=False)
        if self.task == 'semantic':
            scores = self._class_scores(outputs, outputs.steps[view.step])
            labels = resized_argmax(scores, size)[None].cpu()
            sample = BaseDataElement(pred_sem_seg=PixelData(data=labels))
        elif self.task == 'panoptic':
            ids = self._panoptic(outputs, view, size)[None].cpu()
            sample = BaseDataElement(pred_panoptic_seg=PixelData(sem_seg=ids))
            options['pred_score_thr'] = SCORE_THR
        else:
            found = self._instances(outputs, view, size)
            instances = InstanceData(
                bboxes=found.boxes,
                labels=found.labels,
                scores=found.scores,
                masks=found.masks,
            )
            sample = BaseDataElement(pred_instances=instances.cpu())
            options['pred_score_thr'] = SCORE_THR
        self.visualizer.add_datasample('page', pixels, sample, **options)
        return self.visualizer.get_image()


def _predict(model: NetworkModel, windows: Tensor, inside: bool) -> list[Logits]:
    """Run the network; inside it also predicts before each of the last blocks."""
    if inside:
        return [Logits(*step) for step in model.network.all_predictions(windows)]
    return [Logits(*model(windows, None, mode='tensor'))]


def _step_names(model: NetworkModel) -> list[str]:
    """Name the predictions inside the network, the final one last."""
    depth, last = model.backbone.depth, model.backbone.num_blocks
    return [f'before block {depth - last + i + 1}' for i in range(last)] + ['final']
