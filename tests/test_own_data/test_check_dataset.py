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
    error = refused(check, capsys, root)
    assert 'photos lacks 1: 005.png' in error
    (root / 'annotations.json').write_text('{"info": {}}')
    assert 'lists no images' in refused(check, capsys, root / 'annotations.json')


def change(file, edit):
    content = json.loads(file.read_text())
    edit(content)
    file.write_text(json.dumps(content))


def test_endings_of_files(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    for path in [*root.glob('images/*/*'), *root.glob('labels/*/*')]:
        path.rename(path.with_suffix(path.suffix.upper()))
    check.main([str(root), '--out', str(tmp_path / 'out')])
    assert '8 images: images/train, labels/train' in capsys.readouterr().out
    for path in sorted(root.glob('images/train/*'))[::2]:
        path.rename(path.with_suffix('.jpeg'))
    assert 'images/train end in .JPG, .jpeg' in refused(check, capsys, root)
    root = datasets['instance'](tmp_path / 'shapes')
    (root / 'annotations.json').rename(root / 'ANNOTATIONS.JSON')
    check.main([str(root), '--out', str(tmp_path / 'out')])


def test_files_that_are_no_photos(datasets, check, capsys, tmp_path):
    """What macOS leaves beside files, and a picture that shows the data."""
    root = datasets['semantic'](tmp_path / 'pets')
    (root / 'images/train/._0.jpg').write_bytes(b'no image')
    Image.new('RGB', (20, 20)).save(root / 'preview.png')
    check.main([str(root), '--out', str(tmp_path / 'out')])
    assert '8 images: images/train, labels/train' in capsys.readouterr().out


def test_a_split_is_not_lost(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    (root / 'labels/train/0.png').unlink()
    assert 'the first is 0.jpg' in refused(check, capsys, root)
    for path in root.glob('images/train/*'):
        path.rename(path.with_stem(f'x{path.stem}y'))
    assert 'pair with no label maps' in refused(check, capsys, root)


def test_labels_of_another_kind_are_named(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    for path in root.glob('labels/*/*'):
        name = path.relative_to(root / 'labels').with_suffix('.png')
        (root / 'colours' / name).parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).convert('RGB').save(root / 'colours' / name)
    error = refused(check, capsys, root)
    assert 'several folders of photos' in error and 'colours/train' in error
    jpeg = datasets['semantic'](tmp_path / 'jpeg')
    for path in jpeg.glob('labels/*/*'):
        Image.open(path).save(path.with_suffix('.jpg'))
        path.unlink()
    assert 'all .jpg, which changes values' in refused(check, capsys, jpeg)
    alone = datasets['semantic'](tmp_path / 'alone')
    for path in alone.glob('images/*/*'):
        path.unlink()
    assert 'and no photos' in refused(check, capsys, alone)
    for split in ('train', 'val'):
        (tmp_path / f'only/{split}').mkdir(parents=True)
    Image.new('RGB', (9, 9)).save(tmp_path / 'only/train/a.jpg')
    (tmp_path / 'only/train').rename(tmp_path / 'only/test')
    assert 'folders named test' in refused(check, capsys, tmp_path / 'only')


@pytest.mark.parametrize('names', ['{}.png {}_mask.png', 'img_{}.png mask_{}.png'])
@pytest.mark.parametrize('grey', [False, True])
def test_photos_and_label_maps_in_one_folder(check, capsys, tmp_path, names, grey):
    rng = np.random.default_rng(0)
    for number in range(5):
        photo, labels = (tmp_path / name.format(number) for name in names.split())
        noise = rng.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(noise[..., 0] if grey else noise).save(photo)
        Image.fromarray(noise[..., 0] % 3).save(labels)
    error = refused(check, capsys, tmp_path)
    assert f'such as {photo.name}, and label maps, such as {labels.name}' in error
    assert 'move the label maps to a folder of their own' in error
    (tmp_path / 'labels').mkdir()
    for labels in tmp_path.glob('*mask*'):
        name = labels.name.replace('_mask', '').replace('mask', 'img')
        labels.rename(tmp_path / 'labels' / name)
    (tmp_path / 'images').mkdir()
    for photo in tmp_path.glob('*.png'):
        photo.rename(tmp_path / 'images' / photo.name)
    check.main([str(tmp_path), '--out', str(tmp_path / 'out')])


def test_a_damaged_label_map(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    label = root / 'labels/train/6.png'
    label.write_bytes(label.read_bytes()[:60])
    assert '6.png is not an image that can be read' in refused(check, capsys, root)


def test_names_of_classes_in_other_encodings(datasets, check, capsys, tmp_path):
    root = datasets['semantic'](tmp_path / 'pets')
    names = ('{{ _base_.x }}', "it's", 'say "x"', 'Straße', '日本', 'a\\b', '$HOME')
    text = '\r\n'.join(names)
    (root / 'classes.txt').write_bytes(text.encode('utf-8-sig'))
    path = check.main([str(root), '--out', str(tmp_path / 'out')])
    assert Config.fromfile(path).val_dataloader.dataset.metainfo.classes == names
    (root / 'classes.txt').write_bytes(text.replace('日本', 'x').encode('latin1'))
    assert 'no text in UTF-8' in refused(check, capsys, root)


@pytest.mark.parametrize('task', SCORES)
def test_one_image(task, datasets, check, capsys, tmp_path):
    root = datasets[task](tmp_path / 'pets', count=1)
    for path in [*root.rglob('panoptic_val.json'), *root.glob('*/val/*')]:
        path.unlink()
    path = check.main([str(root), '--out', str(tmp_path / 'out')])
    assert 'the only image is learnt and tested on' in capsys.readouterr().out
    cfg = Config.fromfile(path)
    for split in (cfg.train_dataloader, cfg.val_dataloader):
        assert 'indices' not in split.dataset


def test_what_is_held_out_has_labels(datasets, check, capsys, tmp_path):
    root = datasets['instance'](tmp_path / 'pets', count=30)
    file = root / 'annotations.json'
    first = json.loads(file.read_text())['annotations'][0]

    def only(*images):
        def edit(content):
            content['annotations'] = [dict(first, id=i + 1, image_id=i) for i in images]

        change(file, edit)

    only(*range(20))
    cfg = Config.fromfile(check.main([str(root), '--out', str(tmp_path / 'out')]))
    assert cfg.train_dataloader.dataset.indices == 19
    assert cfg.val_dataloader.dataset.indices == -11
    only(4)
    assert '1 image with labels among 30' in refused(check, capsys, root)


def test_panoptic_faults(datasets, check, capsys, tmp_path):
    root = datasets['panoptic'](tmp_path / 'pets')

    def set_things(value):
        for file in root.glob('annotations/*.json'):
            change(file, lambda c: [k.update(isthing=value) for k in c['categories']])

    set_things(1)
    assert 'that occur are things' in refused(check, capsys, root)
    set_things(0)
    cfg = Config.fromfile(check.main([str(root), '--out', str(tmp_path / 'out')]))
    head = cfg.model.panoptic_head
    assert (head.num_things_classes, head.num_stuff_classes) == (0, 7)

    def empty(content):
        for entry in content['annotations']:
            entry['segments_info'] = []

    change(root / 'annotations/panoptic_val.json', empty)
    assert '8 images of' in refused(check, capsys, root)
    (root / 'annotations/panoptic_train/3.png').unlink()
    assert 'panoptic_train lacks 1: 3.png' in refused(check, capsys, root)


def test_any_way_to_a_folder(datasets, check, tmp_path, monkeypatch):
    root = datasets['instance'](tmp_path / ".o'er {{x}}/ö" / 'pets')
    (tmp_path / 'a/b').mkdir(parents=True)
    monkeypatch.chdir(tmp_path / 'a/b')
    for way in (f'../../{root.relative_to(tmp_path)}', f'{root}/../pets', str(root)):
        path = check.main([way, '--out', str(tmp_path / 'out')])
        place = Config.fromfile(path).train_dataloader.dataset
        assert place.data_root == str(root)
        assert place.data_prefix.img == 'photos'
