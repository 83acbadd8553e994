"""Time and memory of post-processing: this package against MMDetection's fusion head.

Both get the same logits of one image, alternated in one run, and must return the same
results; the figures below the table say whether they do.

    OMP_NUM_THREADS=1 python tools/analysis_tools/benchmark_postprocess.py --kept 20

Memory is the peak resident set that a fresh process needs on top of its inputs: in a
shared one the second contender would work in what the first has left.

Needs MMDetection; runs on the CPU, on Linux.
"""

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict

from eomt_mm.models.postprocess import instance_result, panoptic_result

CLASSES, THINGS = 133, 80


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--queries', type=int, default=200)
    parser.add_argument('--kept', type=int, default=20, help='queries with a class')
    parser.add_argument('--input', type=int, default=640, help='input side in pixels')
    parser.add_argument('--ori', type=int, nargs=2, default=(960, 1280), help='H W')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--memory-of', nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def make_logits(args):
    """Round, noisy masks; `kept` of the queries are sure of a class."""
    torch.manual_seed(0)
    classes = torch.randn(args.queries, CLASSES + 1) / 2
    classes[:, -1] += 8
    sure = torch.randperm(args.queries)[: args.kept]
    classes[sure, -1] -= 8
    classes[sure, torch.randint(CLASSES, (args.kept,))] += 9
    side = args.input // 4
    centre = torch.rand(args.queries, 2, 1, 1) * side
    radius = (0.05 + 0.2 * torch.rand(args.queries, 1, 1)) * side
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing='ij')
    distance = ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2).sqrt()
    masks = 1.5 * (radius - distance) + 0.3 * torch.randn(args.queries, side, side)
    return classes, masks


def make_jobs(args):
    """{task: {who: function}}."""
    classes, masks = make_logits(args)
    factor = args.input / max(args.ori)
    img_shape = tuple(round(side * factor) for side in args.ori)
    sizes = (img_shape, (args.input, args.input), tuple(args.ori))

    def stock(**what):
        options = dict(panoptic_on=False, instance_on=False) | what
        cfg = ConfigDict(
            filter_low_score=True, object_mask_thr=0.8, iou_thr=0.8, max_per_image=100
        )
        head = MaskFormerFusionHead(THINGS, CLASSES - THINGS, test_cfg=cfg | options)
        # Part of MMDet's way: the head gets all masks at the input's size.
        large = F.interpolate(masks[None], sizes[1], mode='bilinear')
        sample = DetDataSample(metainfo=dict(img_shape=img_shape, ori_shape=sizes[2]))
        return head.predict(classes[None], large, [sample], rescale=True)[0]

    return {
        'panoptic': {
            'mmdet': lambda: stock(panoptic_on=True)['pan_results'].sem_seg[0].long(),
            'ours': lambda: panoptic_result(classes, masks, *sizes, THINGS),
        },
        'instance': {
            'mmdet': lambda: stock(instance_on=True)['ins_results'],
            'ours': lambda: instance_result(classes, masks, *sizes, THINGS),
        },
    }


def resident_set(field):
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.split(f'{field}:')[1].split()[0])


def peak_memory(function):
    """Bytes that one call adds, in a process that has done nothing else."""
    ctypes.CDLL(None).malloc_trim(0)  # what making the inputs has left behind
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far
    before = resident_set('VmRSS')
    function()
    return resident_set('VmHWM') - before


def compare(task, ours, theirs):
    if task == 'panoptic':
        equal = torch.equal(ours, theirs)
        return f'identical: {equal}, {len(ours.unique())} segments with void'
    same = (
        torch.equal(ours.labels, theirs.labels)
        and torch.equal(ours.masks, theirs.masks)
        and torch.equal(ours.boxes, theirs.bboxes)
    )
    gap = (ours.scores - theirs.scores).abs().max()
    return f'labels, masks, boxes identical: {same}, scores within {gap:.1e}'


@torch.inference_mode()
def main(argv=None):
    args = parse_args(argv)
    jobs = make_jobs(args)
    if args.memory_of:
        task, who = args.memory_of
        print(peak_memory(jobs[task][who]))
        return
    threads = torch.get_num_threads()
    print(f'{args.kept} of {args.queries} kept, to {args.ori}, {threads} thread(s)')
    command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv)]
    for task, contenders in jobs.items():
        seconds = {who: [] for who in contenders}
        results = {}
        for _ in range(args.rounds):
            for who, function in contenders.items():
                start = time.perf_counter()
                results[who] = function()
                seconds[who].append(time.perf_counter() - start)
        medians = {who: statistics.median(s) for who, s in seconds.items()}
        memory = {}
        for who in contenders:
            alone = subprocess.run(
                [*command, '--memory-of', task, who],
                check=True,
                capture_output=True,
                text=True,
            )
            memory[who] = int(alone.stdout.split()[-1])
        for who in contenders:
            print(
                f'{task:9} {who:6} {1000 * medians[who]:8.1f} ms '
                f'({medians["mmdet"] / medians[who]:4.1f}x) '
                f'{memory[who] / 2**20:8.1f} MiB ({memory[who] / memory["mmdet"]:6.1%})'
            )
        print(f'          {compare(task, results["ours"], results["mmdet"])}')


if __name__ == '__main__':
    main()
