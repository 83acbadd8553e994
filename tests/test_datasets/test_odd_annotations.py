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
