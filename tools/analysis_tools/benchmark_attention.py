"""Time and memory of masked self-attention: full N x N mask against split rows.

Forward and backward of one attention layer, the variants alternated in one run:

- `full`: one bool mask (B, 1, N, N), expanded over heads, as the reference has it;
- `split`: only the query rows carry a mask, as this package does;
- `free`: no mask at all, the floor.

    python tools/analysis_tools/benchmark_attention.py --size 640 --queries 200

Memory is what a fresh process needs on top of its inputs (peak resident set on a CPU,
peak allocation on a GPU).
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F

from eomt_mm.models.masked_attention import split_attention

VARIANTS = ('full', 'split', 'free')
PREFIX = 5  # CLS and four registers


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', type=int, default=640, help='image side in pixels')
    parser.add_argument('--patch', type=int, default=16)
    parser.add_argument('--queries', type=int, default=200)
    parser.add_argument('--batch', type=int, default=2)
    parser.add_argument('--heads', type=int, default=6, help='6: ViT-S, 16: ViT-L')
    parser.add_argument('--head-dim', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--json', help='also write the figures to this file')
    parser.add_argument('--memory-of', choices=VARIANTS, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def make_inputs(args):
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    torch.manual_seed(0)
    patches = (args.size // args.patch) ** 2
    tokens = args.queries + PREFIX + patches
    shape = (args.batch, args.heads, tokens, args.head_dim)
    qkv = [torch.randn(shape, device=device, requires_grad=True) for _ in range(3)]
    mask = torch.rand(args.batch, args.queries, patches, device=device) > 0.5
    return qkv, mask


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


def step(variant, qkv, mask):
    attend(variant, *qkv, mask).sum().backward()
    if qkv[0].is_cuda:
        torch.cuda.synchronize()


def peak_memory(args, variant):
    """Bytes that one step of a variant adds, measured in a process of its own."""
    qkv, mask = make_inputs(args)
    for tensor in qkv:
        tensor.grad = torch.zeros_like(tensor)
    if qkv[0].is_cuda:
        before = torch.cuda.memory_allocated()
        step(variant, qkv, mask)
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL(None).malloc_trim(0)  # what making the inputs has left behind
    Path('/proc/self/clear_refs').write_text('5')  # forget the peak so far (Linux)
    before = resident_set('VmRSS')
    step(variant, qkv, mask)
    return resident_set('VmHWM') - before


def resident_set(field):
    status = Path('/proc/self/status').read_text()
    return 1024 * int(status.split(f'{field}:')[1].split()[0])


def main(argv=None):
    args = parse_args(argv)
    if args.memory_of:
        print(peak_memory(args, args.memory_of))
        return
    qkv, mask = make_inputs(args)
    seconds = {variant: [] for variant in VARIANTS}
    for i in range(args.rounds + 1):  # the first round warms up
        for variant in VARIANTS:
            start = time.perf_counter()
            step(variant, qkv, mask)
            if i:
                seconds[variant].append(time.perf_counter() - start)

    command = [sys.executable, __file__, *(sys.argv[1:] if argv is None else argv)]
    figures = {}
    for variant in VARIANTS:
        memory = subprocess.run(
            [*command, '--memory-of', variant],
            check=True,
            capture_output=True,
            text=True,
        )
        figures[variant] = {
            'milliseconds': 1000 * statistics.median(seconds[variant]),
            'mebibytes': int(memory.stdout.split()[-1]) / 2**20,
        }
    full = figures['full']
    tokens = qkv[0].shape[2]
    print(f'{qkv[0].device}, B {args.batch}, {args.heads} heads, {tokens} tokens')
    print('variant   forward+backward           peak memory')
    for variant, row in figures.items():
        time_ratio = full['milliseconds'] / row['milliseconds']
        memory_ratio = full['mebibytes'] / max(row['mebibytes'], 1e-9)
        print(
            f'{variant:8} {row["milliseconds"]:8.1f} ms ({time_ratio:4.2f}x)  '
            f'{row["mebibytes"]:8.1f} MiB ({memory_ratio:4.2f}x less)'
        )
    if args.json:
        Path(args.json).write_text(json.dumps(figures, indent=2))


if __name__ == '__main__':
    main()
