"""Annotation files that are missing something, or are others than they should be."""

import pytest

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
        (without('area'), 'has no area; COCO'),
        (without('bbox'), 'has no bbox'),
        (without('iscrowd'), 'has no iscrowd'),
        (without('category_id'), 'has no category_id'),
        (without('height', 'images'), 'image 7 has no height'),
        (without('name', 'categories'), 'category 1 has no name'),
        (dict(square=dict(bbox=[])), r'1 has bbox \[\]; expected x, y, width'),
        (twice('images'), '2 image entries have id 7'),
        (twice('categories'), '2 category entries have id 1'),
        (twice('annotations'), '2 annotation entries have (image_id 7|id 1)'),
        (dict(content=lambda c: c['images']), 'is not a COCO annotation file: .*list'),
        (
            dict(content=lambda c: dict(images=c['images'])),
            'has no list of categories, only images',
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
        (dict(square=dict(id=0)), 'a segment of a.png has id 0'),
        (dict(square=dict(id=300)), 'in a.png, segment entries have id 300'),
    ],
)
def test_bad_panoptic_files(coco, build_coco, changes, message):
    with pytest.raises(UserError, match=message):
        build_coco(
            'scenes_panoptic', coco('panoptic', **changes), **settings('panoptic')
        )


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
