"""Results in COCO's formats, as bytes for a download."""

import io
import json

import numpy as np
from PIL import Image

from .photo import Photo
from .segments import Segment, Segments


def png(pixels: np.ndarray) -> bytes:
    """Encode a picture, shape (H, W, 3) uint8."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG', compress_level=3)
    return file.getvalue()


def panoptic_png(segments: Segments) -> bytes:
    """Encode the map of segments: red + 256 green is the id, 0 is void."""
    ids = segments.index
    return png(np.stack([ids & 255, ids >> 8, np.zeros_like(ids)], -1).astype(np.uint8))


def coco_json(photo: Photo, segments: Segments, model) -> bytes:
    """Write a COCO annotation file of one photo.

    Instances have masks, boxes and scores. Other tasks have COCO's panoptic format,
    whose map is `panoptic_png`. Categories count from 1, in the order of the classes.

    Args:
        photo (Photo): The photo.
        segments (Segments): At its size.
        model (Model): Whose result it is.
    """
    height, width = photo.size
    stem = photo.name.rpartition('.')[0] or photo.name
    rows = [dict(id=i + 1, **_row(row)) for i, row in enumerate(segments.rows)]
    if model.task == 'instance':
        annotations = [
            dict(row, image_id=1, segmentation=as_text(segment.runs))
            for row, segment in zip(rows, segments.rows, strict=True)
        ]
    else:
        annotations = [dict(image_id=1, file_name=f'{stem}.png', segments_info=rows)]
    things = model.num_things
    content = dict(
        info=dict(description=f'prediction of {model.name}'),
        images=[dict(id=1, file_name=photo.name, height=height, width=width)],
        categories=[
            dict(id=i + 1, name=name, isthing=int(i < things))
            for i, name in enumerate(model.classes)
        ],
        annotations=annotations,
    )
    return json.dumps(content).encode()


def _row(row: Segment) -> dict:
    area, box = row.area, row.box
    return dict(
        category_id=row.label + 1,
        area=area,
        bbox=list(box),
        iscrowd=0,
        **({} if row.score is None else dict(score=round(row.score, 4))),
    )


def run_lengths(mask: np.ndarray) -> dict:
    """Encode a mask (H, W) bool as COCO's uncompressed runs, down the columns."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat, prepend=False))
    runs = np.diff(ends, prepend=0, append=flat.size)
    return dict(size=list(mask.shape), counts=runs.tolist())


def as_text(runs: dict) -> dict:
    """Return an encoded mask with what JSON can hold."""
    counts = runs['counts']
    counts = counts.decode() if isinstance(counts, bytes) else counts
    return dict(size=[int(side) for side in runs['size']], counts=counts)
