"""The naive version is EoMT; what counts as the same."""

import pytest
import torch

from eomt_mm.models.postprocess import instance_result, panoptic_result
from eomt_mm.models.windows import class_map, resized_argmax
from measuring import core, inputs
from measuring.check import compare
from measuring.limit import matmul_rate
from measuring.naive import NaiveEoMT, naive_instances, naive_panoptic, naive_semantic

SIZES = ((48, 64), (64, 64), (90, 120))


@pytest.fixture
def network():
    return inputs.build_network('T', 64, 10)


@pytest.mark.parametrize('prob', [0.0, 0.5, 1.0])
def test_networks_agree(network, prob):
    backbone, head = network
    images = inputs.photographs(2, 64)
    backbone.mask_probs = [prob, prob]
    naive = NaiveEoMT(backbone, head)
    with torch.no_grad():
        torch.manual_seed(0)
        ours = backbone.forward_masked(images, head)
        torch.manual_seed(0)
        theirs = naive.forward_masked(images)
        for one, other in zip(ours, theirs, strict=True):
            assert compare(one, other).same
        assert compare(naive(images), head(*backbone(images))).same
    changed = not compare(ours[-1], head(*backbone(images))).same
    assert changed == (prob > 0), 'masks must have an effect'


@pytest.mark.parametrize('phase', core.PHASES)
def test_gradients_agree(phase):
    case = core.Case(f'train {phase}', 'T', 128, 2, 10, 3, (48, 64))
    ours, naive = (
        core.prepare(case, core.Contender(who, 'fp32'), torch.device('cpu'))()
        for who in ('ours', 'naive')
    )
    text, same = compare(naive, ours)
    assert same and 'gradients within' in text


@pytest.mark.parametrize('kept', [0, 3, 10])
def test_results_agree(kept):
    classes, masks = inputs.class_logits(10, kept), inputs.mask_logits(10, 16)
    segments = panoptic_result(classes, masks, *SIZES, inputs.THINGS)
    found = compare(naive_panoptic(classes, masks, *SIZES, inputs.THINGS), segments)
    assert found.text.startswith('equal')
    assert (len(segments.unique()) > 1) == (kept > 0)
    ours = instance_result(classes, masks, *SIZES, inputs.THINGS)
    assert compare(naive_instances(classes, masks, *SIZES, inputs.THINGS), ours).same
    _, size, shape = SIZES
    ours = resized_argmax(class_map(classes, masks, size), shape)
    assert compare(naive_semantic(classes, masks, size, shape), ours).same


def test_made_up_class_heads_find_as_much_as_asked_for():
    backbone, head = inputs.shared_network('T', 64, 10, 4, torch.device('cpu'))
    with torch.no_grad():
        classes, _ = head(*backbone(inputs.photographs(1, 64)))
    scores, labels = classes[0].softmax(-1).max(-1)
    assert ((labels != inputs.CLASSES) & (scores > 0.8)).sum() == 4


def test_logits_are_compared_by_the_largest_value():
    classes, masks = torch.randn(1, 3, 5), torch.randn(1, 3, 8, 8)
    assert compare((classes, masks), (classes, masks)) == ('equal', True)
    assert compare((classes, masks * (1 + 1e-6)), (classes, masks)).same
    off = masks.clone()
    off[0, 0, 0, 0] += 1e-4 * masks.abs().max()
    agreement = compare((classes, off), (classes, masks))
    assert not agreement.same and agreement.text.startswith('within 1e-04')


def test_instances_are_compared_in_any_order():
    classes, masks = inputs.class_logits(6, 3), inputs.mask_logits(6, 16)
    found = instance_result(classes, masks, *SIZES, inputs.THINGS, max_per_image=20)
    turned = type(found)(*(part.flip(0) for part in found))
    assert compare(turned, found).same
    other = found._replace(masks=~found.masks)
    assert compare(other, found) == ('masks differ', False)


@pytest.mark.parametrize(
    ('size', 'side', 'queries', 'published'),
    [('S', 640, 200, 68), ('B', 640, 200, 216), ('L', 640, 200, 669)],
)
def test_operations_are_those_of_the_paper(size, side, queries, published):
    """arXiv 2503.19108, Tables 1 and 3."""
    case = core.Case('network', size, side, 1, queries, 0, (48, 64))
    assert core.giga_operations(case) == pytest.approx(published, rel=5e-3)


def test_rate_of_the_device(monkeypatch):
    monkeypatch.setattr('measuring.limit.SIDES', {'cpu': 64})
    assert 1e6 < matmul_rate(torch.float32, torch.device('cpu')) < 1e13
