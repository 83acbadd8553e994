"""Three small datasets as users have them, made of synthetic scenes."""

import json

import numpy as np
import pytest
from PIL import Image

from eomt_mm.datasets import draw_scene
from eomt_mm.datasets.scenes import CLASSES, NUM_STUFF
from eomt_mm.datasets.scenes_coco import segments

SIDE = 64
IDS = {'disc': 7, 'square': 3, 'star': 12}


@pytest.fixture(scope='session')
def check(tool):
    """`tools/dataset_converters/check_dataset.py` as a module."""
    return tool('dataset_converters/check_dataset')


def scene(seed):
    """Photo (H, W, 3), classes (H, W) and instances (H, W)."""
    return draw_scene(np.random.default_rng(seed), SIDE)


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_instances(root, count=12):
    """One file with ids 7, 3, 12, a category without annotation and bare polygons."""
    images, annotations = [], []
    for number in range(count):
        photo, semantic, instance = scene(number)
        save(photo, root / f'photos/{number:03d}.png')
        images.append(
            dict(id=number, file_name=f'{number:03d}.png', height=SIDE, width=SIDE)
        )
        for thing in np.unique(instance[instance > 0]).tolist():
            mask = instance == thing
            name = CLASSES[int(semantic[mask][0])]
            ys, xs = np.nonzero(mask)
            left, top, right, low = (
                int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            )
            if name in IDS:
                outline = [left, top, right, top, right, low, left, low]
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=number,
                        category_id=IDS[name],
                        segmentation=[outline],
                    )
                )
    categories = [dict(id=i, name=name) for name, i in IDS.items()]
    categories.insert(0, dict(id=1, name='shapes'))
    content = dict(images=images, annotations=annotations, categories=categories)
    (root / 'annotations.json').write_text(json.dumps(content))
    return root


def write_label_maps(root, count=8):
    """Photos as JPEG, label maps as PNG, two splits."""
    for split, first in (('train', 0), ('val', 100)):
        for number in range(first, first + count):
            photo, semantic, _ = scene(number)
            save(photo, root / f'images/{split}/{number}.jpg')
            labels = semantic.astype(np.uint8)
            labels[-4:] = 255
            save(labels, root / f'labels/{split}/{number}.png')
    (root / 'classes.txt').write_text('\n'.join(CLASSES))
    return root


def write_panoptic(root, count=8):
    """Two splits; photos are PNGs too, and stuff stands before things."""
    categories = [
        dict(id=10 + i, name=name, isthing=int(i >= NUM_STUFF), color=[40 * i, 9, 99])
        for i, name in enumerate(CLASSES)
    ]
    things_first = CLASSES[NUM_STUFF:] + CLASSES[:NUM_STUFF]
    for split, first in (('train', 0), ('val', 100)):
        images, annotations = [], []
        for number in range(first, first + count):
            photo, semantic, instance = scene(number)
            save(photo, root / f'{split}/{number}.png')
            colours, infos = segments(number, semantic, instance)
            save(colours, root / f'annotations/panoptic_{split}/{number}.png')
            for info in infos:
                name = things_first[info['category_id'] - 1]
                info['category_id'] = 10 + CLASSES.index(name)
            name = f'{number}.png'
            images.append(dict(id=number, file_name=name, height=SIDE, width=SIDE))
            annotations.append(
                dict(image_id=number, file_name=name, segments_info=infos)
            )
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / f'annotations/panoptic_{split}.json').write_text(json.dumps(content))
    return root


@pytest.fixture
def datasets():
    """Writers by task."""
    return dict(
        instance=write_instances, semantic=write_label_maps, panoptic=write_panoptic
    )
