"""The predictor against the model that it was exported from."""

import numpy as np
import pytest
from mmengine.structures import BaseDataElement
from PIL import Image

from eomt_mm.deploy import Predictor
from eomt_mm.deploy.painting import describe, paint
from eomt_mm.deploy.predictor import load_photo


def same_map(found: np.ndarray, sample: BaseDataElement, photo) -> set[int]:
    """Classes or segments of a map that differs by pixels that rounding decides."""
    width, height = Image.open(photo).size
    expected = sample.sem_seg if 'sem_seg' in sample else sample.data
    assert found.shape == (height, width)
    assert (found != expected[0].numpy()).mean() < 1e-3
    return set(np.unique(found).tolist())


def test_semantic(exported, photos, predict):
    model = exported('semantic')
    predictor, seen = Predictor(model.onnx), set()
    for photo in photos:
        sample = predict(model.cfg, model.checkpoint, photo)
        seen |= same_map(predictor(photo), sample.pred_sem_seg, photo)
    assert len(seen) > 1, 'pictures of one class'


def test_panoptic(exported, photos, predict):
    model = exported('panoptic')
    predictor, seen = Predictor(model.onnx), set()
    for photo in photos:
        sample = predict(model.cfg, model.checkpoint, photo)
        seen |= same_map(predictor(photo), sample.pred_panoptic_seg, photo)
    assert len(seen) > 2, 'pictures of nothing'


def test_nothing_is_found(exported, photos):
    """No query is sure enough: all void, and no instance."""
    for task, expected in (('panoptic', {4}), ('instance', set())):
        predictor = Predictor(exported(task).onnx)
        predictor.meta['test'].update(score_thr=1.0, max_per_image=0)
        result = predictor(photos[0])
        ids = result if task == 'panoptic' else result.labels
        assert set(np.unique(ids)) == expected
        paint(load_photo(photos[0]), result, predictor.meta)


def test_instances(exported, photos, predict):
    model = exported('instance')
    predictor = Predictor(model.onnx)
    for photo in photos:
        found = predictor(photo)
        expected = predict(model.cfg, model.checkpoint, photo).pred_instances
        order = expected.scores.argsort(descending=True, stable=True).numpy()
        assert len(found.scores) == len(order) > 5
        scores = expected.scores.numpy()[order]
        np.testing.assert_allclose(found.scores, scores, rtol=1e-4, atol=1e-6)
        # Equal scores come in any order.
        pairs = {
            (int(label), tuple(box))
            for label, box in zip(found.labels, found.boxes.tolist(), strict=True)
        }
        wanted = zip(expected.labels, expected.bboxes.int().tolist(), strict=True)
        assert len(pairs & {(int(k), tuple(b)) for k, b in wanted}) >= len(pairs) - 1
        areas = np.sort(found.masks.sum((1, 2)))
        np.testing.assert_allclose(
            areas, np.sort(expected.masks.sum((1, 2)).numpy()), atol=3
        )


def test_the_command(exported, photos, tmp_path, capsys):
    from eomt_mm.deploy.__main__ import main

    for task in ('semantic', 'panoptic', 'instance'):
        out = tmp_path / f'new/{task}.png'
        model = exported(task)
        capsys.readouterr()  # what the export said, if this test is the first
        assert main([str(model.onnx), str(photos[0]), '--out', str(out)]) == 0
        said = capsys.readouterr().out
        photo = load_photo(photos[0])
        predictor = Predictor(model.onnx)
        result = predictor(photo)
        assert said.splitlines() == describe(result, predictor.meta)
        picture = np.asarray(Image.open(out))
        assert picture.shape == photo.shape
        np.testing.assert_array_equal(picture, paint(photo, result, predictor.meta))
        if task == 'semantic':
            assert '%' in said
            lines = [float(line.split()[0]) for line in said.splitlines()]
            assert sum(lines) == pytest.approx(100, abs=0.3)
    assert [p.name for p in (tmp_path / 'new').iterdir()].count('panoptic.png') == 1


def test_painting_shows_the_colour_of_each_class():
    meta = dict(task='semantic', palette=[[200, 0, 0], [0, 0, 200]], classes=['a', 'b'])
    photo = np.full((2, 4, 3), 100, np.uint8)
    classes = np.array([[0, 0, 1, 1]] * 2)
    picture = np.asarray(paint(photo, classes, meta))
    assert picture[0, 0].tolist() == [160, 40, 40]
    assert picture[0, 3].tolist() == [40, 40, 160]


def test_photos_are_loaded_as_the_pipeline_loads_them(exported, tmp_path):
    """Orientation, transparency, palettes, grey: the same pixels as MMCV's loader."""
    import mmcv

    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (20, 30, 4), np.uint8)
    turned = Image.fromarray(pixels[..., :3])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / 'turned.png', exif=exif)
    for mode in ('RGBA', 'P', 'LA', 'L', '1', 'CMYK'):
        suffix = 'tif' if mode == 'CMYK' else 'png'
        image = Image.fromarray(pixels)
        image = image.convert('RGB').convert(mode) if mode in 'P CMYK' else image
        image.convert(mode).save(tmp_path / f'{mode}.{suffix}')
    for path in tmp_path.iterdir():
        expected = mmcv.imread(path, backend='pillow', channel_order='rgb')
        np.testing.assert_array_equal(load_photo(path), expected, err_msg=path.name)
    assert load_photo(tmp_path / 'turned.png').shape == (30, 20, 3)
    assert load_photo(tmp_path / 'turned.png', upright=False).shape == (20, 30, 3)


def test_sixteen_bits_keep_their_high_byte(tmp_path):
    pixels = np.arange(0, 65536, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(pixels).save(tmp_path / 'deep.png')
    found = load_photo(tmp_path / 'deep.png')
    assert found.shape == (16, 16, 3)
    np.testing.assert_array_equal(found[..., 0], pixels >> 8)
