"""Metrics from histograms against scikit-learn and the published definitions."""

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine import dist

from eomt_mm.errors import UserError
from eomt_mm.evaluation.confidence import (
    calibration_error,
    harmonic_mean,
    histogram,
    levels,
    mean_iou,
    misclassification,
    ranking,
    unknown,
)
from eomt_mm.evaluation.ood import ConfidenceMetric, OODMetric

METRICS = pytest.importorskip('sklearn.metrics')
TOLERANCE = 1e-3


def maps(kind, seed=0, size=20000):
    rng = np.random.default_rng(seed)
    label = rng.random(size) < 0.1
    if kind == 'ties':
        return label, rng.integers(0, 5, size) / 4
    if kind == 'constant':
        return label, np.full(size, 0.3)
    if kind == 'sure':  # as of a trained network: most close to 1
        return label, np.clip(1 - rng.exponential(0.01 + 0.3 * label), 0, 1)
    if kind == 'rare':
        return np.arange(size) == 7, rng.random(size)
    return label, np.clip(rng.normal(0.7 - 0.3 * label, 0.2), 0, 1)


def hold(kind, what, pairs):
    """Print the largest difference of five seeds (`pytest -s`), and bound it."""
    worst = {
        name: max(abs(found[name] - expected[name]) for found, expected in pairs)
        for name in pairs[0][0]
    }
    print(f'\n{kind}, {what}: {", ".join(f"{k} {v:.1e}" for k, v in worst.items())}')
    assert max(worst.values()) <= TOLERANCE


@pytest.mark.parametrize('kind', ['normal', 'ties', 'constant', 'sure', 'rare'])
def test_unknown_objects_as_scikit_learn(kind):
    pairs = []
    for outside, confidence in (maps(kind, seed) for seed in range(5)):
        found = unknown(histogram(confidence[~outside]), histogram(confidence[outside]))
        rate, recall, _ = METRICS.roc_curve(outside, 1 - confidence)
        expected = dict(
            AUROC=METRICS.roc_auc_score(outside, 1 - confidence),
            AUPRC=METRICS.average_precision_score(outside, 1 - confidence),
            FPR95=rate[np.argmax(recall >= 0.95)],
        )
        pairs.append((found, expected))
    hold(kind, 'unknown objects', pairs)


@pytest.mark.parametrize('kind', ['normal', 'ties', 'constant', 'sure', 'rare'])
def test_errors_as_scikit_learn_and_as_published(kind):
    pairs = []
    for wrong, confidence in (maps(kind, seed) for seed in range(5)):
        found = misclassification(
            histogram(confidence[~wrong]), histogram(confidence[wrong])
        )
        rate, recall, _ = METRICS.roc_curve(~wrong, confidence)
        # The calibration error in plain NumPy, pixel by pixel.
        bins = np.minimum((confidence * 15).astype(int), 14)
        gaps = [
            (bins == i).mean()
            * abs((~wrong)[bins == i].mean() - confidence[bins == i].mean())
            for i in np.unique(bins)
        ]
        expected = dict(
            ECE=sum(gaps),
            AUROC=METRICS.roc_auc_score(~wrong, confidence),
            FPR95=rate[np.argmax(recall >= 0.95)],
            AUPR_success=METRICS.average_precision_score(~wrong, confidence),
            AUPR_error=METRICS.average_precision_score(wrong, -confidence),
        )
        pairs.append((found, expected))
    hold(kind, 'errors', pairs)


def test_one_kind_of_pixels_or_none():
    some, none = histogram(np.array([0.2, 0.4])), histogram(np.array([]))
    nothing = dict(AUROC=np.nan, AUPRC=np.nan, FPR95=np.nan)
    assert ranking(none, none) == pytest.approx(nothing, nan_ok=True)
    assert ranking(none, some) == pytest.approx(nothing, nan_ok=True)
    assert ranking(some, none) == pytest.approx({**nothing, 'AUPRC': 1.0}, nan_ok=True)
    assert np.isnan(calibration_error(none, none))
    assert np.isnan(mean_iou(np.zeros((3, 3))))


def test_levels_are_those_of_a_png():
    assert levels(np.array([0, 0.5, 1 - 1e-9, 1])).tolist() == [0, 32768, 65535, 65535]
    for wrong in (np.array([1.1]), np.array([-0.1]), np.array([np.nan])):
        with pytest.raises(UserError, match='expected 0 to 1'):
            levels(wrong)


def test_harmonic_mean():
    assert harmonic_mean([0.5, 1.0]) == pytest.approx(2 / 3)
    assert harmonic_mean([0.5, 0.0]) == 0
    assert np.isnan(harmonic_mean([0.5, np.nan]))


def samples(number, metric):
    """Data samples as the evaluator passes them, with void."""
    for i in range(number):
        rng = np.random.default_rng(i)
        labels = rng.integers(0, 2, (6, 8))
        labels[0] = 255
        yield dict(
            img_path=f'/data/{"fog" if i % 3 else "night"}/{i}.png',
            gt_sem_seg=dict(data=torch.from_numpy(labels)[None]),
            pred_sem_seg=dict(data=torch.from_numpy(rng.integers(0, 2, (1, 6, 8)))),
            confidence=dict(data=torch.from_numpy(rng.random((1, 6, 8)))),
        )


def measure(kind, number, rank=0, world=1):
    """Measure this process's share, dealt as MMEngine's sampler deals it."""
    metric = kind(sets=dict(fog='/fog/', night='/night/', snow='/snow/'))
    metric.dataset_meta = dict(classes=('a', 'b'))
    dealt = list(samples(number, metric))
    each = -(-number // world)
    dealt = (dealt + dealt)[: each * world][rank::world]
    for sample in dealt:
        metric.process({}, [sample])
    return metric.evaluate(number)


def _in_a_process(rank, folder):
    torch.distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/meeting', rank=rank, world_size=2
    )
    found = [measure(kind, 5, rank, 2) for kind in (OODMetric, ConfidenceMetric)]
    if dist.get_rank() == 0:
        torch.save(found, f'{folder}/found.pt')
    dist.barrier()


def test_two_processes_give_what_one_gives(tmp_path):
    mp.spawn(_in_a_process, (str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / 'found.pt', weights_only=False)
    expected = [measure(kind, 5) for kind in (OODMetric, ConfidenceMetric)]
    assert found == expected  # 5 images: the sampler sees one of them twice


def test_sets_and_the_pool():
    found = measure(ConfidenceMetric, 5)
    assert {name.split('/')[1] for name in found if name.count('/') == 2} == {
        'fog',
        'night',
    }
    labels, sure, right = [], [], []
    for sample in samples(5, None):
        known = sample['gt_sem_seg']['data'][0] != 255
        labels.append(sample['gt_sem_seg']['data'][0][known])
        right.append((sample['pred_sem_seg']['data'][0][known] == labels[-1]).numpy())
        sure.append(sample['confidence']['data'][0][known].numpy())
    expected = METRICS.roc_auc_score(np.concatenate(right), np.concatenate(sure))
    assert found['confidence/AUROC'] == pytest.approx(100 * expected, abs=0.1)


def test_other_labels_and_missing_maps_are_refused():
    metric = OODMetric()
    (sample,) = samples(1, metric)
    sample['gt_sem_seg']['data'][0, 2, 2] = 7
    with pytest.raises(UserError, match='value 7, expected 0 .known.'):
        metric.process({}, [sample])
    del sample['confidence']
    with pytest.raises(UserError, match=r'test_cfg\.confidence'):
        metric.process({}, [sample])
    with pytest.raises(UserError, match='no image'):
        OODMetric().evaluate(0)


def test_a_set_with_the_name_of_the_pool_is_refused():
    with pytest.raises(UserError, match="sets of OODMetric has 'all'"):
        OODMetric(sets=dict(all='/fog/', night='/night/'))


def test_sizes_that_differ_are_refused():
    (sample,) = samples(1, None)
    sample['confidence'] = dict(data=torch.rand(1, 3, 8))
    with pytest.raises(UserError, match='size of the original'):
        OODMetric().process({}, [sample])


def test_images_of_no_set_are_left_out():
    """So that one test measures known and unknown scenes, each by its metric."""
    fog, both = ConfidenceMetric(sets=dict(fog='/fog/'), prefix='a'), ConfidenceMetric()
    for metric in (fog, both):
        metric.dataset_meta = dict(classes=('a', 'b'))
    for sample in samples(5, None):  # the last is of the fog
        fog.process({}, [sample])
        if '/fog/' in sample['img_path']:
            both.process({}, [sample])
    found, expected = fog.evaluate(5), both.evaluate(3)
    for name in ('mIoU', 'AUROC', 'ECE'):
        assert found[f'a/{name}'] == found[f'a/fog/{name}']
        assert found[f'a/{name}'] == expected[f'confidence/{name}']
    nothing = OODMetric(sets=dict(snow='/snow/'))
    nothing.process({}, list(samples(5, None)))
    with pytest.raises(UserError, match='no image with /snow/ was evaluated'):
        nothing.evaluate(5)
