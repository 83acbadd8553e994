"""Whatever an annotation file holds, it is one line."""

import json

import pytest

from eomt_mm.datasets.coco_file import InstanceFile, PanopticFile
from eomt_mm.errors import UserError

IMAGE = dict(id=1, file_name='a.png', height=4, width=4)
CATEGORY = dict(id=1, name='a', isthing=1)
SEGMENT = dict(id=1, image_id=1, category_id=1, area=1, bbox=[0, 0, 1, 1], iscrowd=0)
ODD = ([], {}, 'x', [[]], float('nan'), float('inf'), 10**400)


def texts():
    yield from ('[' * 200_000, '{"a":' * 200_000, '1' * 5000, '"\\ud800"', '[1]', 'NaN')
    whole = dict(images=[IMAGE], categories=[CATEGORY], annotations=[SEGMENT])
    for key in whole:
        for value in (3, 'x', [3], [[]], ['x'], [None]):
            yield json.dumps({**whole, key: value})
    for key, entry in (('images', IMAGE), ('annotations', SEGMENT)):
        for name in entry:
            if name in ('height', 'area', 'category_id', 'bbox', 'iscrowd'):
                for value in ODD:
                    yield json.dumps({**whole, key: [{**entry, name: value}]})
    for value in ([], {}):
        yield json.dumps({**whole, 'images': [{**IMAGE, 'id': value}]})
    for value in ([3], [float('nan')] * 4, ['x'] * 4, [[]] * 4, 'abcd'):
        yield json.dumps({**whole, 'annotations': [{**SEGMENT, 'bbox': value}]})


@pytest.mark.parametrize('kind', (InstanceFile, PanopticFile))
def test_odd_annotations(kind, tmp_path):
    path = tmp_path / 'file.json'
    for text in texts():
        path.write_text(text)
        with pytest.raises(UserError) as refused:
            pytest.fail(f'{text[:300]} was read: {kind(str(path))}')
        assert len(str(refused.value)) < 1000


OUTLINE = [0, 0, 2, 0, 2, 2]
WHOLE = dict(
    instance=dict(
        images=[IMAGE],
        categories=[CATEGORY],
        annotations=[{**SEGMENT, 'segmentation': [OUTLINE]}],
    ),
    panoptic=dict(
        images=[IMAGE],
        categories=[CATEGORY],
        annotations=[
            dict(image_id=1, file_name='a.png', segments_info=[dict(SEGMENT, id=2)])
        ],
    ),
)
IN_ANNOTATION = [
    *[{key: True} for key in ('id', 'image_id', 'category_id', 'area')],
    dict(bbox=[True, 0, 1, 1]),
    dict(bbox=[0, 0, 1, False]),
    dict(bbox=[False] * 4),
    dict(segmentation=[[True, *OUTLINE[1:]]]),
    dict(segmentation=[OUTLINE, [False] * 6]),
    dict(segmentation=[OUTLINE, [True]]),
    dict(segmentation=dict(size=[4, 4], counts=[True, 15])),
    dict(segmentation=dict(size=[4, True], counts=[4])),
]
IN_SEGMENT = [change for change in IN_ANNOTATION if not {*change} & {'segmentation'}]


@pytest.mark.parametrize(
    ('kind', 'key', 'change'),
    [
        *[('instance', 'images', {name: True}) for name in ('id', 'height', 'width')],
        ('instance', 'categories', dict(id=True)),
        *[('instance', 'annotations', change) for change in IN_ANNOTATION],
        ('panoptic', 'annotations', dict(image_id=True)),
        *[('panoptic', 'segments_info', c) for c in IN_SEGMENT if 'image_id' not in c],
    ],
)
def test_true_and_false_are_no_numbers(kind, key, change, tmp_path):
    """Python's are whole numbers, 1 and 0."""
    content = json.loads(json.dumps(WHOLE[kind]))
    path = tmp_path / 'file.json'
    read = InstanceFile if kind == 'instance' else PanopticFile
    path.write_text(json.dumps(content))
    read(str(path))
    entries = content.get(key) or content['annotations'][0][key]
    entries[0].update(change)
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match='True|False|RLE.*add up|damaged') as refused:
        read(str(path))
    assert '\n' not in str(refused.value)
