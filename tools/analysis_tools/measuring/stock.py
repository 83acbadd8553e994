"""Time and memory of post-processing: this package against MMDetection's fusion head.

Both get the same logits of one image, alternated in one run, and must return the same
results; the last column says whether they do.

    OMP_NUM_THREADS=1 python tools/analysis_tools/benchmark_postprocess.py --kept 20

Memory is the peak resident set that a fresh process needs on top of its inputs: in a
shared one the second contender would work in what the first has left.

Needs MMDetection; runs on the CPU, on Linux.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import os
import sys

import torch
import torch.nn.functional as F
from measuring.inputs import CLASSES, THINGS, class_logits, mask_logits
from measuring.measure import bound_memory, peak_memory
from measuring.report import machine, markdown, write_json
from measuring.run import Job, Plan, refuse_differing, run_job
from mmdet.models.seg_heads.panoptic_fusion_heads import MaskFormerFusionHead
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict

from eomt_mm import cli
from eomt_mm.models.postprocess import Instances, instance_result, panoptic_result

CPU = torch.device('cpu')


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    number = cli.positive
    parser.add_argument('--queries', type=number, default=200)
    parser.add_argument(
        '--kept', type=cli.not_negative, default=20, help='queries with a class'
    )
    parser.add_argument(
        '--input', type=number, default=640, help='input side in pixels'
    )
    parser.add_argument('--ori', type=number, nargs=2, default=(960, 1280), help='H W')
    parser.add_argument('--rounds', type=number, default=5)
    parser.add_argument('--json', help='also write the figures to this file')
    parser.add_argument('--memory-of', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.kept > args.queries:
        parser.error(f'--kept {args.kept}: give 0 to {args.queries}, the --queries')
    return args


def make_jobs(args):
    """{task: job}."""
    classes = class_logits(args.queries, args.kept)
    masks = mask_logits(args.queries, args.input // 4)
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

    def their_segments():
        return stock(panoptic_on=True)['pan_results'].sem_seg[0].long()

    def their_instances():
        found = stock(instance_on=True)['ins_results']
        return Instances(found.labels, found.scores, found.masks, found.bboxes)

    def our_segments():
        return panoptic_result(classes, masks, *sizes, THINGS)

    def our_instances():
        return instance_result(classes, masks, *sizes, THINGS)

    height, width = args.ori
    case = f'{args.kept} of {args.queries} kept, {args.input} to {width} x {height}'
    return {
        task: Job(
            f'{task}, {case}',
            1,
            {'ours': lambda ours=ours: ours, 'mmdet': lambda theirs=theirs: theirs},
            {'mmdet'},
        )
        for task, ours, theirs in (
            ('panoptic', our_segments, their_segments),
            ('instance', our_instances, their_instances),
        )
    }


@torch.inference_mode()
def main(argv=None):
    args = parse_args(argv)
    jobs = make_jobs(args)
    if args.memory_of:
        task, who = args.memory_of
        bound_memory()
        print(peak_memory(jobs[task].contenders[who](), CPU))
        return
    argv = sys.argv[1:] if argv is None else argv
    command = [os.path.abspath(__file__), *argv, '--memory-of']
    rows, differing = [], []
    for task, job in jobs.items():
        plan = Plan(CPU, args.rounds, 0, lambda who, task=task: [*command, task, who])
        found, different = run_job(job, plan)
        print(markdown(found), flush=True)
        rows += found
        differing += different
        if args.json:  # after each, so that an interrupted run leaves the other
            write_json(args.json, rows, ['python', sys.argv[0], *argv], machine(CPU))
    refuse_differing(differing)


if __name__ == '__main__':
    sys.exit(cli.run(main))
