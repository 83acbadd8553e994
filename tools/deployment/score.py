"""Score an exported file with the evaluator of a config, as tools/test.py does.

    python tools/deployment/score.py CONFIG model.onnx

Photos go through `eomt_mm.deploy` alone: what fp16 or int8 costs on a data set, and
whether a file predicts what its checkpoint does.
"""

import signal

if __name__ == '__main__':
    # Ctrl-C during the imports below ends without a traceback, as later in `cli.run`.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import argparse
import sys

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.registry import DATASETS, init_default_scope
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from eomt_mm import cli
from eomt_mm.cli import config_reading as reading
from eomt_mm.deploy import Instances, Predictor
from eomt_mm.errors import UserError

TASKS = {
    'IoUMetric': 'semantic',
    'CityscapesMetric': 'semantic',
    'CocoPanopticMetric': 'panoptic',
    'CocoMetric': 'instance',
}


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_common_options(parser)
    parser.add_argument('model', help='file of tools/deployment/export.py')
    parser.add_argument(
        '--threads', type=cli.not_negative, default=0, help='of the CPU'
    )
    return cli.parse_args(parser, argv)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Score.

    Args:
        argv (list[str], optional): Arguments; None means those of the process.

    Returns:
        dict[str, float]: The scores by name.

    Raises:
        UserError: The file cannot be used or is one of another task or other classes,
            or the data are missing.
    """
    args = parse_args(argv)
    cfg = cli.load_config(args)
    predictor = Predictor(args.model, threads=args.threads)
    cli.check_data(cfg, 'test')
    init_default_scope(cfg.default_scope)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    refuse_others(list(dataset.metainfo['classes']), predictor.meta)
    evaluator = Evaluator(metrics_for(predictor.meta['task'], cfg))
    evaluator.dataset_meta = dataset.metainfo
    for i in cli.track(range(len(dataset)), len(dataset)):
        sample = dataset[i]['data_samples']
        put(predictor(dataset.get_data_info(i)['img_path']), sample, predictor.meta)
        evaluator.process(data_samples=[sample])
    scores = evaluator.evaluate(len(dataset))
    for name, value in scores.items():
        print(f'{name}: {value}')
    return scores


def metrics_for(task: str, cfg: Config) -> list[dict]:
    """Return the evaluators that score a task, and name those that do not.

    Raises:
        UserError: None does.
    """
    metrics = reading.metrics_of(cfg, 'test')
    kept = [m for m in metrics if TASKS.get(reading.type_name(m)) == task]
    others = [reading.type_name(m) for m in metrics if m not in kept]
    if not kept:
        raise UserError(
            f'the file is a {task} model, and the test_evaluator of the config is '
            f'{", ".join(others) or "None"}: give the config that the file was '
            'exported with'
        )
    if others:
        print(f'left out, as the file returns no results for it: {", ".join(others)}')
    return kept


def refuse_others(classes: list[str], meta: dict) -> None:
    """Raise a UserError if the file predicts other classes than the data set has."""
    if classes != meta['classes']:
        raise UserError(
            f'the file has {len(meta["classes"])} classes, {meta["classes"][:3]} ..., '
            f'and the test dataset {len(classes)}, {classes[:3]} ...: give the config '
            'that the file was exported with'
        )


def put(result: np.ndarray | Instances, sample: BaseDataElement, meta: dict) -> None:
    """Put a result into a data sample, where the model would."""
    if isinstance(result, Instances):
        found = {name: torch.from_numpy(x) for name, x in result._asdict().items()}
        boxes = found.pop('boxes').float()
        sample.pred_instances = InstanceData(bboxes=boxes, **found)
    elif meta['task'] == 'semantic':
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(result)[None])
    else:
        sample.pred_panoptic_seg = PixelData(sem_seg=torch.from_numpy(result)[None])


if __name__ == '__main__':
    sys.exit(cli.run(main))
