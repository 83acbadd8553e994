"""Tiles: where they lie, which segments are joined, and results of a drawn world."""

import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from test_blocks import Operators
from test_detector import batch_of, config

from eomt_mm.errors import UserError
from eomt_mm.models.postprocess import instance_result, panoptic_result
from eomt_mm.models.tile_merging import (
    MODEST,
    Piece,
    Tile,
    TiledMasks,
    join,
    merge_tiles,
)
from eomt_mm.models.tiles import Tiling, tile_starts

THINGS, CLASSES = 2, 3  # thing 0, thing 1, stuff 2


@pytest.mark.parametrize('overlap', [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize('step', [1, 4, 16])
def test_tiles_cover_and_overlap(overlap, step):
    for size in (16, 32, 64):
        for length in range(1, 300, 7):
            starts = tile_starts(length, size, overlap, step)
            assert starts[0] == 0 and all(start % step == 0 for start in starts)
            assert length <= starts[-1] + size and starts[-1] < max(
                1, length - size + step
            )
            for one, other in zip(starts, starts[1:], strict=False):
                assert one < other
                assert one + size - other >= overlap * size - step


class World:
    """An image of stuff and things, and a network that sees what is drawn in it.

    Each channel of the image is one segment. The network finds those that have a cell
    in what it is shown, and says their labels.

    Args:
        things (tuple[int, int, int, int, int]): Label, top, left, bottom and right of
            each, in cells of 4 pixels; later ones are in front.
    """

    def __init__(self, *things, size=(96, 128)):
        self.labels = [2, *(label for label, *_ in things)]
        self.image = torch.zeros(len(self.labels), *size)
        self.image[0] = 1
        for number, (_, *box) in enumerate(things, start=1):
            top, left, bottom, right = (4 * side for side in box)
            self.image[:, top:bottom, left:right] = 0
            self.image[number, top:bottom, left:right] = 1
        self.black = torch.zeros(len(self.labels), 1, 1)

    def network(self, images):
        assert images.shape[2:] == (32, 32)
        inside = F.avg_pool2d(images, 4) >= 0.5
        labels = torch.tensor(self.labels).expand(len(images), -1)
        labels = labels.where(inside.flatten(2).any(2), torch.tensor(CLASSES))
        masks = torch.where(inside, 6.0, -6.0)
        return 8.0 * F.one_hot(labels, CLASSES + 1).float(), masks

    def segments(self, even=False, **options):
        return tiling(**options).predict(self.network, self.image, self.black, even)

    def things(self, **options):
        """Label and box of each thing that tiles find."""
        found = instance_result(*self.segments(**options), (96, 128), THINGS)
        sure = found.scores > 0.5
        boxes = (found.boxes[sure] / 4).round().int().tolist()
        return sorted(
            (label, box[1], box[0], box[3], box[2])
            for label, box in zip(found.labels[sure].tolist(), boxes, strict=True)
        )


def tiling(**options):
    return Tiling(options, (32, 32), 4, THINGS)


# Across a border of tiles, over several tiles, side by side, one in front of another,
# in a corner of four tiles.
WORLDS = {
    'small': [(0, 2, 2, 4, 4)],
    'across a border': [(0, 2, 6, 5, 12)],
    'larger than a tile': [(1, 2, 3, 20, 28)],
    'side by side': [(0, 4, 2, 8, 6), (0, 4, 7, 8, 11)],
    'in front': [(1, 2, 2, 18, 26), (0, 6, 6, 9, 9)],
    'in a corner': [(0, 5, 5, 11, 11)],
    'many': [
        (i % 2, 1 + 8 * (i // 4), 1 + 8 * (i % 4), 4 + 8 * (i // 4), 5 + 8 * (i % 4))
        for i in range(12)
    ],
}


@pytest.mark.parametrize('overlap', [0.25, 0.5])
@pytest.mark.parametrize('name', WORLDS)
def test_each_thing_once(name, overlap):
    assert World(*WORLDS[name]).things(overlap=overlap) == sorted(WORLDS[name])


@pytest.mark.parametrize('name', WORLDS)
def test_each_pixel_belongs_to_its_segment(name):
    world = World(*WORLDS[name])
    ids = panoptic_result(*world.segments(overlap=0.5), (96, 128), THINGS)
    segment = world.image.argmax(0)
    # At the borders of things, bilinear masks of 4 pixels a cell are a little off.
    of_segment = [
        ids[segment == number].mode().values for number in range(len(world.labels))
    ]
    assert [int(found) % 1000 for found in of_segment] == world.labels
    assert len(set(map(int, of_segment))) == len(world.labels)
    assert (ids == torch.stack(of_segment)[segment]).float().mean() > 0.96


def test_small_things_need_tiles():
    """Shrunk to one tile, a thing of one cell is a sixteenth of a cell."""
    things = [(0, 3, 3, 4, 4), (1, 10, 20, 11, 21)]
    world = World(*things)
    assert world.things(overlap=0.5) == things
    whole = tiling().fitted(world.image)
    assert whole.shape == (3, 24, 32)
    padded = F.pad(whole, (0, 0, 0, 8))[None]
    labels = world.network(padded)[0].argmax(2)
    assert labels.tolist() == [[2, CLASSES, CLASSES]]


def test_parts_of_a_large_thing_need_the_whole_image():
    """Tiles without overlap see nothing in common: only the whole image joins them."""
    thing = [(1, 2, 3, 20, 28)]
    world = World(*thing)
    assert world.things(overlap=0.0) == thing
    assert len(world.things(overlap=0.0, coarse=False)) > 1
    assert world.things(overlap=0.25, coarse=False) == thing


def test_tiles_at_a_time_change_nothing():
    world = World(*WORLDS['many'])
    expected = instance_result(*world.segments(), (96, 128), THINGS)
    for even in (False, True):
        for count in (1, 3, 100):
            segments = world.segments(even, max_tiles=count)
            found = instance_result(*segments, (96, 128), THINGS)
            assert torch.equal(found.masks, expected.masks)
            assert torch.equal(found.scores, expected.scores)


def test_passes_are_bounded():
    world, sizes = World(), []
    seen = world.network

    def network(images):
        sizes.append(len(images))
        return seen(images)

    world.network = network
    world.segments(max_tiles=5)
    assert sum(sizes) == 4 * 5 + 1 and max(sizes) == 5
    sizes.clear()
    world.segments(even=True, max_tiles=5)
    assert sum(sizes) == 4 * 5 + 1 and set(sizes) <= {1, 2, 4}


def test_a_tile_of_another_size():
    """Tiles of 16 pixels are enlarged to the input of 32."""
    things = [(0, 2, 2, 3, 3), (1, 10, 20, 12, 22)]
    assert World(*things).things(size=16, overlap=0.5) == things


def test_masks_are_made_when_asked_for():
    """A mask of two tiles: their mean where they overlap, nothing beyond."""
    one = Tile((0, 0), torch.ones(1, 4), torch.full((1, 2, 4), 2.0))
    two = Tile((0, 2), torch.ones(1, 4), torch.full((1, 2, 4), 4.0))
    masks = TiledMasks([one, two], [[Piece(0, 0), Piece(1, 0)], [Piece(1, 0)]], (2, 8))
    assert masks[torch.tensor([0])][0, 0].tolist() == [2, 2, 3, 3, 4, 4, -20, -20]
    assert masks[torch.tensor([1])][0, 0].tolist() == [-20, -20, 4, 4, 4, 4, -20, -20]
    assert len(masks) == 2 and masks[torch.tensor([1, 0])].shape == (2, 2, 8)


def test_the_whole_image_is_looked_at_as_it_is_resized():
    masks = torch.randn(3, 6, 8)
    tile = Tile(None, torch.ones(3, 4), masks, (0.5, 0.25))
    # 6 x 8 cells are half of 12 rows and a quarter of 32 columns.
    expected = F.interpolate(masks[None], (12, 32), mode='bilinear')[0]
    found = tile.seen(slice(None), slice(0, 12), slice(0, 32))
    torch.testing.assert_close(found, expected)
    part = tile.seen(torch.tensor([2]), slice(3, 7), slice(10, 20))
    torch.testing.assert_close(part, expected[2:, 3:7, 10:20])


def test_the_most_similar_are_joined_first():
    a, b, c = Piece(0, 0), Piece(0, 1), Piece(1, 0)
    groups = join([(0.6, a, c), (0.9, b, c)], [2, 1])
    assert sorted(map(sorted, groups)) == [[a], [b, c]]


def test_the_whole_image_judges_stuff():
    """A tile that takes one stuff for another is overruled; one that agrees refines."""
    probs = torch.eye(4)  # a thing, two classes of stuff, nothing
    left, right = torch.full((2, 1, 8, 8), 3.0)
    right[:, 7] = -3.0  # finer than the whole image knows
    whole = torch.full((1, 4, 8), 2.0)
    tiles = [
        Tile((0, 0), probs[2:3], left),
        Tile((0, 8), probs[1:2], right),
        Tile(None, probs[1:2], whole, (0.5, 0.5)),
    ]
    logits, masks = merge_tiles(tiles, 1, 0.5, (8, 16))
    assert logits.argmax(1).tolist() == [1]
    (mask,) = masks[torch.tensor([0])]
    assert (mask[:, :8] == MODEST).all() and (mask[:7, 8:] == 3).all()
    assert (mask[7, 8:] == -3).all()
    # One that has missed most of it is not asked.
    right[:, 3:] = -3.0
    _, masks = merge_tiles(tiles, 1, 0.5, (8, 16))
    assert len(masks) == 1 and (masks[torch.tensor([0])] == MODEST).all()
    # Where the whole image sees no stuff, a tile is believed.
    tiles[2] = Tile(None, probs[:0], whole[:0], (0.5, 0.5))
    logits, _ = merge_tiles(tiles, 1, 0.5, (8, 16))
    assert sorted(logits.argmax(1).tolist()) == [1, 2]


def test_probabilities_are_means_by_area():
    probs = torch.tensor([[0.8, 0.1, 0.1]]), torch.tensor([[0.6, 0.2, 0.2]])
    masks = torch.full((1, 2, 4), 3.0), torch.full((1, 2, 4), 3.0)
    masks[1][:, :, 2:] = -3.0  # half the area
    tiles = [Tile((0, 0), probs[0], masks[0]), Tile((0, 2), probs[1], masks[1])]
    logits, merged = merge_tiles(tiles, 1, 0.5, (2, 6))
    assert len(merged) == 1
    expected = torch.tensor([[2.2 / 3, 0.4 / 3, 0.4 / 3]])
    torch.testing.assert_close(logits.softmax(-1), expected)


def test_nothing_found():
    world = World()
    world.image[:] = 0
    classes, masks, *sizes = world.segments()
    assert classes.shape == (0, CLASSES + 1) and len(masks) == 0
    assert len(instance_result(classes, masks, *sizes, (96, 128), THINGS).labels) == 0
    ids = panoptic_result(classes, masks, *sizes, (96, 128), THINGS)
    assert (ids == CLASSES).all()


def noisy(images):
    """A network whose 50 queries find something in every tile."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randn(len(images), 50, 2, 2, generator=generator)
    masks = F.interpolate(masks, (8, 8), mode='bilinear')
    return 9 * torch.randn(len(images), 50, CLASSES + 1, generator=generator), masks


def test_memory_does_not_grow_with_objects_times_pixels():
    """Two thousand masks of 256 x 256 pixels would be 500 MB."""
    image, size, budget = torch.zeros(3, 256, 256), (256, 256), 2**24
    with Operators() as cutting:
        segments = tiling(overlap=0.0, coarse=False).predict(
            noisy, image, torch.zeros(3, 1, 1)
        )
    probs = segments.class_logits.softmax(-1)
    assert len(probs) > 2000 and (probs[:, :-1] > 0.999).sum() > 200
    assert cutting.peak < 2**26
    with Operators() as painting:
        panoptic_result(*segments, size, THINGS, score_thr=0.999, block_bytes=budget)
    result = 24 * 256 * 256
    assert painting.peak <= 1.1 * budget + result


@pytest.fixture
def models():
    """A detector without tiles, and the same with them."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    plain = MODELS.build(config()).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.3)

    def build(**options):
        tiled = MODELS.build(config(test_cfg=dict(tiles=options))).eval()
        tiled.load_state_dict(plain.state_dict())
        return tiled

    return plain, build


@pytest.mark.parametrize('options', [{}, dict(size=32), dict(size=1000, coarse=False)])
def test_one_tile_is_no_tile(models, options):
    """Also one larger than the image."""
    plain, build = models
    tiled = build(**options)
    for shape in ((32, 32), (32, 20), (17, 32), (1, 9)):
        batch = batch_of(shape)
        with torch.no_grad():
            (expected,) = plain.test_step(copy.deepcopy(batch))
            (found,) = tiled.test_step(batch)
        ids = found.pred_panoptic_seg.sem_seg
        assert torch.equal(ids, expected.pred_panoptic_seg.sem_seg)
        for key in ('masks', 'scores', 'labels', 'bboxes'):
            assert torch.equal(found.pred_instances[key], expected.pred_instances[key])


def test_images_of_any_size_in_one_batch(models):
    _, build = models
    tiled = build(overlap=0.5, score_thr=0.0)
    shapes = [(32, 32), (50, 90), (33, 16)]
    with torch.no_grad():
        results = tiled.test_step(batch_of(*shapes))
    for (height, width), result in zip(shapes, results, strict=True):
        shape = 2 * height + 1, 3 * width
        assert result.pred_panoptic_seg.sem_seg.shape == (1, *shape)
        assert result.pred_instances.masks.shape[1:] == shape
        assert result.pred_instances.masks.any()


@pytest.mark.parametrize('channels', [1, 2, 4])
def test_images_of_other_channels(channels):
    """One mean for all channels, or one for each."""
    init_default_scope('mmdet')
    for count in {1, channels}:
        normal = dict(mean=[9.0] * count, std=[5.0] * count, bgr_to_rgb=False)
        given = config(
            backbone=dict(in_channels=channels),
            data_preprocessor=normal,
            test_cfg=dict(tiles=dict(score_thr=0.0)),
        )
        model = MODELS.build(given).eval()
        black = model.data_preprocessor.black()
        assert torch.equal(black, torch.full((channels, 1, 1), -9.0 / 5.0))
        batch = batch_of((50, 90))
        batch['inputs'] = [
            image[:1].repeat(channels, 1, 1) for image in batch['inputs']
        ]
        with torch.no_grad():
            (found,) = model.test_step(batch)
        assert found.pred_panoptic_seg.sem_seg.shape == (1, 101, 270)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(coarse='no'), "tiles.coarse is 'no', expected True or False"),
        (dict(size=7), 'tiles.size is 7, expected pixels, at least one patch of 8'),
        (dict(size=0.5), 'tiles.size is 0.5, expected pixels'),
        (dict(overlap=1.0), 'tiles.overlap is 1.0, expected a share from 0 to 0.9'),
        (dict(overlap=-0.1), 'tiles.overlap is -0.1'),
        (dict(match_thr='x'), "tiles.match_thr is 'x', expected a share from 0 to 1"),
        (dict(max_tiles=0), 'tiles.max_tiles is 0, expected 1 or more'),
        (dict(sizes=7), "unknown test_cfg options: 'sizes'. Known are: size, overlap"),
        (True, 'test_cfg.tiles is True, expected a dict'),
    ],
)
def test_bad_options(options, message):
    init_default_scope('mmdet')
    with pytest.raises(UserError, match=message):
        MODELS.build(config(test_cfg=dict(tiles=options)))


def test_what_tiles_cannot_give():
    init_default_scope('mmdet')
    with pytest.raises(UserError, match='tiles with semantic_on=True'):
        MODELS.build(config(test_cfg=dict(tiles=dict(), semantic_on=True)))
