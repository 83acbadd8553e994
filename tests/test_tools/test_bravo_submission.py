"""A made-up BRAVO tree through tools/analysis_tools/bravo_submission.py."""

import json
import shutil

import numpy as np
import pytest
import torch
from bravo_trees import write_noise, write_tree
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import PixelData
from PIL import Image

from eomt_mm import cli
from eomt_mm.datasets.bravo import images_of
from eomt_mm.errors import UserError
from eomt_mm.evaluation.bravo import SEMANTIC_NAMES, pair_of
from eomt_mm.evaluation.ood import ConfidenceMetric, OODMetric
from eomt_mm.files import sole_user

TINY = """
_base_ = {base!r}
data_root = {root!r}
model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(img_size=(64, 64), arch='vit_tiny_patch16_224', pretrained=False,
                  timm_args=dict(embed_dim=32, depth=3, num_heads=4), num_queries=10,
                  num_blocks=2),
    decode_head=dict(embed_dims=32, num_classes={classes}),
    test_cfg=dict(confidence={confidence!r}))
test_dataloader = dict(dataset=dict(data_root=data_root, pipeline=[
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='eomt_mm.LoadSemanticAnnotations'),
    dict(type='eomt_mm.ResizeShortSide', size=64),
    dict(type='PackSegInputs')]))
"""


@pytest.fixture
def tree(tmp_path):
    """Three images for each subset, and their ground truth."""
    images, truth = tmp_path / 'images', tmp_path / 'truth'
    write_tree(images, truth)
    return images, truth


@pytest.fixture
def written(tmp_path, root, tree):
    """Writes the config and a checkpoint, and gives the arguments of the tool."""

    def write(classes=19, confidence='class_score'):
        base = str(root / 'configs/eomt/eomt_vitl_bravo.py')
        path = tmp_path / 'tiny.py'
        path.write_text(
            TINY.format(
                base=base, root=str(tree[0]), classes=classes, confidence=confidence
            )
        )
        cfg = Config.fromfile(path)
        init_default_scope('mmseg')
        torch.manual_seed(0)
        torch.save(MODELS.build(cfg.model).state_dict(), tmp_path / 'tiny.pth')
        return [str(path), str(tmp_path / 'tiny.pth'), '--out', str(tmp_path / 'out')]

    return write


def test_files_and_metrics(tool, written, tree, tmp_path):
    images, truth = tree
    out, argv = tmp_path / 'out', written()
    main = tool('analysis_tools/bravo_submission').main
    main(argv)
    listed = images_of(images)
    assert len(listed) == 27
    for name, path, base in listed:
        size = Image.open(images / path).size
        predicted, confidence = (Image.open(p) for p in pair_of(out, name, base))
        assert (predicted.mode, confidence.mode) == ('L', 'I;16')
        assert predicted.size == confidence.size == size
        assert np.array(predicted).max() < 19
        assert 0 <= np.array(confidence).min() <= np.array(confidence).max() <= 65535
    assert (out / 'bravo_ACDC/fog/town/ACDCfog_0_rgb_anon_conf.png').is_file()
    assert (out / 'bravo_SMIYC/town/SMIYC_0_pred.png').is_file()

    # Resumed: what is there stays, what is missing comes back.
    kept, lost = (pair_of(out, *listed[i][::2])[1] for i in (0, 5))
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    measure = [argv[0], '--out', argv[3], '--truth', str(truth)]
    assert cli.run(main, measure) == 2
    main(argv)
    assert lost.read_bytes() == content and kept.stat().st_mtime_ns == before

    found = main(measure)
    assert json.loads((out / 'metrics.json').read_text()) == pytest.approx(found)

    # Metrics are no part of the pairs, and go when these change.
    main(argv)
    assert (out / 'metrics.json').is_file()
    lost.unlink()
    main(argv)
    assert lost.read_bytes() == content and not (out / 'metrics.json').exists()


@pytest.mark.parametrize(
    'fault, expected',
    [
        ('extra', 'belongs to no image'),
        ('truth', 'is missing'),
        ('size', 'pixels, expected L of 72 x 40'),
        ('label', 'has the value 7'),
    ],
)
def test_bad_submission(tool, written, tree, tmp_path, capsys, fault, expected):
    images, truth = tree
    out, (config, *_) = tmp_path / 'out', written()
    write_noise(images, truth, out)
    fog = 'bravo_ACDC/fog/town/ACDCfog_0'
    smiyc = 'bravo_SMIYC/town/SMIYC_0_labels_semantic.png'
    if fault == 'extra':
        (out / 'other_pred.png').write_bytes(b'')
    elif fault == 'truth':
        (truth / f'{fog}_gt_invIds.png').unlink()
    elif fault == 'size':
        Image.new('L', (72, 41)).save(out / f'{fog}_rgb_anon_pred.png')
    else:
        Image.new('L', (72, 40), 7).save(truth / smiyc)
    argv = [config, '--out', str(out), '--truth', str(truth)]
    assert cli.run(tool('analysis_tools/bravo_submission').main, argv) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count('\n') == 1
    assert not (out / 'metrics.json').exists()


@pytest.mark.parametrize(
    'options, expected',
    [
        (dict(classes=7), 'BRAVO has 19'),
        (dict(confidence=None), 'asks for no confidence maps'),
        (dict(confidence='margin'), 'expected None or one of'),
    ],
)
def test_bad_model(tool, written, capsys, tmp_path, options, expected):
    main = tool('analysis_tools/bravo_submission').main
    argv = written()
    if options.get('classes'):
        argv = written(**options)
    else:
        config = tmp_path / 'tiny.py'
        config.write_text(
            config.read_text().replace("'class_score'", repr(options['confidence']))
        )
    assert cli.run(main, argv) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()


def test_disk_full_and_interrupted(tool, written, capsys, tmp_path, monkeypatch):
    module, argv = tool('analysis_tools/bravo_submission'), written()
    for error in (OSError(28, 'No space left on device'), KeyboardInterrupt()):

        def fail(image, path, error=error):
            path.write_bytes(b'half')
            raise error

        with monkeypatch.context() as patched:
            patched.setattr(Image.Image, 'save', fail)
            assert cli.run(module.main, argv) in (2, 130)
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
        left = {path.name for path in (tmp_path / 'out').rglob('*') if path.is_file()}
        assert left == {'submission.json', '.lock'}
    module.main(argv)
    assert len([*(tmp_path / 'out').rglob('*.png')]) == 54


@pytest.mark.parametrize(
    'config, expected',
    [
        ('demo/eomt_scenes_panoptic', 'expected eomt_mm.BravoDataset'),
        ('eomt/eomt_vitl_cityscapes', 'expected eomt_mm.BravoDataset'),
    ],
)
def test_other_configs(tool, root, capsys, tmp_path, config, expected):
    argv = [str(root / f'configs/{config}.py'), 'none.pth', '--out', f'{tmp_path}/out']
    assert cli.run(tool('analysis_tools/bravo_submission').main, argv) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_a_panoptic_model_has_no_confidence(tool, root, tree, capsys, tmp_path):
    """Neither as a config for BRAVO nor as an option of the model."""
    path = tmp_path / 'panoptic.py'
    dataset = (
        f"dict(_delete_=True, type='eomt_mm.BravoDataset', data_root={str(tree[0])!r})"
    )
    path.write_text(
        f'_base_ = {str(root / "configs/demo/eomt_scenes_panoptic.py")!r}\n'
        "model = dict(test_cfg=dict(confidence='class_score'))\n"
        f'test_dataloader = dict(dataset={dataset})\n'
    )
    argv = [str(path), 'none.pth', '--out', f'{tmp_path}/out']
    assert cli.run(tool('analysis_tools/bravo_submission').main, argv) == 2
    error = capsys.readouterr().err
    assert 'has no confidence maps' in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()
    cfg = Config.fromfile(path)
    init_default_scope('mmdet')
    with pytest.raises(UserError, match="unknown test_cfg options: 'confidence'"):
        MODELS.build(cfg.model)


def test_a_checkpoint_of_other_classes(tool, written, tmp_path, capsys):
    argv = written(classes=7)
    config = tmp_path / 'tiny.py'
    config.write_text(config.read_text().replace('num_classes=7', 'num_classes=19'))
    assert cli.run(tool('analysis_tools/bravo_submission').main, argv) == 2
    error = capsys.readouterr().err
    assert 'does not fit the config' in error and error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    'change, expected',
    [
        ('lost', 'belongs to no image'),
        ('broken', 'bravo_ACDC/fog/town/ACDCfog_1_rgb_anon.png'),
        ('empty', 'has no image of BRAVO'),
        ('weights', 'of another checkpoint or config'),
        ('foreign', 'is not empty and no submission'),
    ],
)
def test_trees_that_changed(tool, written, tree, tmp_path, capsys, change, expected):
    """A submission goes on only with what it was begun with."""
    main, argv, out = (
        tool('analysis_tools/bravo_submission').main,
        written(),
        tmp_path / 'out',
    )
    photo = tree[0] / 'bravo_ACDC/fog/town/ACDCfog_1_rgb_anon.png'
    if change == 'foreign':
        out.mkdir()
        (out / 'notes.txt').write_text('mine')
    elif change == 'empty':
        shutil.rmtree(tree[0])
        tree[0].mkdir()
    elif change == 'broken':
        photo.write_bytes(photo.read_bytes()[:300])
    else:
        main(argv)
        photo.unlink()
    if change == 'weights':
        state = torch.load(argv[1])
        torch.save({key: value + 1e-3 for key, value in state.items()}, argv[1])
    before = {path: path.stat().st_mtime_ns for path in out.rglob('*')}
    capsys.readouterr()
    assert cli.run(main, argv) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count('\n') == 1
    if change != 'broken':  # found on the way
        assert {p: p.stat().st_mtime_ns for p in out.rglob('*')} == before
    for path in out.rglob('*.png'):
        Image.open(path).load()  # whole


def test_png_pairs_say_what_the_evaluators_say(tool, written, tree, tmp_path):
    """16 bits are what the metrics count with, so that nothing is lost on the way."""
    images, truth = tree
    argv = written()
    main = tool('analysis_tools/bravo_submission').main
    main(argv)
    found = main([argv[0], '--out', argv[3], '--truth', str(truth)])
    cfg = Config.fromfile(argv[0])
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(torch.load(argv[1]))
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    semantic, unknown = ConfidenceMetric(), OODMetric()
    semantic.dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        name, base = dataset.get_data_info(i)['bravo']
        if name != 'synobjs':
            continue
        with torch.no_grad():
            sample = model.test_step(pseudo_collate([dataset[i]]))[0]
        labels, mask = (
            torch.from_numpy(np.array(Image.open(truth / f'{base}{suffix}')))[None]
            for suffix in ('_gt.png', '_mask.png')
        )
        valid = labels.masked_fill(mask != 0, 255)
        sample.gt_sem_seg = PixelData(data=valid)
        semantic.process({}, [sample.to_dict()])
        mask[labels == 255] = 255
        sample.gt_sem_seg = PixelData(data=mask)
        unknown.process({}, [sample.to_dict()])
    scores = {
        f'synobjs_{SEMANTIC_NAMES[key.removeprefix("confidence/")]}_valid': value
        for key, value in semantic.evaluate(3).items()
    }
    for key, value in unknown.evaluate(3).items():
        scores[f'synobjs_{key.removeprefix("ood/").lower()}_ood'] = value
    assert len(scores) == 9
    for name, value in scores.items():  # evaluators round to four digits
        assert 100 * found[name] == pytest.approx(value, abs=6e-5), name


def test_two_calls_at_once(tool, written, tmp_path, capsys):
    main, argv = tool('analysis_tools/bravo_submission').main, written()
    with sole_user(tmp_path / 'out', '--out'):
        assert cli.run(main, argv) == 2
    error = capsys.readouterr().err
    assert 'is in use by another call' in error and 'another --out' in error
    assert error.count('\n') == 1
    main(argv)  # the lock is hidden, and no file of the submission


def test_what_a_killed_call_left_is_no_obstacle(tool, written, tmp_path, capsys):
    main, argv = tool('analysis_tools/bravo_submission').main, written()
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/.partial-submission.json').write_text('{')
    main(argv)
    assert '27 images, expected the 3,901 of the challenge' in capsys.readouterr().out
    (tmp_path / 'out/submission.json').write_bytes(b'\xff{')
    assert cli.run(main, argv) == 2
    assert 'another checkpoint or config' in capsys.readouterr().err
