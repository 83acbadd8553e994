"""The bridge to MMSegmentation: preprocessor, segmentor, decode head, test-time aug.

The main difference from MMSeg's `EncoderDecoder` is that in training the head predicts
between the blocks of the backbone, and that in testing the image is cut into even
windows. A stock `EncoderDecoder` runs the same weights, and trains them without masks
and without intermediate supervision.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models import EncoderDecoder, SegDataPreProcessor, SegTTAModel
from mmseg.registry import MODELS as MMSEG_MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor

from eomt_mm.compat import flips_channels
from eomt_mm.errors import UserError
from eomt_mm.registry import MODELS

from .backbone_sizes import (
    PadsToBackbone,
    complete_config,
    first_channel,
    follows_backbone,
    set_input_size,
)
from .checkpoint_check import refuse_misfit
from .confidence import check_confidence, confidence_map
from .criterion import Prediction, Target
from .mask_head import MaskHead
from .network import NetworkModel
from .options import complete_test_cfg
from .targets import check_labels, semantic_targets
from .windows import WindowAverage, class_map, resized_argmax


@MODELS.register_module()
class EoMTSegDataPreProcessor(PadsToBackbone, SegDataPreProcessor):
    """MMSeg's preprocessor, but in testing images may differ in size.

    Images are padded to at least `size` at the right and bottom with raw 0 *before*
    they are normalised, as the network saw them in training; the stock class pads
    with the mean colour. In training the pipeline pads.

    `EoMTSegmentor` takes `size` from its backbone.

    Args:
        mean (Sequence[float], optional): Mean of each channel, of which there may be
            any number. Defaults to no normalisation.
        std (Sequence[float], optional): Their standard deviations.
        **kwargs: Arguments of `SegDataPreProcessor`.
    """

    def __init__(
        self,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(**first_channel(mean, std), **kwargs)
        self.set_normalisation(mean, std)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Normalise a batch.

        Args:
            data (dict): `inputs`, a list of images (C, H, W), uint8 or float32, and
                `data_samples`.
            training (bool): Whether to stack, as the stock class does.

        Returns:
            dict: `inputs`, a tensor (B, C, H, W) in training and a list of
            tensors (C, H, W) in testing, and `data_samples`.

        Raises:
            UserError: If an image has other channels than the network takes.
        """
        self.require_size()
        self.check_channels(data)
        if training:
            return super().forward(data, training)
        data = self.cast_data(data)
        images = [self._prepare(image) for image in data['inputs']]
        return dict(inputs=images, data_samples=data.get('data_samples'))

    def _prepare(self, image: Tensor) -> Tensor:
        bottom, right = (
            max(0, side - has)
            for side, has in zip(self.size, image.shape[1:], strict=True)
        )
        image = F.pad(image, (0, right, 0, bottom))
        if flips_channels(self):
            image = image.flip(0)
        image = image.float()
        return (image - self.mean) / self.std if self._enable_normalize else image


class SemanticTargets:
    """A mixin for heads with `num_classes` and `ignore_index`: targets from labels."""

    num_classes: int
    ignore_index: int

    def targets(self, data_samples: list[SegDataSample]) -> list[Target]:
        """Convert ground truth to targets of the criterion.

        Args:
            data_samples (list[SegDataSample]): Samples with `gt_sem_seg` of one size.

        Returns:
            list[Target]: One for each image.

        Raises:
            UserError: If there is no ground truth, or a label beyond the classes.
        """
        if not all('gt_sem_seg' in sample for sample in data_samples):
            raise UserError(
                'the training pipeline loads no label maps: add '
                'eomt_mm.LoadSemanticAnnotations'
            )
        labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data_samples])
        paths = [sample.metainfo.get('img_path', '?') for sample in data_samples]
        return semantic_targets(labels, self.num_classes, self.ignore_index, paths)

    def check(self, sample: SegDataSample) -> None:
        """Raise a UserError if the ground truth has a label beyond the classes."""
        name = sample.metainfo.get('img_path', '?')
        labels = sample.gt_sem_seg.data
        check_labels(labels, self.num_classes, self.ignore_index, [name])


@MODELS.register_module()
class SemanticHead(SemanticTargets, MaskHead):
    """The mask head as a decode head of MMSeg.

    Args:
        num_classes (int): Number of classes.
        embed_dims (int, optional): Channels of the tokens. `EoMTSegmentor` takes them
            from the backbone, like `patch_size`.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        ignore_index (int): Label of pixels without ground truth. Defaults to 255.
        criterion (dict, optional): Config of the loss. Defaults to `Criterion` with
            the paper's numbers.
        init_cfg (dict, optional): MMEngine's initialisation config.
    """

    align_corners = False  # read by EncoderDecoder

    def __init__(
        self,
        num_classes: int,
        embed_dims: int | None = None,
        patch_size: int = 16,
        ignore_index: int = 255,
        criterion: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(embed_dims, num_classes, patch_size, init_cfg)
        self.patch_size = patch_size
        self.ignore_index = ignore_index
        self.out_channels = num_classes  # read by EncoderDecoder
        self.criterion = MODELS.build(criterion or dict(type='eomt_mm.Criterion'))

    def loss(
        self, feats: tuple[Tensor, Tensor], data_samples: list[SegDataSample], _cfg
    ) -> dict[str, Tensor]:
        """Compute the loss of the final prediction alone, for an `EncoderDecoder`."""
        return self.criterion([self(*feats)], self.targets(data_samples))

    def predict(self, feats: tuple[Tensor, Tensor], _metas, _cfg) -> Tensor:
        """Return class scores at the input's size, for a stock `EncoderDecoder`.

        Args:
            feats (tuple[Tensor, Tensor]): What the backbone returns.

        Returns:
            Tensor: Shape (B, classes, H, W), probability-like sums over queries.
        """
        size = tuple(side * self.patch_size for side in feats[1].shape[2:])
        return torch.stack(
            [
                class_map(classes, masks, size)
                for classes, masks in zip(*self(*feats), strict=True)
            ]
        )


class WindowedSegmentor(NetworkModel, EncoderDecoder):
    """A segmentor that follows the sizes of its backbone and tests in even windows.

    `test_cfg` may hold:

    - `max_windows` (int): Windows in one forward pass, over all images of the batch;
      bounds the memory. Defaults to 16.
    - `keep_logits` (bool): Whether results carry `seg_logits` at the original size
      besides `pred_sem_seg`. They are class scores (sums of probabilities), and
      large: 150 classes at 6000 x 4000 pixels are 14 GiB. Defaults to False.
    - `confidence` (str, optional): One of `confidence.CONFIDENCES`; results carry a
      map `confidence` of shape (1, H, W) then. Defaults to None.

    Args:
        backbone (dict): Config of the backbone, a `PlainViT` or any other.
        decode_head (dict): Config of the head; its sizes follow from the backbone.
        neck (dict, optional): Config of what stands between backbone and head.
        **kwargs: Arguments of `EncoderDecoder`.
    """

    def __init__(
        self, backbone: dict, decode_head: dict, neck: dict | None = None, **kwargs
    ) -> None:
        # EncoderDecoder builds the neck before the sizes are known.
        self._neck = neck
        super().__init__(backbone, decode_head, **kwargs)
        set_input_size(self.data_preprocessor, self.backbone)
        defaults = dict(max_windows=16, keep_logits=False, confidence=None)
        self.test_cfg = complete_test_cfg(self.test_cfg, defaults, others=['mode'])
        # Stock configs set mode; name the reason instead of 'unknown option'.
        mode = self.test_cfg.pop('mode', 'windows')
        if mode != 'windows':
            raise UserError(
                f'test_cfg.mode is {mode!r}, but {type(self).__name__} tests in even '
                "windows: remove the mode, or use type='EncoderDecoder'"
            )
        check_confidence(self.test_cfg['confidence'])
        self.register_load_state_dict_pre_hook(refuse_misfit)

    def _init_decode_head(self, decode_head: dict) -> None:
        """Build neck and head in the sizes of the backbone, which is built before."""
        neck = self._neck
        if neck is not None:
            self.neck = MMSEG_MODELS.build(complete_config(neck, self.backbone, 'neck'))
        if follows_backbone(neck):
            decode_head = complete_config(decode_head, self.backbone, 'decode_head')
        super()._init_decode_head(decode_head)

    def predict(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: list[SegDataSample] | None = None,
    ) -> list[SegDataSample]:
        """Segment images of any size, each at least as large as a window.

        Args:
            inputs (Tensor | list[Tensor]): Normalised images, each (3, H, W).
            data_samples (list[SegDataSample], optional): Samples whose metainfo has
                `ori_shape` and `img_shape`.

        Returns:
            list[SegDataSample]: The same, with `pred_sem_seg` of shape (1, H, W) at
            the original size.
        """
        if data_samples is None:
            data_samples = [
                SegDataSample(
                    metainfo=dict(ori_shape=image.shape[1:], img_shape=image.shape[1:])
                )
                for image in inputs
            ]
        for sample in data_samples:
            if 'gt_sem_seg' in sample:  # else a wrong label only lowers the score
                self.decode_head.check(sample)
        averages = [
            WindowAverage(image.shape[1:], self.backbone.img_size) for image in inputs
        ]
        # Windows of all images share forward passes; an image is finished, and its
        # class map freed, as soon as its last window is in.
        windows = [
            (i, j) for i, avg in enumerate(averages) for j in range(len(avg.corners))
        ]
        while windows:
            count = min(len(windows), self.test_cfg['max_windows'])
            if self.fast and self.fast.compiled:
                # Powers of two keep the number of compiled graphs small.
                count = 1 << count.bit_length() - 1
            chunk, windows = windows[:count], windows[count:]
            crops = torch.stack([averages[i].crop(inputs[i], j) for i, j in chunk])
            for (i, j), *logits in zip(chunk, *self._forward(crops), strict=True):
                averages[i].add(j, class_map(*logits, self.backbone.img_size))
                if j == len(averages[i].corners) - 1:
                    self._finish(averages[i].mean(), data_samples[i])
                    averages[i].sum = None
        return data_samples

    def _forward(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> Prediction:
        """Return class logits and mask logits of images of the backbone's size."""
        raise NotImplementedError

    def _finish(self, scores: Tensor, sample: SegDataSample) -> None:
        """Bring class scores (classes, H, W) to the original image."""
        meta = sample.metainfo
        height, width = meta['img_shape'][:2]
        scores = scores[:, :height, :width]  # without padding
        if meta.get('flip'):
            axis = 2 if meta['flip_direction'] == 'horizontal' else 1
            scores = scores.flip(axis)
        size = tuple(meta['ori_shape'][:2])
        measure = self.test_cfg['confidence']
        if measure:
            sample.confidence = PixelData(
                data=confidence_map(scores, measure, size)[None]
            )
        if self.test_cfg['keep_logits']:
            scores = F.interpolate(scores[None], size, mode='bilinear')[0]
            sample.seg_logits = PixelData(data=scores)
        sample.pred_sem_seg = PixelData(data=resized_argmax(scores, size)[None])


@MODELS.register_module()
class EoMTSegmentor(WindowedSegmentor):
    """EoMT as a semantic segmentor of MMSeg.

    Takes the arguments and `test_cfg` of `WindowedSegmentor`: `backbone` is a
    `QueryViT`, `decode_head` a `SemanticHead`, and there is no neck.
    """

    def loss(self, inputs: Tensor, data_samples: list[SegDataSample]) -> dict:
        """Compute the losses of all predictions, before the last blocks and final.

        Args:
            inputs (Tensor): Normalised images, shape (B, 3, H, W).
            data_samples (list[SegDataSample]): Samples that carry `gt_sem_seg`.

        Returns:
            dict[str, Tensor]: `decode.loss_cls`, `decode.d0.loss_cls`, ...
        """
        # Build targets first: this synchronises with the GPU, which costs nothing while
        # its queue is empty.
        targets = self.decode_head.targets(data_samples)
        predictions = self.network.all_predictions(inputs)
        return add_prefix(self.decode_head.criterion(predictions, targets), 'decode')

    def _forward(
        self, inputs: Tensor, data_samples: list[SegDataSample] | None = None
    ) -> Prediction:
        """Return class logits and mask logits of images of the backbone's size."""
        return self.network(inputs)


@MODELS.register_module()
class EoMTSegTTAModel(SegTTAModel):
    """Test-time augmentation: the mean of the class scores of all views.

    MMSeg's own takes a softmax of them first, but they are sums of probabilities
    already.
    """

    def __init__(self, module, data_preprocessor=None) -> None:
        super().__init__(module, data_preprocessor)
        self.module.test_cfg['keep_logits'] = True

    def merge_preds(
        self, data_samples_list: list[list[SegDataSample]]
    ) -> list[SegDataSample]:
        """Merge the views of each image.

        Args:
            data_samples_list (list[list[SegDataSample]]): The views of each image.

        Returns:
            list[SegDataSample]: One for each image.
        """
        # A stock segmentor under this class has no such option.
        measure = self.module.test_cfg.get('confidence')
        merged = []
        for views in data_samples_list:
            scores = sum(view.seg_logits.data for view in views)
            views[0].seg_logits = PixelData(data=scores / len(views))
            views[0].pred_sem_seg = PixelData(data=scores.argmax(0, keepdim=True))
            if measure:
                found = confidence_map(scores / len(views), measure, scores.shape[1:])
                views[0].confidence = PixelData(data=found[None])
            merged.append(views[0])
        return merged
