"""Submissions and their metrics against what the challenge's toolkit expects.

The tables are the toolkit's (valeoai/bravo_challenge, bravo_tarfile.py); the metrics
are its definitions, written down with scikit-learn, on every pixel.
"""

import cv2
import numpy as np
import pytest
from bravo_trees import write_noise, write_tree
from PIL import Image

from eomt_mm.datasets.bravo import SUBSETS, images_of
from eomt_mm.errors import UserError
from eomt_mm.evaluation.bravo import evaluate, save_pair

METRICS = pytest.importorskip('sklearn.metrics')

# Endings of prediction, semantic map and mask in each folder `bravo_NAME`.
DRIVING = ('_leftImg8bit_pred.png', '_gt_labelTrainIds.png', '_gt_invIds.png')
ENDINGS = {
    'ACDC': ('_rgb_anon_pred.png', *DRIVING[1:]),
    'SMIYC': ('_pred.png', '_labels_semantic_fake.png', '_labels_semantic.png'),
    'outofcontext': DRIVING,
    'synobjs': ('_pred.png', '_gt.png', '_mask.png'),
    'synflare': DRIVING,
    'synrain': DRIVING,
}
# What is measured; the third word says where unknown objects are looked for.
MEASURED = {
    'ACDCfog': ('ACDC', '/fog/', False),
    'ACDCrain': ('ACDC', '/rain/', False),
    'ACDCnight': ('ACDC', '/night/', False),
    'ACDCsnow': ('ACDC', '/snow/', False),
    'synrain': ('synrain', '', False),
    'SMIYC': ('SMIYC', '', True),
    'synobjs': ('synobjs', '', True),
    'synflare': ('synflare', '', False),
    'outofcontext': ('outofcontext', '', False),
}


@pytest.fixture
def trees(tmp_path):
    folders = [tmp_path / name for name in ('images', 'truth', 'out')]
    write_tree(*folders[:2])
    write_noise(*folders)
    return folders


def read(path, flag=cv2.IMREAD_GRAYSCALE):
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), flag)


def of_toolkit(name, truth, out):
    """All non-void pixels of a subset: label, invalid, prediction, confidence."""
    split, part, _ = MEASURED[name]
    prediction, semantic, mask = ENDINGS[split]
    columns = []
    for path in sorted((truth / f'bravo_{split}').rglob(f'*{semantic}')):
        if part not in str(path):
            continue
        base = str(path.relative_to(truth)).removesuffix(semantic)
        confidence = prediction.replace('_pred', '_conf')
        maps = [
            read(path),
            read(truth / f'{base}{mask}') != 0,
            read(out / f'{base}{prediction}'),
            read(out / f'{base}{confidence}', cv2.IMREAD_UNCHANGED),
        ]
        assert maps[3].dtype == np.uint16 and len({m.shape for m in maps}) == 1
        columns.append(np.stack([m[maps[0] != 255].astype(int) for m in maps]))
    return np.concatenate(columns, 1)


def ranked(positive, score):
    rate, recall, _ = METRICS.roc_curve(positive, score)
    return (
        METRICS.roc_auc_score(positive, score),
        METRICS.average_precision_score(positive, score),
        rate[np.argmax(recall >= 0.95)],
    )


def expected_of(name, truth, out):
    label, invalid, predicted, confidence = of_toolkit(name, truth, out)
    found = {}
    if name != 'SMIYC':
        keep = invalid == 0
        right = (label == predicted)[keep]
        sure, true, guess = confidence[keep], label[keep], predicted[keep]
        auroc, success, fpr = ranked(right, sure)
        centres = (sure + 0.5) / 65536
        bins = np.digitize(sure, np.linspace(0, 65536, 16).round()[1:-1])
        gaps = [
            (bins == i).mean()
            * abs(right[bins == i].mean() - centres[bins == i].mean())
            for i in np.unique(bins)
        ]
        found = dict(
            miou_valid=METRICS.jaccard_score(true, guess, average='macro'),
            ece_valid=sum(gaps),
            auroc_valid=auroc,
            fpr95_valid=fpr,
            auprc_success_valid=success,
            auprc_error_valid=METRICS.average_precision_score(~right, 65535 - sure),
        )
    if MEASURED[name][2]:
        names = ('auroc_ood', 'auprc_ood', 'fpr95_ood')
        found |= zip(names, ranked(invalid, 65535 - confidence), strict=True)
    return {f'{name}_{key}': value for key, value in found.items()}


def harmonic(values):
    return len(values) / sum(
        1 / (1 - v if '_ece_' in k or '_fpr95_' in k else v) for k, v in values.items()
    )


def test_all_metrics_are_those_of_the_toolkit(trees):
    images, truth, out = trees
    expected = {}
    for name in MEASURED:
        expected |= expected_of(name, truth, out)
    assert len(expected) == 8 * 6 + 2 * 3
    means = {
        f'{name}_hmean': harmonic(
            {k: v for k, v in expected.items() if k.startswith(f'{name}_')}
        )
        for name in MEASURED
    }
    for kind, ending in (('semantic', '_valid'), ('ood', '_ood')):
        some = {k: v for k, v in expected.items() if k.endswith(ending)}
        means[f'{kind}_hmean'] = harmonic(some)
    pair = means['semantic_hmean'], means['ood_hmean']
    means['bravo_index'] = 2 / (1 / pair[0] + 1 / pair[1])
    found = evaluate(images, out, truth)
    assert found == pytest.approx(expected | means, abs=1e-12)


def test_names_are_those_of_the_toolkit(trees):
    images, truth, out = trees
    assert {f'bravo_{split}' for split in ENDINGS} == {p.name for p in out.iterdir()}
    written = {str(path.relative_to(out)) for path in out.rglob('*.png')}
    found = set()
    for split, (prediction, *_) in ENDINGS.items():
        own = {n for n in written if n.startswith(f'bravo_{split}/')}
        for name in own:
            if name.endswith(prediction):
                found |= {name, name.replace('_pred.png', '_conf.png')}
    assert found == written and len(found) == 2 * len(images_of(images))
    for name, (split, part, unknown) in MEASURED.items():
        subset = SUBSETS[name]
        assert (f'{subset.stem}_pred.png', subset.labels, subset.mask) == ENDINGS[split]
        assert f'{subset.folder}/' == f'bravo_{split}/{part.lstrip("/")}'
        assert (subset.ood, subset.semantic) == (unknown, name != 'SMIYC')


def test_one_tree_for_images_truth_and_submission(trees):
    """What is written is not taken for an image in the next call."""
    images, truth, out = trees
    listed = images_of(images)
    expected = evaluate(images, out, truth)
    write_tree(images, images)
    write_noise(images, truth, images)
    assert images_of(images) == listed
    assert evaluate(images, images, images) == expected


def test_a_pair_as_opencv_reads_it(tmp_path):
    """Its toolkit reads predictions as grey and confidence as it is stored."""
    pair = tmp_path / 'a_pred.png', tmp_path / 'a_conf.png'
    predicted = np.arange(19).reshape(1, 19)
    confidence = np.linspace(0, 1, 19, dtype=np.float32).reshape(1, 19)
    save_pair(pair, predicted, confidence)
    grey, sure = read(pair[0]), read(pair[1], cv2.IMREAD_UNCHANGED)
    assert grey.dtype == np.uint8 and (grey == predicted).all()
    assert sure.dtype == np.uint16 and sure.shape == (1, 19)
    expected = np.minimum(np.floor(confidence.astype(float) * 65536), 65535)
    assert (sure == expected).all()


@pytest.mark.parametrize('what', ['image', 'prediction', 'confidence', 'truth'])
@pytest.mark.parametrize('fault', ['short', 'garbled', 'text', 'empty'])
def test_files_that_cannot_be_read(trees, what, fault):
    images, truth, out = trees
    base = 'bravo_synobjs/town/synobjs_1'
    path = dict(
        image=images / f'{base}.png',
        prediction=out / f'{base}_pred.png',
        confidence=out / f'{base}_conf.png',
        truth=truth / f'{base}_mask.png',
    )[what]
    whole = path.read_bytes()
    path.write_bytes(
        dict(
            short=whole[: len(whole) // 2],
            garbled=whole[:45] + whole[45:][::-1],
            text=b'not an image',
            empty=b'',
        )[fault]
    )
    if what == 'image' and fault in ('short', 'garbled'):
        evaluate(images, out, truth)  # its size is all that counts
        return
    with pytest.raises(UserError, match=f'{path.name} cannot be read'):
        evaluate(images, out, truth)


def test_one_pixel_tells_wrong_sizes_and_kinds(trees):
    images, truth, out = trees
    conf = out / 'bravo_SMIYC/town/SMIYC_0_conf.png'
    Image.fromarray(np.array(Image.open(conf)).astype(np.uint8)).save(conf)
    with pytest.raises(UserError, match='is L of 72 x 40 pixels, expected I;16 of 72'):
        evaluate(images, out, truth)
