"""tools/dataset_converters/check_dataset.py: from own data to a trained model."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from eomt_mm import cli

SCORES = dict(instance='coco/segm_mAP', semantic='mIoU', panoptic='coco_panoptic/PQ')


def printed_config(text):
    """The config between the report and the last line."""
    body = text[text.index('_base_ = ') :]
    return body[: body.index('\nTrain with: ')]


@pytest.mark.slow
@pytest.mark.parametrize('task', SCORES)
def test_the_printed_config_trains(
    task, datasets, check, run_tool, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    root = datasets[task](tmp_path / 'pets')
    written = check.main([str(root), '--backbone', 'tiny', '--iters', '3'])
    text = printed_config(capsys.readouterr().out)
    assert text.strip() == written.read_text().strip()
    assert len(text.strip().splitlines()) <= 20
    copy = tmp_path / 'printed.py'
    copy.write_text(text)
    runner = run_tool('train', copy, '--work-dir', tmp_path / 'run')
    assert (tmp_path / 'run/iter_3.pth').is_file()
    assert f'val/{SCORES[task]}' in runner.message_hub.log_scalars
    sheet = np.array(Image.open(written.with_name('samples.png')))
    assert len(np.unique(sheet.reshape(-1, 3), axis=0)) > 100


def test_instances_say_what_was_found(datasets, check, capsys, tmp_path):
    root = datasets['instance'](tmp_path / 'pets')
    path = check.main([str(root), '--out', str(tmp_path / 'out')])
    said = capsys.readouterr().out
    truth = json.loads((root / 'annotations.json').read_text())
    per_image = [0] * 12
    for annotation in truth['annotations']:
        per_image[annotation['image_id']] += 1
    names = {7: 'disc', 3: 'square', 12: 'star'}
    for number, name in names.items():
        count = sum(a['category_id'] == number for a in truth['annotations'])
        assert f'{name} {count}' in said
    assert f'at most {max(per_image)}; none in {per_image.count(0)} images' in said
    assert 'left out, without annotation: shapes' in said
    assert '12 images: photos, annotations.json' in said
    assert 'the last 1 of train are held out' in said
    cfg = Config.fromfile(path)
    assert cfg.model.backbone.num_queries == 200
    assert cfg.model.panoptic_head.num_things_classes == 3
    assert cfg.crop_size == cfg.model.backbone.img_size == (64, 64)
    assert cfg.train_dataloader.dataset.metainfo.classes == ('disc', 'square', 'star')
    assert cfg.train_dataloader.dataset.indices == 11
    assert cfg.train_cfg.max_iters == 2000


def test_things_come_first_whatever_the_file_says(datasets, check, tmp_path):
    root = datasets['panoptic'](tmp_path / 'pets')
    file = root / 'annotations/panoptic_train.json'
    path = check.main([str(file), '--out', str(tmp_path / 'out')])
    cfg = Config.fromfile(path)
    head, meta = cfg.model.panoptic_head, cfg.val_dataloader.dataset.metainfo
    assert (head.num_things_classes, head.num_stuff_classes) == (5, 2)
    assert meta.classes == (
        'disc',
        'square',
        'triangle',
        'star',
        'ring',
        'sky',
        'ground',
    )
    assert meta.palette[0] == (80, 9, 99) and meta.palette[-1] == (40, 9, 99)
    assert cfg.val_evaluator.ann_file.endswith('panoptic_val.json')
    assert 'indices' not in cfg.train_dataloader.dataset


def test_label_maps_of_black_and_white(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    (root / 'classes.txt').unlink()
    for path in root.glob('labels/*/*.png'):
        labels = np.array(Image.open(path))
        Image.fromarray(255 * (labels < 1).astype(np.uint8)).save(path)
    config = check.main([str(root), '--out', str(tmp_path / 'out')])
    said = capsys.readouterr().out
    assert '0, 255 stand for the classes' in said and ' 0.0 % of the pixels' in said
    cfg = Config.fromfile(config)
    assert cfg.train_dataloader.dataset.label_values == (0, 255)
    assert cfg.model.decode_head.num_classes == 2


def test_void_and_names_of_label_maps(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    for path in root.glob('labels/*/*.png'):  # as in ADE20K
        labels = np.array(Image.open(path)).astype(int) + 1
        labels[labels > 7] = 0
        Image.fromarray(labels.astype(np.uint8)).save(path)
    config = check.main([str(root), '--out', str(tmp_path / 'out')])
    assert f'{100 * 4 / 64:.1f} % of the pixels' in capsys.readouterr().out
    dataset = Config.fromfile(config).val_dataloader.dataset
    assert dataset.reduce_zero_label is True
    assert dataset.metainfo.classes[:2] == ('sky', 'ground')


def test_many_instances_get_more_queries(datasets, check, capsys, tmp_path):
    root = datasets['instance'](tmp_path / 'pets', count=3)
    file = root / 'annotations.json'
    content = json.loads(file.read_text())
    first = content['annotations'][0]
    content['annotations'] = [
        dict(first, id=i + 1, image_id=i % 3) for i in range(3 * 130)
    ]
    file.write_text(json.dumps(content))
    config = check.main([str(root), '--out', str(tmp_path / 'out')])
    assert Config.fromfile(config).model.backbone.num_queries == 300
    assert 'twice 130' in capsys.readouterr().out


def refused(check, capsys, *argv):
    assert cli.run(check.main, [str(arg) for arg in argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ') and error.count('\n') == 1
    return error


def test_mixed_kinds(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    datasets['instance'](root)
    error = refused(check, capsys, root)
    assert 'label maps' in error and "instances in COCO's format" in error
    datasets['panoptic'](tmp_path / 'other')
    datasets['instance'](tmp_path / 'other')
    assert 'panoptic segments' in refused(check, capsys, tmp_path / 'other')


def test_no_labels(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    for path in root.glob('labels/*/*.png'):
        path.unlink()
    assert '16 images and no labels' in refused(check, capsys, root)
    (tmp_path / 'empty').mkdir()
    assert '0 images and no labels' in refused(check, capsys, tmp_path / 'empty')
    assert 'does not exist' in refused(check, capsys, tmp_path / 'nowhere')


def test_faults_of_label_maps(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    label = root / 'labels/train/3.png'
    whole = label.read_bytes()
    label.unlink()
    assert '1 of 8 photos' in refused(check, capsys, root)
    Image.fromarray(np.zeros((9, 64), np.uint8)).save(label)
    assert 'has shape (9, 64), its photo (64, 64)' in refused(check, capsys, root)
    label.write_bytes(whole)
    (root / 'classes.txt').write_text('sky\nground')
    assert 'names 2 classes' in refused(check, capsys, root)
    for path in root.glob('labels/*/*.png'):
        Image.open(path).convert('RGB').save(path)
    assert 'one channel' in refused(check, capsys, root)


def test_images_of_other_bands_are_told_where_they_belong(
    datasets, check, capsys, tmp_path
):
    tifffile = pytest.importorskip('tifffile')
    root = datasets['instance'](tmp_path / 'pets')
    file = root / 'annotations.json'
    file.write_text(file.read_text().replace('.png', '.tif'))
    image = np.zeros((64, 64, 5), np.uint16)
    for path in (root / 'photos').iterdir():
        path.unlink()
        options = dict(photometric='minisblack', planarconfig='contig')
        tifffile.imwrite(path.with_suffix('.tif'), image, **options)
    assert 'with set_bands: docs/own_data.md' in refused(check, capsys, root)


def test_photos_of_an_annotation_file_are_missing(datasets, check, capsys, tmp_path):
    root = datasets['instance'](tmp_path / 'pets')
    (root / 'photos/005.png').unlink()
    assert 'no folder below' in refused(check, capsys, root)
    (root / 'annotations.json').write_text('{"info": {}}')
    assert 'lists no images' in refused(check, capsys, root / 'annotations.json')
