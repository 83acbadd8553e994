"""Write a submission to BRAVO, or measure one.

    python tools/analysis_tools/bravo_submission.py CONFIG CHECKPOINT --out DIR
    python tools/analysis_tools/bravo_submission.py CONFIG --out DIR --truth GT

The first call writes two PNG files for each image of the tree: `*_pred.png`, 8 bits,
train ids, and `*_conf.png`, 16 bits, confidence from 0 to 65535. An interrupted call
goes on where it was. The second call computes all metrics, where ground truth is.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import hashlib
import json
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope

from eomt_mm import cli
from eomt_mm.datasets.bravo import NUM_IMAGES, SUBSETS, BravoDataset, images_of
from eomt_mm.errors import UserError
from eomt_mm.evaluation.bravo import check_complete, evaluate, pair_of, save_pair
from eomt_mm.files import atomic_path, make_folder, sole_user
from measuring.inference import ask_for_confidence, load_model
from measuring.output import write_json

MANIFEST, METRICS = 'submission.json', 'metrics.json'


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Options of this tool."""
    parser = argparse.ArgumentParser(description='Write or measure a BRAVO submission')
    cli.add_common_options(parser)
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file')
    parser.add_argument('--out', type=Path, required=True, help='the submission')
    parser.add_argument(
        '--truth', type=Path, help='root of the ground truth: measure what is in --out'
    )
    args = cli.parse_args(parser, argv)
    if bool(args.checkpoint) == bool(args.truth):
        parser.error(
            'give a checkpoint to write a submission, or --truth to measure it'
        )
    return args


def main(argv: list[str] | None = None) -> dict:
    """Writes or measures.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict: The metrics by name as fractions; empty after writing.

    Raises:
        UserError: Something in the command, the config or the data is wrong.
    """
    args = parse_args(argv)
    cfg = cli.load_config(args)
    root = image_root(cfg)
    if args.truth:
        check_complete(root, args.out, {MANIFEST, METRICS})
        metrics = evaluate(root, args.out, args.truth)
        write_json(args.out / METRICS, metrics)
        for name, value in metrics.items():
            print(f'{name:32} {100 * value:8.3f}')
        return metrics
    write(cfg, args.checkpoint, args.out, root)
    return {}


def image_root(cfg: Config) -> Path:
    """Where the config's test dataset has BRAVO's tree.

    Raises:
        UserError: It is another dataset.
    """
    dataset = cfg.test_dataloader.dataset
    with DATASETS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        kind = registry.get(dataset.type)
    if not issubclass(kind, BravoDataset):
        raise UserError(
            f'the config is tested on {dataset.type}, expected eomt_mm.BravoDataset: '
            'take a config such as configs/eomt/eomt_vitl_bravo.py'
        )
    return Path(dataset.data_root)


def write(cfg: Config, checkpoint: str, out: Path, root: Path) -> None:
    """Predicts every image that has no pair of files yet."""
    ask_for_confidence(cfg)
    cli.check_checkpoint(checkpoint, cfg=cfg)
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    number = cfg.model.decode_head.num_classes
    if number != len(dataset.metainfo['classes']):
        raise UserError(
            f'the model has {number} classes, BRAVO has '
            f'{len(dataset.metainfo["classes"])}: give a checkpoint of Cityscapes'
        )
    model = load_model(cfg, checkpoint)
    make_folder(out, '--out')
    manifest = made_with(cfg, checkpoint)
    refuse_others(out, manifest)
    with sole_user(out, '--out'):
        if not (out / MANIFEST).is_file():
            with atomic_path(out / MANIFEST) as partial:
                partial.write_text(manifest)
        check_complete(root, out, {MANIFEST, METRICS}, partly=True)
        for index in cli.track(range(len(dataset)), len(dataset)):
            name, base = dataset.get_data_info(index)['bravo']
            pair = pair_of(out, name, base)
            if not all(path.is_file() for path in pair):
                (out / METRICS).unlink(missing_ok=True)  # they were of other files
                with torch.no_grad():
                    sample = model.test_step(pseudo_collate([dataset[index]]))[0].cpu()
                save_pair(
                    pair,
                    sample.pred_sem_seg.data[0].numpy(),
                    sample.confidence.data[0].numpy(),
                )
        check_complete(root, out, {MANIFEST, METRICS})
    print(f'{2 * len(dataset)} files in {out}')
    absent = SUBSETS.keys() - {name for name, *_ in images_of(root)}
    if absent:
        print(f'no images of {", ".join(sorted(absent))}: the challenge wants all')
    elif len(dataset) != NUM_IMAGES:
        print(
            f'{len(dataset):,} images, expected the {NUM_IMAGES:,} of the challenge: '
            'its encoder stops at others (of ACDC it wants test/ alone)'
        )


def made_with(cfg: Config, checkpoint: str) -> str:
    """Return the text that tells submissions of different models apart."""
    digest = hashlib.sha256()
    with open(checkpoint, 'rb') as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    model = hashlib.sha256(str(cfg.model.to_dict()).encode()).hexdigest()
    return json.dumps(dict(weights=digest.hexdigest(), model=model)) + '\n'


def refuse_others(out: Path, manifest: str) -> None:
    """Raise a UserError if a folder holds something else than this submission."""
    path = out / MANIFEST
    if path.is_file():
        if path.read_text(errors='replace') != manifest:
            raise UserError(
                f'{out} holds a submission of another checkpoint or config: give '
                'another --out'
            )
    # What a killed call left, and the lock, are hidden.
    elif any(not entry.name.startswith('.') for entry in out.iterdir()):
        raise UserError(f'{out} is not empty and no submission: give another --out')


if __name__ == '__main__':
    sys.exit(cli.run(main))
