"""Time and memory of post-processing: this package against MMDetection's fusion head.

Both get the same logits of one image, alternated in one run, and must return the same
results; the figures below the table say whether they do.

    OMP_NUM_THREADS=1 python tools/analysis_tools/benchmark_postprocess.py --kept 20

Memory is what the process needs on top of its inputs, sampled every millisecond. Needs
MMDetection; runs on the CPU.
"""

import argparse
import statistics
import threading
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


def resident_set():
    return 4096 * int(Path('/proc/self/statm').read_text().split()[1])


def measure(function):
    """Seconds, peak bytes and the result of one call."""
    base = peak = resident_set()
    done = threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.001):
            peak = max(peak, resident_set())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return seconds, peak - base, result


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
    threads = torch.get_num_threads()
    print(f'{args.kept} of {args.queries} kept, to {args.ori}, {threads} thread(s)')
    for task, jobs in make_jobs(args).items():
        runs = {who: [] for who in jobs}
        results = {}
        for _ in range(args.rounds):
            for who, function in jobs.items():
                results[who] = None  # frees the last one before it is measured anew
                *figures, results[who] = measure(function)
                runs[who].append(figures)
        figures = {}
        for who, rows in runs.items():
            seconds, memory = zip(*rows, strict=True)
            figures[who] = statistics.median(seconds), max(memory)
        for who, (seconds, memory) in figures.items():
            ratio = figures['mmdet'][0] / seconds
            share = memory / figures['mmdet'][1]
            print(
                f'{task:9} {who:6} {1000 * seconds:8.1f} ms ({ratio:4.1f}x) '
                f'{memory / 2**20:8.1f} MiB ({share:6.1%})'
            )
        print(f'          {compare(task, results["ours"], results["mmdet"])}')


if __name__ == '__main__':
    main()
