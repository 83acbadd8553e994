"""Time and memory of masked self-attention: full N x N mask against split rows.

Forward and backward of one attention layer, the variants alternated in one run:

- `full`: one bool mask (B, 1, N, N), expanded over heads, as the reference has it;
- `split`: only the query rows carry a mask, as this package does;
- `free`: no mask at all, the floor.

    python tools/analysis_tools/benchmark_attention.py --size 640 --queries 200

Memory is what a fresh process needs on top of its inputs (peak resident set on a CPU,
peak allocation on a GPU).
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
from measuring.measure import bound_memory, peak_memory
from measuring.report import machine, markdown, write_json
from measuring.run import Job, Plan, refuse_differing, run_job

from eomt_mm import cli
from eomt_mm.models.masked_attention import split_attention

VARIANTS = ('full', 'split', 'free')
PREFIX = 5  # CLS and four registers


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    number = cli.positive
    parser.add_argument('--size', type=number, default=640, help='image side in pixels')
    parser.add_argument('--patch', type=number, default=16)
    parser.add_argument('--queries', type=number, default=200)
    parser.add_argument('--batch', type=number, default=2)
    parser.add_argument('--heads', type=number, default=6, help='6: ViT-S, 16: ViT-L')
    parser.add_argument('--head-dim', type=number, default=64)
    parser.add_argument('--rounds', type=number, default=10)
    parser.add_argument('--json', help='also write the figures to this file')
    parser.add_argument('--memory-of', choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.size < args.patch:
        parser.error(f'--size {args.size} is smaller than a --patch of {args.patch}')
    return args


def attend(variant, q, k, v, mask):
    if variant == 'split':
        return split_attention(q, k, v, mask)
    if variant == 'free':
        return F.scaled_dot_product_attention(q, k, v)
    batch, heads, tokens, _ = q.shape
    queries, patches = mask.shape[1:]
    full = torch.ones(batch, tokens, tokens, dtype=torch.bool, device=q.device)
    full[:, :queries, -patches:] = mask
    full = full[:, None].expand(-1, heads, -1, -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=full)


def make_job(args, device):
    torch.manual_seed(0)
    patches = (args.size // args.patch) ** 2
    tokens = args.queries + PREFIX + patches
    shape = (args.batch, args.heads, tokens, args.head_dim)
    qkv = [torch.randn(shape, device=device, requires_grad=True) for _ in range(3)]
    mask = torch.rand(args.batch, args.queries, patches, device=device) > 0.5
    for tensor in qkv:
        tensor.grad = torch.zeros_like(tensor)

    def step(variant):
        for tensor in qkv:
            tensor.grad.zero_()
        out = attend(variant, *qkv, mask)
        out.sum().backward()
        return out.detach(), *(tensor.grad.clone() for tensor in qkv)

    contenders = {name: lambda name=name: lambda: step(name) for name in VARIANTS}
    title = f'attention, batch {args.batch}, {args.heads} heads, {tokens} tokens'
    return Job(f'{title}, forward and backward', args.batch, contenders, {'split'})


def main(argv=None):
    args = parse_args(argv)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    job = make_job(args, device)
    if args.memory_of:
        bound_memory()
        print(peak_memory(job.contenders[args.memory_of](), device))
        return
    argv = sys.argv[1:] if argv is None else argv
    command = [os.path.abspath(__file__), *argv, '--memory-of']
    plan = Plan(device, args.rounds, 1, lambda who: [*command, who])
    rows, differing = run_job(job, plan)
    print(markdown(rows))
    if args.json:
        write_json(args.json, rows, ['python', sys.argv[0], *argv], machine(device))
    refuse_differing(differing)


if __name__ == '__main__':
    sys.exit(cli.run(main))
