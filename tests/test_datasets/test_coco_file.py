"""Annotation files that are missing something, or are others than they should be."""

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from eomt_mm.errors import UserError


def settings(kind):
    prefix = dict(img='') | (dict(seg='panoptic') if kind == 'panoptic' else {})
    return dict(ann_file='a.json', data_prefix=prefix)


def without(name, where='annotations'):
    """The content of a file whose entries lack a field."""

    def drop(content):
        for entry in content[where]:
            for part in entry.get('segments_info', [entry]):
                part.pop(name, None)
        return content

    return dict(content=drop)


def twice(where, **others):
    return dict(content=lambda c: c | {where: [*c[where], c[where][0] | others]})


@pytest.mark.parametrize('kind', ['panoptic', 'instance'])
@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (without('category_id'), 'has no category_id'),
        (without('height', 'images'), 'image 7 has no height'),
        (without('name', 'categories'), 'category 1 has no name'),
        (
            dict(square=dict(bbox=[])),
            r'1 has bbox \[\] \(1 of . such\); expected x, y, width',
        ),
        (twice('images'), '2 image entries have id 7'),
        (twice('categories'), '2 category entries have id 1'),
        (twice('annotations'), '2 annotation entries have (image_id 7|id 1)'),
        (
            dict(content=lambda c: c['images']),
            'is not a COCO annotation file but a list',
        ),
        (
            dict(content=lambda c: dict(images=c['images'])),
            'has no categories, only images',
        ),
    ],
)
def test_bad_files(coco, build_coco, kind, changes, message):
    with pytest.raises(UserError, match=message):
        build_coco(f'scenes_{kind}', coco(kind, **changes), **settings(kind))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (without('isthing', 'categories'), 'category 1 has no isthing'),
        (without('area'), 'has no area'),
        (without('bbox'), 'has no bbox'),
        (dict(square=dict(id=0)), 'segment 0 has id 0 .*expected 1'),
        (dict(square=dict(id=300)), 'in a.png, segment entries have id 300'),
    ],
)
def test_bad_panoptic_files(coco, build_coco, changes, message):
    with pytest.raises(UserError, match=message):
        build_coco(
            'scenes_panoptic', coco('panoptic', **changes), **settings('panoptic')
        )


@pytest.mark.parametrize('where', ['images', 'annotations'])
@pytest.mark.parametrize('name', ['/a.png', '../a.png', 'a/..\\..\\a.png', 'C:a.png'])
def test_names_that_lead_out_of_their_folder(coco, build_coco, where, name):
    def lead_out(content):
        content[where][0]['file_name'] = name
        return content

    changed = coco('panoptic', content=lead_out)
    with pytest.raises(UserError, match='leads out of its folder'):
        build_coco('scenes_panoptic', changed, **settings('panoptic'))


@pytest.mark.parametrize(
    ('written', 'read', 'message'),
    [
        ('instance', 'panoptic', 'has no segments_info, so it is not panoptic'),
        ('panoptic', 'instance', 'holds panoptic segments, but instances are wanted'),
    ],
)
def test_a_file_of_the_other_task(coco, build_coco, written, read, message):
    with pytest.raises(UserError, match=message):
        build_coco(f'scenes_{read}', coco(written), **settings(read))


@pytest.mark.parametrize('kind', ['panoptic', 'instance'])
def test_a_file_cut_short(coco, build_coco, kind):
    root = coco(kind)
    text = (root / 'a.json').read_text()
    (root / 'a.json').write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match=r'a\.json is not a COCO annotation file'):
        build_coco(f'scenes_{kind}', root, **settings(kind))


@pytest.mark.parametrize(
    ('kind', 'changes', 'message'),
    [
        (
            'panoptic',
            dict(square=dict(id=5)),
            'a.png has no pixel of segment 5, .* JSON and PNG disagree',
        ),
        (
            'panoptic',
            dict(ids=lambda ids: ids + (ids == 0) * 9),
            'a.png has 230 pixels of segments such as 9, .* JSON and PNG disagree',
        ),
        (
            'panoptic',
            dict(ids=lambda ids: ids[:, :-1]),
            r'a.png has shape \(20, 29\), its image \(20, 30\)',
        ),
        (
            'panoptic',
            dict(square=dict(category_id=99)),
            'segment 1 has category_id 99 .*they are 1, 2, 3',
        ),
        (
            'instance',
            dict(square=dict(category_id=99)),
            'annotation 1 has category_id 99',
        ),
        (
            'panoptic',
            dict(categories=lambda c: c[::-1]),
            "is a 'square', but its place in the file is that of class 'star'",
        ),
        (
            'panoptic',
            dict(categories=lambda c: [*c[:1], c[1] | dict(name='cube'), *c[2:]]),
            "is a 'cube', which is not among",
        ),
        (
            'instance',
            dict(square=dict(segmentation=None)),
            'annotation 1 of a.png has no segmentation',
        ),
        (
            'instance',
            dict(square=dict(segmentation=[[]])),
            'annotation 1 of a.png has no segmentation',
        ),
        (
            'instance',
            dict(square=dict(segmentation=[[1.0, 2, 3, 4]])),
            'annotation 1 of a.png has no segmentation',
        ),
        (
            'instance',
            dict(square=dict(segmentation=dict(size=[20, 30]))),
            'expected polygons, or an RLE of size and counts',
        ),
        (
            'instance',
            dict(square=dict(segmentation=dict(size=[20, 30], counts=[7, 5]))),
            'add up to 12, not to the 600 pixels',
        ),
        (
            'instance',
            dict(categories=lambda c: [dict(c[0], name='Disc'), *c[1:]]),
            'has no category disc; it has Disc',
        ),
        (
            'panoptic',
            dict(square=dict(area=500)),
            'has 50 pixels of segment 1, but its area in the annotation file is 500',
        ),
        (
            'instance',
            dict(square=dict(segmentation=dict(size=[20, 31], counts=[620]))),
            r'1 has an RLE of size \[20, 31\] in an image of \[20, 30\] \(1 of 2 such',
        ),
    ],
)
def test_bad_annotations(coco, build_coco, kind, changes, message):
    root = coco(kind, **changes)
    with pytest.raises(UserError, match=message):
        build_coco(f'scenes_{kind}', root, **settings(kind))[0][0]


def bare(content):
    return {key: content[key] for key in ('images', 'categories')}


@pytest.mark.parametrize('kind', ['panoptic', 'instance'])
def test_without_annotations_one_can_test_but_not_train(coco, build_coco, kind):
    root = coco(kind, content=bare)
    dataset, _ = build_coco(f'scenes_{kind}', root, **settings(kind))
    assert len(dataset[0]['data_samples'].gt_instances) == 0
    with pytest.raises(UserError, match=r'a\.json has no annotations'):
        build_coco(f'scenes_{kind}', root, test_mode=False, **settings(kind))


@pytest.mark.parametrize('mode', ['L', 'I;16'])
def test_a_grey_panoptic_map(coco, build_coco, mode):
    root = coco('panoptic')
    grey = np.ones((20, 30), np.uint8 if mode == 'L' else np.uint16)
    Image.fromarray(grey).save(root / 'panoptic/a.png')
    dataset, _ = build_coco('scenes_panoptic', root, **settings('panoptic'))
    with pytest.raises(UserError, match=rf'grey image \(mode {mode}\)'):
        dataset[0]


def test_maps_without_a_folder(coco):
    init_default_scope('mmdet')
    with pytest.raises(UserError, match=r'set data_prefix\.seg'):
        DATASETS.build(
            dict(
                type='eomt_mm.ScenesPanopticDataset',
                data_root=str(coco('panoptic')),
                ann_file='a.json',
                data_prefix=dict(img=''),
            )
        )


def test_more_classes_than_a_label_map_holds(coco, build_coco):
    names = [f'class {i}' for i in range(256)]
    options = settings('panoptic') | dict(metainfo=dict(classes=names))
    with pytest.raises(UserError, match='256 classes; label maps of a byte hold 255'):
        build_coco('scenes_panoptic', coco('panoptic'), **options)


@pytest.mark.parametrize('mask', [None, dict(size=[40, 60], counts=[2400])])
def test_instances_annotated_at_another_size(coco, build_coco, mask):
    """Polygons would be scored 0 without a word, RLE would end in a traceback."""
    square = dict(segmentation=mask) if mask else {}
    size = dict(image=dict(height=40, width=60))
    crowd = dict(size=[40, 60], counts=[2400])

    def fit(content):
        content['annotations'][1]['segmentation'] = crowd
        return content

    root = coco('instance', square=square, content=fit, **size)
    dataset, _ = build_coco('scenes_instance', root, **settings('instance'))
    with pytest.raises(UserError, match='a.png has 20 x 30 pixels, but 40 x 60 in'):
        dataset[0]


def test_missing_annotation_file(coco, build_coco):
    options = settings('instance') | dict(ann_file='b.json')
    with pytest.raises(UserError, match=r'b\.json does not exist'):
        build_coco('scenes_instance', coco('instance'), **options)
