"""Views of one image: where they lie, what is matched, and what is left unchanged."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from scipy.optimize import linear_sum_assignment
from test_detector import batch_of, config, photo

from eomt_mm.errors import UserError
from eomt_mm.models.tiles import Segments
from eomt_mm.models.views import View, merge_views, similarity, upright

AXES = {'horizontal': [2], 'vertical': [1], 'diagonal': [1, 2]}


def segments(masks, classes=None, img_shape=(32, 32), input_size=(32, 32)):
    if classes is None:
        classes = torch.randn(len(masks), 4)
    return Segments(classes, masks, img_shape, input_size)


@pytest.mark.parametrize('flip', AXES)
def test_a_flip_is_undone(flip):
    masks = torch.randn(5, 8, 8)
    first = View(segments(masks))
    mirrored = View(segments(masks.flip(AXES[flip])), flip)
    torch.testing.assert_close(upright(mirrored, first).mask_logits, masks)
    # The first view may be the flipped one.
    torch.testing.assert_close(upright(mirrored, mirrored).mask_logits, masks)


def test_a_flip_of_a_padded_image_is_undone():
    """The image lies at the left and top, flipped or not."""
    image = torch.randn(1, 16, 20)
    plain, mirrored = torch.full((2, 1, 32, 32), -9.0)
    plain[:, :16, :20], mirrored[:, :16, :20] = image, image.flip(2)
    shapes = dict(img_shape=(16, 20), input_size=(32, 32))
    one = View(segments(plain, **shapes))
    other = View(segments(mirrored, **shapes), 'horizontal')
    found = upright(other, one).mask_logits
    torch.testing.assert_close(found[:, :16, :20], image)


def test_a_smaller_view_is_enlarged():
    """A view at half the size, padded, is what resizing its part gives."""
    small = torch.randn(3, 8, 8)
    view = View(segments(small, img_shape=(16, 16)))
    like = View(segments(torch.randn(3, 8, 8)))
    expected = F.interpolate(small[None, :, :4, :4], (8, 8), mode='bilinear')[0]
    found = upright(view, like)
    inner = slice(1, 7)  # at the border, padding stands beside the image
    torch.testing.assert_close(
        found.mask_logits[:, inner, inner], expected[:, inner, inner]
    )
    assert found.img_shape == (32, 32)
    assert found.class_logits is view.segments.class_logits


@pytest.mark.parametrize('merge', ['match', 'query'])
def test_one_view_is_not_changed(merge):
    given = segments(torch.randn(5, 8, 8))
    found = merge_views([View(given)], merge)
    assert torch.equal(found.mask_logits, given.mask_logits)
    assert torch.equal(found.class_logits, given.class_logits)
    twice = merge_views([View(given), View(given)], merge)
    assert torch.equal(twice.mask_logits, given.mask_logits)
    assert torch.equal(twice.class_logits, given.class_logits)


def test_queries_that_change_places_are_matched():
    """Other queries find the same objects in the mirror image."""
    masks = torch.full((4, 8, 8), -4.0)
    for i, mask in enumerate(masks):
        mask[2 * i : 2 * i + 2] = 4.0
    classes = 6.0 * torch.eye(4)
    order = torch.tensor([2, 0, 3, 1])
    first, other = (
        View(segments(m, c))
        for m, c in ((masks, classes), (masks[order] / 2, classes[order]))
    )
    found = merge_views([first, other], 'match')
    torch.testing.assert_close(found.mask_logits, 0.75 * masks)
    torch.testing.assert_close(found.class_logits, classes)
    by_number = merge_views([first, other], 'query')
    assert not torch.allclose(by_number.class_logits, classes)


def test_what_nothing_is_like_stays():
    masks = torch.full((2, 8, 8), -4.0)
    masks[0, :4] = masks[1, 4:] = 4.0
    classes = 6.0 * torch.eye(4)
    first = View(segments(masks, classes[:2]))
    # The same first object; the second is of another class.
    other = View(segments(masks / 2, torch.stack([classes[0], classes[3]])))
    found = merge_views([first, other])
    torch.testing.assert_close(found.mask_logits[0], 0.75 * masks[0])
    assert torch.equal(found.mask_logits[1], masks[1])
    assert torch.equal(found.class_logits[1], classes[1])


def test_similarity_and_matching_against_a_plain_loop():
    for seed in range(20):
        torch.manual_seed(seed)
        one, other = ((2 * torch.randn(k, 5), torch.randn(k, 6, 6)) for k in (4, 7))
        found = similarity(one, other)
        expected = np.zeros((4, 7))
        for i in range(4):
            for j in range(7):
                a, b = one[1][i] > 0, other[1][j] > 0
                iou = (a & b).sum() / (a | b).sum()
                p, q = one[0][i].softmax(0), other[0][j].softmax(0)
                expected[i, j] = iou * torch.minimum(p, q).sum()
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
        merged = merge_views(
            [View(segments(m, c)) for c, m in (one, other)], 'match', 0.2
        )
        rows, cols = linear_sum_assignment(-expected)
        for i, j in zip(rows, cols, strict=True):
            mean = one[0][i]
            if expected[i, j] >= 0.2:
                mean = (mean + other[0][j]) / 2
            torch.testing.assert_close(merged.class_logits[i], mean)


def build(kind='match', **changes):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    module = MODELS.build(config(**changes))
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    # Queries that differ from each other.
    torch.nn.init.normal_(module.backbone.queries, std=5)
    torch.nn.init.ones_(module.backbone.norm.weight)
    torch.nn.init.normal_(module.panoptic_head.mask_mlp[-1].weight, std=2)
    plain = copy.deepcopy(module).eval()
    tta = dict(type='eomt_mm.EoMTDetTTAModel', merge=kind)
    return plain, MODELS.build(tta | dict(module=module)).eval()


def views_of(*shapes, flips=(None,)):
    """Views come first, then images, as `TestTimeAug` and the loader give them."""
    batch = dict(inputs=[], data_samples=[])
    for flip in flips:
        one = batch_of(*shapes)
        if flip:
            one['inputs'] = [image.flip(AXES[flip]) for image in one['inputs']]
        for sample in one['data_samples']:
            sample.set_metainfo(dict(flip=bool(flip), flip_direction=flip))
        for key in batch:
            batch[key].append(one[key])
    return batch


@pytest.mark.parametrize('merge', ['match', 'query'])
@pytest.mark.parametrize('flips', [(None,), (None, None)])
def test_views_that_are_the_image_itself_change_nothing(merge, flips):
    plain, tta = build(merge)
    shapes = [(32, 20), (17, 32), (32, 32)]
    with torch.no_grad():
        expected = plain.test_step(batch_of(*shapes))
        results = tta.test_step(views_of(*shapes, flips=flips))
    assert len(results) == len(shapes)
    for found, single in zip(results, expected, strict=True):
        assert isinstance(found, DetDataSample) and 'query_logits' not in found
        ids = single.pred_panoptic_seg.sem_seg
        assert torch.equal(found.pred_panoptic_seg.sem_seg, ids)
        for key in ('masks', 'scores', 'labels', 'bboxes'):
            assert torch.equal(found.pred_instances[key], single.pred_instances[key])


def test_the_mirror_image_has_the_mirrored_result():
    """Flipping the photo changes the order of the two views and nothing else."""
    _, tta = build('query')
    image = photo(32, 32)
    results = []
    for first in (image, image.flip(2)):
        batch = views_of((32, 32), flips=(None, 'horizontal'))
        batch['inputs'] = [[first], [first.flip(2)]]
        with torch.no_grad():
            (found,) = tta.test_step(batch)
        results.append(found.pred_instances)
    one, other = results
    assert one.masks.any() and not one.masks.all()
    differing = (one.masks != other.masks.flip(2)).float().mean()
    assert differing < 1e-3  # up to rounding at borders
    torch.testing.assert_close(one.scores, other.scores, atol=1e-3, rtol=0)


def test_two_different_views_change_the_result():
    plain, tta = build('query')
    with torch.no_grad():
        (single,) = plain.test_step(batch_of((32, 32)))
        (found,) = tta.test_step(views_of((32, 32), flips=(None, 'vertical')))
    assert not torch.equal(found.pred_instances.scores, single.pred_instances.scores)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(merge='mean'), r"merge is 'mean', expected one of \('match', 'query'\)"),
        (dict(match_thr=2), 'match_thr is 2, expected a similarity from 0 to 1'),
        (dict(match_thr=True), 'match_thr is True, expected a similarity from 0 to 1'),
        (dict(module=torch.nn.Identity()), 'must implement `test_step`'),
    ],
)
def test_bad_options(options, message):
    init_default_scope('mmdet')
    given = dict(type='eomt_mm.EoMTDetTTAModel', module=config()) | options
    with pytest.raises((UserError, AssertionError), match=message):
        MODELS.build(given)


def test_tiles_are_not_merged_as_views():
    init_default_scope('mmdet')
    module = config(test_cfg=dict(tiles=dict()))
    with pytest.raises(UserError, match='augmentation with test_cfg.tiles'):
        MODELS.build(dict(type='eomt_mm.EoMTDetTTAModel', module=module))


def test_other_detectors_are_refused():
    class Other(torch.nn.Module):
        def test_step(self, data):
            return data

    init_default_scope('mmdet')
    with pytest.raises(UserError, match='detectors of eomt_mm, not of Other'):
        MODELS.build(dict(type='eomt_mm.EoMTDetTTAModel', module=Other()))
