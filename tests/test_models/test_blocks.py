"""Blocks of masks: results do not depend on them, operations and memory do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from operators import Operators, Waits
from test_postprocess import arguments, logits_of, random_case
from torch.utils._python_dispatch import _disable_current_modes

from eomt_mm.errors import UserError
from eomt_mm.models.blocks import BLOCK_BYTES, Block, block_of, room_for
from eomt_mm.models.postprocess import instance_result, panoptic_result, semantic_result
from eomt_mm.run_lengths import encode_masks

CPU = torch.device('cpu')
SHAPES = {'1280 x 960': (960, 1280), '4000 x 3000': (3000, 4000)}
TASKS = {
    'panoptic': panoptic_result,
    'instance': instance_result,
    'semantic': semantic_result,
}


@pytest.mark.parametrize('kept', [1, 5])
@pytest.mark.parametrize('task', ['panoptic', 'instance'])
def test_the_device_is_asked_once(task, kept, monkeypatch):
    """Numbers travel to the host once for an image, however many masks there are."""
    lists, tolist = [], torch.Tensor.tolist

    def counted(self):
        lists.append(self)
        with _disable_current_modes():  # a CPU gives its numbers one by one
            return tolist(self)

    monkeypatch.setattr(torch.Tensor, 'tolist', counted)
    sizes = (32, 32), (32, 32), (48, 40)
    given = logits_of([0, 3] * kept), torch.randn(2 * kept, 8, 8), *sizes, 2
    with Waits() as waits:
        TASKS[task](*given, block_bytes=1)
    assert waits.names == [] and len(lists) == 1


def compare(count):
    """Random cases in blocks of all sizes; called in a process of its own."""
    for seed in range(count):
        given = arguments(random_case(seed))
        panoptic, instances = panoptic_result(*given), instance_result(*given)
        for block_bytes in (1, 2000, BLOCK_BYTES):
            again = panoptic_result(*given, block_bytes=block_bytes)
            assert torch.equal(again, panoptic), (seed, block_bytes)
            again = instance_result(*given, block_bytes=block_bytes)
            assert all(map(torch.equal, again, instances)), (seed, block_bytes)


def compare_apart(count):
    """Compare where every number is rounded alike wherever it lies, as on a GPU.

    The vector instructions of a CPU round some sigmoids unlike the others, which
    settles ties; without them there is no such difference.
    """
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, '-c', f'from test_blocks import compare; compare({count})'],
        cwd=Path(__file__).parent,
        env={
            **os.environ,
            'ATEN_CPU_CAPABILITY': 'default',
            'PYTHONPATH': str(root),
        },
        check=True,
    )


def test_blocks_change_nothing():
    compare_apart(300)


@pytest.mark.campaign
def test_blocks_change_nothing_in_10_000_cases():
    compare_apart(10_000)


def sure_case(kept, ori_shape):
    """An image on an input of 640 pixels, of whose queries `kept` are sure."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.randn(200, 10, 10, generator=generator) * 5
    masks = torch.nn.functional.interpolate(masks[None], (160, 160))[0]
    labels = [k % 5 if k < kept else 5 for k in range(200)]
    factor = 640 / max(ori_shape)
    within = tuple(round(side * factor) for side in ori_shape)
    return logits_of(labels, 12.0), masks, within, (640, 640), ori_shape


def count(task, kept, ori_shape, block_bytes):
    given = sure_case(kept, ori_shape)
    if task == 'semantic':
        options = {}
    elif task == 'panoptic':
        options = dict(num_things=3)
    else:  # as many results as queries are sure
        options = dict(num_things=5, max_per_image=kept)
    with Operators() as operators:
        TASKS[task](*given, **options, block_bytes=block_bytes)
    return operators


@pytest.mark.parametrize('task', ['panoptic', 'instance'])
def test_operators_grow_with_blocks_alone(task):
    """Sizes are an eighth of 1280 x 960: within a block, and block by block."""
    shape = (120, 160)
    within = {kept: count(task, kept, shape, 2**40).count for kept in (20, 200)}
    assert within[20] == within[200]

    mask_bytes = 8 * (640 * 640 + 120 * 160)
    blocks_of_ten = {
        kept: count(task, kept, shape, 10 * mask_bytes).count for kept in (20, 40, 200)
    }
    per_block = (blocks_of_ten[40] - blocks_of_ten[20]) / 2
    assert per_block < within[20]
    assert blocks_of_ten[200] == blocks_of_ten[20] + 18 * per_block


@pytest.mark.campaign
@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('task', TASKS)
def test_operators_at_full_size(task, shape):
    """Blocks are those of an accelerator; `-s` prints the table of docs/speed.md."""
    height, width = SHAPES[shape]
    masks = block_of(torch.device('cuda'), (640, 640), (height, width)).masks
    found = {}
    count(task, 20, (height, width), BLOCK_BYTES)  # kernels are timed once
    for kept in (20, 200):
        operators = count(task, kept, (height, width), BLOCK_BYTES)
        blocks = -(-kept // masks)
        found[kept] = operators.count
        result = 24 * height * width
        if task == 'instance':
            result = kept * height * width
        if task != 'semantic':
            assert operators.peak <= BLOCK_BYTES + result
        print(
            f'\n{task}, {shape}, {kept} kept: {operators.count} operators, '
            f'{blocks} blocks, {operators.peak / 2**20:,.0f} MiB'
        )
    if task == 'semantic':
        assert found[200] == found[20]
    else:
        assert found[200] <= 10 * found[20]


@pytest.mark.parametrize('task', ['panoptic', 'instance'])
@pytest.mark.parametrize('budget', [2**24, 2**26])
def test_memory_is_bounded(task, budget):
    shape = (300, 400)
    result = 24 * 300 * 400 if task == 'panoptic' else 200 * 300 * 400
    peak = count(task, 200, shape, budget).peak
    assert budget / 3 < peak <= budget + result + 2**20  # and small change


def test_less_than_a_mask_is_one():
    assert block_of(CPU, (640, 640), (960, 1280), block_bytes=1) == Block(1, 960)
    assert block_of(CPU, (640, 640), (960, 1280)) == Block(1, 2**20 // 1280)
    gpu = block_of(torch.device('cuda'), (640, 640), (960, 1280))
    assert gpu == Block(2**29 // (8 * (640 * 640 + 960 * 1280)), 960)


def test_result_beyond_the_memory():
    with pytest.raises(UserError, match=r'Ids of 4000000 x 4000000 .* 119,209\.3 GiB'):
        room_for('Ids', (4_000_000, 4_000_000), torch.int64, CPU)
    classes, masks = logits_of([0, 1]), torch.zeros(2, 4, 4)
    sizes = (4, 4), (4, 4), (4_000_000, 4_000_000)
    for find in (panoptic_result, instance_result):
        with pytest.raises(UserError, match='GiB'):
            find(classes, masks, *sizes, 3)


def test_encoded_in_blocks():
    given = arguments(random_case(3))
    plain = instance_result(*given)
    for block_bytes in (None, 1, 2000, BLOCK_BYTES):
        found = instance_result(*given, encode=encode_masks, block_bytes=block_bytes)
        assert found.masks == encode_masks(plain.masks)
