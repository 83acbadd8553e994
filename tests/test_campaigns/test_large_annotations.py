"""Annotation files of COCO's size: time and memory beside MMDetection's own loading."""

import json
import math
import random
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

IMAGES, ANNOTATIONS, CLASSES, ROUNDS = 118_000, 860_000, 80, 3
# How much longer this package may take, which also checks the file.
MOST = 1.2
BUILD = """
import json, resource, sys, time
from mmengine.registry import DATASETS, init_default_scope
from mmdet.utils import register_all_modules
import eomt_mm.datasets.detection  # both contenders have paid for the imports
register_all_modules()
kind, path, classes = sys.argv[1], sys.argv[2], int(sys.argv[3])
metainfo = dict(classes=[f'class {i}' for i in range(classes)])
started = time.process_time()
dataset = DATASETS.build(dict(
    type=kind, ann_file=path, data_prefix=dict(img='images'), metainfo=metainfo,
    filter_cfg=dict(filter_empty_gt=True, min_size=32), lazy_init=False))
seconds = time.process_time() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([len(dataset), seconds, peak]))
"""


def outline(rng: random.Random) -> tuple[list[int], float]:
    """Draw a polygon of 25 points around the middle of 100 x 100; also its area."""
    angles = sorted(rng.uniform(0, 2 * math.pi) for _ in range(25))
    radii = [rng.uniform(20, 50) for _ in angles]
    xs, ys = (
        [round(50 + r * f(a)) for r, a in zip(radii, angles, strict=True)]
        for f in (math.cos, math.sin)
    )
    pairs = [*zip(xs, ys, xs[1:] + xs[:1], ys[1:] + ys[:1], strict=True)]
    area = abs(sum(x * v - u * y for x, y, u, v in pairs)) / 2
    return [number for x, y, *_ in pairs for number in (x, y)], area


def made_up(path: Path) -> None:
    """Write a file as large as COCO's, of polygons as long as COCO's on average."""
    rng = random.Random(0)
    images = [
        dict(id=i, file_name=f'{i:012}.jpg', height=480, width=640)
        for i in range(1, IMAGES + 1)
    ]
    outlines = [outline(rng) for _ in range(1000)]
    annotations = []
    for i in range(1, ANNOTATIONS + 1):
        shift = rng.randint(0, 500), rng.randint(0, 350)
        points, area = rng.choice(outlines)
        points = [number + shift[place % 2] for place, number in enumerate(points)]
        left, top = min(points[::2]), min(points[1::2])
        box = [left, top, max(points[::2]) - left, max(points[1::2]) - top]
        annotations.append(
            dict(
                id=i,
                image_id=rng.randint(1, IMAGES),
                category_id=rng.randint(1, CLASSES),
                iscrowd=0,
                area=area,
                bbox=box,
                segmentation=[points],
            )
        )
    categories = [dict(id=i + 1, name=f'class {i}') for i in range(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    path.write_text(json.dumps(content))


@pytest.mark.campaign
def test_coco_sized_files_are_built_about_as_fast(tmp_path):
    path = tmp_path / 'instances.json'
    made_up(path)
    figures = {'eomt_mm.CocoInstanceDataset': [], 'mmdet.CocoDataset': []}
    for _ in range(ROUNDS):
        for kind, found in figures.items():
            command = [sys.executable, '-c', BUILD, kind, str(path), str(CLASSES)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    print()
    medians = {}
    for kind, found in figures.items():
        length, seconds, peak = (
            statistics.median(column) for column in zip(*found, strict=True)
        )
        medians[kind] = seconds
        print(f'| {kind} | {length:,.0f} images | {seconds:.1f} s | {peak:,.0f} MiB |')
    ours, theirs = medians.values()
    assert ours < MOST * theirs, medians
