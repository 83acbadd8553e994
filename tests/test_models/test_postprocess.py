"""Post-processing against a literal transcription and MMDet's fusion head."""

import warnings
from copy import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from eomt_mm.models import blocks, postprocess
from eomt_mm.models.postprocess import instance_result, panoptic_result
from eomt_mm.registry import has_mmdet

THINGS, CLASSES = 3, 5
VOID = CLASSES


def resize(masks, img_shape, input_size, ori_shape):
    """All masks to the original size: input, without padding, original."""
    masks = F.interpolate(masks[:, None], input_size, mode='bilinear')
    masks = masks[:, :, : img_shape[0], : img_shape[1]]
    return F.interpolate(masks, ori_shape, mode='bilinear')[:, 0]


def plain_panoptic(classes, masks, num_things):
    """Mask2Former's rule, pixel by pixel; `masks` are at the original size."""
    void = classes.shape[1] - 1
    scores, labels = classes.softmax(-1).max(-1)
    kept = [
        k for k in range(len(scores)) if labels[k] != void and float(scores[k]) > 0.8
    ]
    result = torch.full(masks.shape[1:], void)
    if not kept:
        return result
    # Mask by mask: where a number lies in memory decides whether torch rounds its
    # sigmoid up or down, which would settle ties.
    probabilities = torch.stack([masks[k].sigmoid() for k in kept])
    votes = scores[kept][:, None, None] * probabilities
    owner = [[0] * masks.shape[2] for _ in range(masks.shape[1])]
    for y in range(masks.shape[1]):
        for x in range(masks.shape[2]):
            column = votes[:, y, x].tolist()
            owner[y][x] = column.index(max(column))
    owner = torch.tensor(owner)
    instances = 0
    for i, k in enumerate(kept):
        inside = probabilities[i] >= 0.5
        new, original = int((owner == i).sum()), int(inside.sum())
        if new == 0 or original == 0 or new / original < 0.8:
            continue
        label = int(labels[k])
        instances += label < num_things
        number = instances if label < num_things else 0
        result[(owner == i) & inside] = label + 1000 * number
    return result


def plain_instances(classes, masks, num_things, max_per_image):
    """A list of (label, score, query) and their masks, best class score first."""
    scores = classes.softmax(-1)[:, :-1]
    order = scores.flatten().argsort(descending=True, stable=True)[:max_per_image]
    found = []
    for pair in order.tolist():
        query, label = divmod(pair, scores.shape[1])
        if label >= num_things:
            continue
        mask = masks[query] > 0
        inside = masks[query].sigmoid()[mask].double().sum() / (mask.sum() + 1e-6)
        found.append((label, float(scores[query, label] * inside), mask))
    return found


def fusion_head(case, panoptic=True, max_per_image=100):
    from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
    from mmengine.config import ConfigDict

    num_classes = case.classes.shape[1] - 1
    head = MaskFormerFusionHead(
        case.num_things,
        num_classes - case.num_things,
        test_cfg=ConfigDict(
            panoptic_on=panoptic,
            instance_on=not panoptic,
            filter_low_score=True,
            object_mask_thr=0.8,
            iou_thr=0.8,
            max_per_image=max_per_image,
        ),
    )
    sample = SimpleNamespace(
        metainfo=dict(img_shape=case.img_shape, ori_shape=case.ori_shape)
    )
    masks = F.interpolate(case.masks[:, None], case.input_size, mode='bilinear')
    masks = masks.transpose(0, 1)
    (result,) = head.predict(case.classes[None], masks, [sample], rescale=True)
    return result['pan_results'].sem_seg[0] if panoptic else result['ins_results']


def make_case(
    classes, masks, img_shape=None, input_size=None, ori_shape=None, num_things=THINGS
):
    size = tuple(masks.shape[1:])
    return SimpleNamespace(
        classes=classes,
        masks=masks,
        img_shape=img_shape or input_size or size,
        input_size=input_size or size,
        ori_shape=ori_shape or img_shape or input_size or size,
        num_things=num_things,
    )


def arguments(case):
    return (
        case.classes,
        case.masks,
        case.img_shape,
        case.input_size,
        case.ori_shape,
        case.num_things,
    )


def logits_of(labels, confidence=8.0, num_classes=CLASSES):
    """Class logits (K, num_classes + 1) that speak for these labels."""
    return confidence * F.one_hot(torch.tensor(labels), num_classes + 1).float()


def random_case(seed):
    """Blobs of all kinds, with repeated queries and whole-number logits for ties."""
    generator = torch.Generator().manual_seed(seed)

    def integer(low, high):
        return int(torch.randint(low, high + 1, (1,), generator=generator))

    queries, size = integer(1, 12), (integer(1, 6), integer(1, 6))
    labels = torch.randint(0, CLASSES + 1, (queries,), generator=generator).tolist()
    confidence = torch.randint(1, 7, (queries, 1), generator=generator) * 1.5
    classes = logits_of(labels, 1.0) * confidence
    masks = torch.randn(queries, *size, generator=generator) * 4 ** integer(0, 2)
    masks += torch.randn(queries, 1, 1, generator=generator) * 4
    if integer(0, 1):
        masks = masks.round()
    if integer(0, 1):  # ties
        copies = torch.randint(0, queries, (queries,), generator=generator)
        masks = masks[copies]
        confident = integer(0, 1)
        classes = classes[copies] if confident else classes
    input_size = (integer(size[0], 12), integer(size[1], 12))
    return make_case(
        classes,
        masks,
        img_shape=(integer(1, input_size[0]), integer(1, input_size[1])),
        input_size=input_size,
        ori_shape=(integer(1, 15), integer(1, 15)),
        num_things=integer(0, CLASSES),
    )


def rectangle(*boxes, size=(8, 8), inside=6.0, outside=-6.0):
    """Mask logits (K, H, W), one rectangle (y1, x1, y2, x2) each."""
    masks = torch.full((len(boxes), *size), outside)
    for mask, (y1, x1, y2, x2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = inside
    return masks


WHOLE, LEFT, RIGHT = (0, 0, 8, 8), (0, 0, 8, 4), (0, 4, 8, 8)


def vanishing_case():
    """Query 0 owns nine pixels, none of which is inside its mask."""
    masks = torch.full((3, 2, 5), -9.0)
    masks[0] = -0.2
    masks[0, 0, 0] = 0.4
    masks[1, 0, 0] = 9.0
    return make_case(logits_of([0, 1, 2]), masks)


def many_segments():
    masks = torch.full((256, 256), -5.0).fill_diagonal_(5.0).view(256, 16, 16)
    labels = [k % CLASSES for k in range(256)]
    return make_case(logits_of(labels), masks)


SPECIAL = {
    'none kept by score': make_case(logits_of([0, 1], 1.0), rectangle(LEFT, RIGHT)),
    'no object': make_case(logits_of([CLASSES] * 2), rectangle(LEFT, RIGHT)),
    'all kept': make_case(logits_of([0, 4]), rectangle(LEFT, RIGHT)),
    'one query': make_case(logits_of([1]), rectangle(LEFT)),
    'one segment over the whole image': make_case(logits_of([4]), rectangle(WHOLE)),
    'all void': make_case(logits_of([0, 1]), rectangle((0,) * 4, (0,) * 4)),
    'equal queries': make_case(logits_of([1, 1]), rectangle(WHOLE, WHOLE)),
    'tie of two classes': make_case(logits_of([2, 1]), rectangle(WHOLE, WHOLE)),
    'loser of the overlap': make_case(
        logits_of([0, 1], 8.0) * torch.tensor([[0.8], [1.0]]), rectangle(WHOLE, LEFT)
    ),
    'stuff merges': make_case(logits_of([3, 3]), rectangle(LEFT, RIGHT)),
    'vanishing after the overlap': vanishing_case(),
    'a hair below zero': make_case(logits_of([0]), torch.full((1, 4, 4), -1e-9)),
    'exactly zero': make_case(logits_of([0]), torch.zeros(1, 4, 4)),
    'overflowing': make_case(logits_of([0, 1], 80.0), rectangle(LEFT, RIGHT) * 1e4),
    'one pixel': make_case(logits_of([0, 1]), torch.tensor([2.0, 1.0]).view(2, 1, 1)),
    'one pixel of a larger input': make_case(
        logits_of([0]), rectangle(LEFT), (1, 1), (32, 32), (1, 1)
    ),
    'shrunk to one pixel': make_case(
        logits_of([0, 3]), rectangle(LEFT, RIGHT), (20, 32), (32, 32), (1, 1)
    ),
    'a single line': make_case(
        logits_of([0, 3]), rectangle(LEFT, RIGHT), (3, 32), (32, 32), (1, 40)
    ),
    'more than 200 segments': many_segments(),
}


def check_panoptic(case):
    result = panoptic_result(*arguments(case))
    assert result.dtype == torch.int64
    masks = resize(case.masks, case.img_shape, case.input_size, case.ori_shape)
    assert torch.equal(result, plain_panoptic(case.classes, masks, case.num_things))
    return result


def check_instances(case, max_per_image):
    result = instance_result(*arguments(case), max_per_image=max_per_image)
    masks = resize(case.masks, case.img_shape, case.input_size, case.ori_shape)
    expected = plain_instances(case.classes, masks, case.num_things, max_per_image)
    assert len(result.scores) == len(expected)
    remaining = list(range(len(result.scores)))  # neither order is defined
    for label, score, mask in expected:
        match = next(
            i
            for i in remaining
            if result.labels[i] == label
            and abs(float(result.scores[i]) - score) < 1e-6
            and torch.equal(result.masks[i], mask)
        )
        remaining.remove(match)
        ys, xs = mask.nonzero(as_tuple=True)
        box = [0, 0, 0, 0]
        if len(ys):
            box = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
        assert result.boxes[match].tolist() == [float(side) for side in box]
    return result


@pytest.mark.parametrize('name', SPECIAL)
def test_panoptic_special_cases(name):
    case = SPECIAL[name]
    result = check_panoptic(case)
    segments = set(result.unique().tolist()) - {VOID}
    expected = {
        'none kept by score': set(),
        'no object': set(),
        'all kept': {1000, 4},
        'all void': set(),
        'tie of two classes': {1002},
        'loser of the overlap': {1001},
        'stuff merges': {3},
        'vanishing after the overlap': {2001},  # 0 was counted, as MMDet does
        'a hair below zero': {1000},
        'exactly zero': {1000},
        'one segment over the whole image': {4},
    }
    assert segments == expected.get(name, segments)
    if name == 'more than 200 segments':
        things = [k for k in range(256) if k % CLASSES < THINGS]
        assert len(segments) == len(things) + CLASSES - THINGS


@pytest.mark.parametrize('max_per_image', [1, 7, 100])
@pytest.mark.parametrize('name', SPECIAL)
def test_instance_special_cases(name, max_per_image):
    case = copy(SPECIAL[name])
    # Without ties in class scores: which of several equals is among the best is open.
    tilt = torch.linspace(0, 0.5, case.classes.numel())
    case.classes = case.classes + tilt.view_as(case.classes)
    check_instances(case, max_per_image)


def random_cases(count):
    kinds = dict.fromkeys(('void', 'thing', 'stuff', 'instances', 'empty mask'), 0)
    for seed in range(count):
        case = random_case(seed)
        result = check_panoptic(case)
        kinds['void'] += bool((result == VOID).all())
        kinds['thing'] += bool((result > 1000).any())
        kinds['stuff'] += bool((result < VOID).any())
        found = check_instances(case, 1000)
        kinds['instances'] += len(found.labels) > 0
        kinds['empty mask'] += bool((~found.masks.flatten(1).any(1)).any())
    assert min(kinds.values()) > count / 50, kinds


def test_random_cases():
    random_cases(200)


@pytest.mark.slow
def test_many_random_cases():
    random_cases(10_000)


@pytest.mark.skipif(not has_mmdet(), reason='needs MMDetection')
@pytest.mark.parametrize('name', [*SPECIAL, *range(100)])
def test_same_as_mmdet(name):
    case = random_case(name) if isinstance(name, int) else SPECIAL[name]
    theirs = fusion_head(case)
    assert torch.equal(panoptic_result(*arguments(case)), theirs.long())

    best = min(7, case.classes[:, 1:].numel())
    theirs = fusion_head(case, panoptic=False, max_per_image=best)
    ours = instance_result(*arguments(case), max_per_image=best)
    assert torch.equal(ours.labels, theirs.labels)  # even in the same order
    assert torch.equal(ours.masks, theirs.masks)
    assert torch.equal(ours.boxes, theirs.bboxes)
    torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize('band', [1, 7, 40])
def test_bands_change_nothing(monkeypatch, band):
    cases = [random_case(seed) for seed in range(50)]
    expected = [panoptic_result(*arguments(case)) for case in cases]
    monkeypatch.setattr(blocks, 'BAND', band)
    for case, result in zip(cases, expected, strict=True):
        assert torch.equal(panoptic_result(*arguments(case)), result)


def test_thresholds_are_options():
    """Class scores 0.5 and 0.9; the better one covers half of the other."""
    classes = torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.9, 0.1]]).clamp(min=1e-9).log()
    classes[0, 0] += 1e-3
    masks = rectangle(WHOLE, LEFT)
    size = (8, 8)

    def segments(**options):
        result = panoptic_result(classes, masks, size, size, size, 2, **options)
        return set(result.unique().tolist()) - {2}

    assert segments() == {1001}
    assert segments(score_thr=0.95) == set()
    assert segments(score_thr=0.4) == {1001}
    assert segments(score_thr=0.4, overlap_thr=0.5) == {1000, 2001}


def test_each_query_is_resized_once(monkeypatch):
    resized = []
    original = postprocess._resize

    def record(masks, *sizes):
        resized.extend(masks)
        return original(masks, *sizes)

    monkeypatch.setattr(postprocess, '_resize', record)
    case = random_case(1)
    result = instance_result(*arguments(case))
    assert len(resized) <= len(case.classes) < len(result.labels)
    resized.clear()
    panoptic_result(*arguments(SPECIAL['none kept by score']))
    assert not resized


def test_encoded_masks():
    case = SPECIAL['all kept']
    plain = instance_result(*arguments(case))
    encoded = instance_result(
        *arguments(case), encode=lambda masks: masks.sum((1, 2)).tolist()
    )
    assert encoded.masks == plain.masks.sum((1, 2)).tolist()
    assert torch.equal(encoded.scores, plain.scores)
    assert torch.equal(encoded.boxes, plain.boxes)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_resized_in_fp32(dtype):
    case = random_case(2)
    case.classes, case.masks = case.classes.to(dtype), case.masks.to(dtype)
    half = panoptic_result(*arguments(case)), *instance_result(*arguments(case))
    case.classes, case.masks = case.classes.float(), case.masks.float()
    full = panoptic_result(*arguments(case)), *instance_result(*arguments(case))
    assert all(map(torch.equal, half, full))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_synchronisations_do_not_grow_with_the_queries():
    def count(queries, function):
        masks = torch.randn(queries, 16, 16, device='cuda')
        classes = logits_of([k % CLASSES for k in range(queries)]).cuda()
        torch.cuda.set_sync_debug_mode('warn')
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter('always')
                function(classes, masks, (60, 64), (64, 64), (90, 96), THINGS)
        finally:
            torch.cuda.set_sync_debug_mode('default')
        return sum('synchroniz' in str(warning.message) for warning in caught)

    for function in (panoptic_result, instance_result):
        assert count(20, function) == count(2, function) <= 6
