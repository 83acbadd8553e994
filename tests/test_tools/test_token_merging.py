"""Token merging through the tools: testing, calibrating, timing, painting."""

import argparse
import json
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from PIL import Image

from eomt_mm import cli
from eomt_mm.errors import UserError
from eomt_mm.models.token_merging.build import build_merging
from eomt_mm.models.token_merging.calibration import read_threshold
from measuring.calibration import Trial
from measuring.inference import Images, score
from tiny_models import on_data

TINY = {'embed_dim': 32, 'depth': 5, 'num_heads': 4}
HEADS = {
    'semantic': 'decode_head',
    'panoptic': 'panoptic_head',
    'instance': 'panoptic_head',
}
SCORES = {
    'semantic': 'mIoU',
    'panoptic': 'coco_panoptic/PQ',
    'instance': 'coco/segm_mAP',
}
METHOD = 'model.backbone.token_merging'
ALGM = (f'{METHOD}.type=eomt_mm.ALGM', f'{METHOD}.global_block=3')


@pytest.fixture(scope='module')
def scenes(tmp_path_factory, run_tool):
    out = tmp_path_factory.mktemp('data') / 'scenes'
    options = ('--train', 4, '--val', 5, '--workers', 1)
    run_tool('dataset_converters/make_scenes', out, *options)
    return out / 'ADEChallengeData2016'


@pytest.fixture
def tiny(root, scenes, tmp_path):
    """`tiny('panoptic')` is a shrunk demo: config and checkpoint of random weights."""

    def make(task='semantic'):
        cfg = on_data(root / f'configs/demo/eomt_scenes_{task}.py', scenes)
        cfg.merge_from_dict(
            {
                'model.backbone.timm_args': TINY,
                f'model.{HEADS[task]}.embed_dims': 32,
                f'model.{HEADS[task]}.criterion.num_points': 64,
            }
        )
        if task == 'panoptic':
            cfg.model.test_cfg.update(object_mask_thr=0.0, iou_thr=0.0)
        config, checkpoint = tmp_path / f'{task}.py', tmp_path / f'{task}.pth'
        cfg.dump(config)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, std=0.2 if 'backbone' in name else 0.5)
        torch.save(dict(state_dict=model.state_dict()), checkpoint)
        return config, checkpoint

    return make


@pytest.fixture
def measured(run_tool, tmp_path):
    """`measured(config, checkpoint, *options)` is what tools/test.py measures."""

    def run(config, checkpoint, *options):
        argv = (config, checkpoint, '--work-dir', tmp_path / 'test')
        options = ('--cfg-options', *options) if options else ()
        return run_tool('test', *argv, *options)

    return run


def calibrate(run_tool, config, checkpoint, out, *argv):
    return run_tool(
        'analysis_tools/calibrate_algm', config, checkpoint, '--out', out, *argv
    )


@pytest.mark.parametrize(
    'task', ['semantic', pytest.param('panoptic', marks=pytest.mark.slow), 'instance']
)
def test_calibration_measures_what_testing_measures(
    run_tool, tiny, measured, tmp_path, task
):
    config, checkpoint = tiny(task)
    out = tmp_path / 'algm.json'
    argv = ('--fraction', 0.5, '--sweep', 0.9, '--cfg-options', *ALGM)
    found = calibrate(run_tool, config, checkpoint, out, *argv)
    assert json.loads(out.read_text()) == found
    assert np.asarray(Image.open(out.with_suffix('.png'))).std() > 0
    assert (found['local_block'], found['window']) == (1, 2)
    high, low = found['trials']
    assert high['threshold'] == found['threshold'] > low['threshold']
    assert high['merged'] == pytest.approx(0.5, abs=0.04)
    assert low['merged'] == pytest.approx(0.9, abs=0.04)
    assert low['gflops'] < high['gflops'] < found['plain']['gflops']
    assert low['tokens'][0] < high['tokens'][0] < found['plain']['tokens'][0] == 65

    factor = 100 if task == 'instance' else 1
    plain = measured(config, checkpoint)[SCORES[task]]
    assert found['plain']['score'] == pytest.approx(factor * plain, abs=1e-4)
    auto = (f'{METHOD}.threshold=auto', f'{METHOD}.calibration={out}')
    merged = measured(config, checkpoint, *ALGM, *auto)[SCORES[task]]
    assert high['score'] == pytest.approx(factor * merged, abs=1e-4)


def test_images_left_out_are_not_counted_as_missed(tiny):
    """Two of five, predicted perfectly: COCO's AP would be that of five."""
    cfg = Config.fromfile(tiny('instance')[0])
    images = Images(cfg, 2)
    assert images.indices == [0, 4]
    evaluator = images.evaluator(cfg)
    for batch in images.batches(1):
        (sample,) = batch['data_samples']
        truth = sample.gt_instances
        found = InstanceData(
            labels=truth.labels,
            scores=torch.ones(len(truth)),
            masks=torch.as_tensor(truth.masks.masks).bool(),
            bboxes=truth.masks.get_bboxes('hbox').tensor,
        )
        sample.pred_instances = found
        evaluator.process(data_samples=[sample], data_batch=batch)
    assert score(evaluator.evaluate(2)) == ('coco/segm_mAP', 100.0)


def test_statistics_alone(run_tool, tiny, tmp_path):
    config, checkpoint = tiny()
    argv = ('--score-images', 0, '--split', 'test', '--images', 3)
    found = calibrate(run_tool, config, checkpoint, tmp_path / 'a.json', *argv)
    assert 'trials' not in found and found['images'] == '3 of test'
    assert not (tmp_path / 'a.png').exists()


def test_merging_by_options_and_back(tiny, measured):
    """The same checkpoint; without a merge, and without merging, the same score."""
    config, checkpoint = tiny()
    plain = measured(config, checkpoint)
    nothing = (*ALGM[:1], f'{METHOD}.global_block=None', f'{METHOD}.threshold=1.0')
    assert measured(config, checkpoint, *nothing) == plain
    all_windows = (*ALGM, f'{METHOD}.threshold=-1')
    assert measured(config, checkpoint, *all_windows) != plain
    tome = (f'{METHOD}.type=eomt_mm.ToMe', f'{METHOD}.r=30')
    assert measured(config, checkpoint, *tome) != plain


def test_another_method_replaces_that_of_the_config(root):
    """The --cfg-options of the error and the documentation work."""
    argv = [str(root / 'configs/demo/eomt_scenes_semantic_algm.py'), '--cfg-options']
    argv += [f'{METHOD}.type=eomt_mm.ToMe', f'{METHOD}.r=30']
    parser = argparse.ArgumentParser()
    cli.add_common_options(parser)

    def built(*options):
        cfg = cli.load_config(parser.parse_args([*argv, *options]))
        return build_merging(cfg.model.backbone.token_merging)

    with pytest.raises(UserError, match='_delete_=True'):
        built()
    assert built(f'{METHOD}._delete_=True').r == 30


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ([f'{METHOD}.threshold=1.5'], '[-1, 1]'),
        ([f'{METHOD}.threshold=auto', f'{METHOD}.calibration=no.json'], 'no.json'),
        ([f'{METHOD}.threshold=0.9', f'{METHOD}.global_block=4'], 'queries enter'),
        ([f'{METHOD}.threshold=0.9', f'{METHOD}.treshold=0.9'], "'treshold'"),
        (
            [f'{METHOD}.threshold=0.9', 'model.backbone.mask_probs=[0.5,0.0]'],
            'mask_probs above 0',
        ),
    ],
)
def test_mistakes_are_one_line(tool, tiny, capsys, tmp_path, options, expected):
    config, checkpoint = tiny()
    argv = [str(config), str(checkpoint), '--work-dir', str(tmp_path / 'test')]
    status = cli.run(tool('test').main, [*argv, '--cfg-options', *ALGM, *options])
    (line,) = (x for x in capsys.readouterr().err.splitlines() if 'error' in x)
    assert status == 2 and expected in line


def test_training_with_merging_is_refused(tool, tiny, capsys, tmp_path):
    config, _ = tiny()
    argv = [str(config), '--work-dir', str(tmp_path / 'run'), '--cfg-options', *ALGM]
    options = [f'{METHOD}.threshold=0.9', 'train_dataloader.batch_size=2']
    assert cli.run(tool('train').main, [*argv, *options]) == 2
    assert 'token_merging is for testing' in capsys.readouterr().err
    assert not list((tmp_path / 'run').glob('*.pth'))


@pytest.mark.parametrize(
    ('argv', 'expected'),
    [
        (['--fraction', '1.2'], 'between 0 and 1'),
        (['--sweep', '0.5', '-0.1'], 'between 0 and 1'),
        (['--score-images', '-1'], '0 or more'),
        (['--score-images', '0', '--max-loss', '1'], '--max-loss needs scores'),
        (['--out', '/dev/null/x/a.json'], 'a.json cannot be written'),
        (['--cfg-options', f'{METHOD}.type=eomt_mm.ToMe', f'{METHOD}.r=2'], 'ToMe'),
        (['--cfg-options', *ALGM, f'{METHOD}.policy=most'], "'most'"),
    ],
)
def test_mistakes_in_calibrating(tool, tiny, capsys, tmp_path, argv, expected):
    config, checkpoint = tiny()
    argv = [str(config), str(checkpoint), '--out', str(tmp_path / 'a.json'), *argv]
    status = cli.run(tool('analysis_tools/calibrate_algm').main, argv)
    shown = capsys.readouterr()
    assert status == 2 and expected in shown.err
    assert 'windows' not in shown.out, 'was measured in vain'
    assert not (tmp_path / 'a.json').exists()


@pytest.mark.parametrize('option', ['--images', '--batch-size'])
@pytest.mark.parametrize('number', ['0', '-1'])
def test_numbers_are_positive(tool, capsys, option, number):
    argv = ['config.py', 'a.pth', '--out', 'a.json', option, number]
    with pytest.raises(SystemExit):
        tool('analysis_tools/calibrate_algm').parse_args(argv)
    assert 'give 1 or more' in capsys.readouterr().err


def trials(*scores):
    """The trials are without merging, then with thresholds 0.9, 0.8, ..."""
    thresholds = [None, *(round(0.9 - 0.1 * i, 1) for i in range(len(scores)))]
    return [Trial(t, 0, [], 0, s) for t, s in zip(thresholds, scores, strict=False)]


@pytest.mark.parametrize(
    ('scores', 'expected'),
    [
        ((80.75, 80.5, 80.0, 64.25), '0.7 of --fraction 0.8 costs 16.50 .*; 0.8 costs'),
        ((80.75, 60, 60, 60), 'none of those tried'),
        ((80.75, 80.5, 80.0, 79.8), ''),
    ],
)
def test_a_harmful_threshold_is_spoken_of(tool, capsys, scores, expected):
    args = argparse.Namespace(max_loss=None, fraction=0.8)
    choose = tool('analysis_tools/calibrate_algm').choose
    assert choose(args, trials(*scores), 0.7, 'mIoU') == 0.7
    warning = capsys.readouterr().err
    assert re.search(expected, warning) if expected else not warning


def test_calibration_within_a_loss(run_tool, tool, tiny, capsys, tmp_path):
    config, checkpoint = tiny()
    out = tmp_path / 'algm.json'
    argv = ('--sweep', 0.1, 0.9, '--fraction', 0.1, '--max-loss')
    argv = (*argv, 100, '--images', 2, '--score-images', 2)
    found = calibrate(run_tool, config, checkpoint, out, *argv, '--cfg-options', *ALGM)
    high, low = found['trials']
    assert found['threshold'] == low['threshold'] < high['threshold']
    argv = [
        str(x) for x in (config, checkpoint, '--out', out, *argv, '--max-loss', -99)
    ]
    main = tool('analysis_tools/calibrate_algm').main
    assert cli.run(main, [*argv, '--cfg-options', *ALGM]) == 2
    assert 'every threshold tried costs' in capsys.readouterr().err
    assert len(json.loads(out.read_text())['trials']) == 2
    with pytest.raises(UserError, match='is not a calibration'):
        read_threshold(str(out), 1, 2)


def test_a_calibration_that_is_killed_leaves_what_it_found(
    tool, tiny, tmp_path, monkeypatch
):
    config, checkpoint = tiny()
    out, calls = tmp_path / 'algm.json', []
    module = tool('analysis_tools/calibrate_algm')
    attempt = module.attempt

    def interrupted(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return attempt(*args, **options)

    monkeypatch.setattr(module, 'attempt', interrupted)
    argv = [config, checkpoint, '--out', out, '--images', 2, '--score-images', 2]
    argv = [str(x) for x in (*argv, '--sweep', 0.1, 0.9)]
    assert cli.run(module.main, [*argv, '--cfg-options', *ALGM]) == 130
    content = json.loads(out.read_text())
    assert len(content['trials']) == 1 and content['plain']['score'] is not None
    assert content['similarity_quantiles']


@pytest.mark.parametrize('task', ['semantic', 'panoptic'])
def test_benchmark(run_tool, tiny, capsys, tmp_path, task):
    config, checkpoint = tiny(task)
    argv = ('--batch-sizes', 4, 1, '--rounds', 1, '--json', tmp_path / 'f.json')
    options = ('--cfg-options', *ALGM, f'{METHOD}.threshold=0.3')
    figures = run_tool(
        'analysis_tools/benchmark', 'merging', config, checkpoint, *argv, *options
    )
    assert figures.keys() == {4, 1}
    assert (tmp_path / 'f.json').exists()
    for size, rows in figures.items():
        assert rows.keys() == {'plain', 'min', 'group', 'image'}
        assert rows['plain']['network']['ratio'] == 1
        assert rows['plain']['tokens'] == [65] * 3 + [75] * 2
        tokens = [sum(rows[name]['tokens']) for name in ('image', 'group', 'min')]
        assert tokens == sorted(tokens) and tokens[-1] < sum(rows['plain']['tokens'])
        assert rows['image']['gflops'] < rows['plain']['gflops']
        if size == 1:
            assert rows['image']['tokens'] == rows['min']['tokens']
    assert 'tokens per block: 65 65 65 75 75' in capsys.readouterr().out


def test_benchmark_of_a_method_without_policies(run_tool, tiny, capsys, tmp_path):
    config, checkpoint = tiny()
    out = tmp_path / 'f.json'
    options = ('--cfg-options', f'{METHOD}.type=eomt_mm.ToMe', f'{METHOD}.r=9')
    argv = ('--batch-sizes', 2, 9, '--number', 2, '--rounds', 1, '--json', out)
    with pytest.raises(UserError, match='batch-sizes 9'):
        run_tool(
            'analysis_tools/benchmark', 'merging', config, checkpoint, *argv, *options
        )
    # What was measured before is there all the same.
    (figures,) = json.loads(out.read_text()).values()
    assert figures.keys() == {'plain', 'ToMe'}


def test_benchmark_of_photographs_with_random_weights(
    run_tool, tiny, capsys, real_data
):
    config, _ = tiny()
    photos = real_data / 'coco_mini' / 'val2017'
    argv = ('--images', photos, '--batch-sizes', 2, '--policies', 'min', '--rounds', 1)
    options = ('--parts', '--cfg-options', *ALGM, f'{METHOD}.keep=[0.4,0.5]')
    found = run_tool('analysis_tools/benchmark', 'merging', config, *argv, *options)
    assert found['merged']['tokens'][0] == 1 + 64 - 3 * 13
    assert len(found['plain']['blocks']) == 5
    assert found['merging'].keys() == {'propose', 'merge', 'unmerge'}
    assert all(value > 0 for value in found['merging'].values())
    for side in (found['plain'], found['merged']):
        assert side['gflops_counted'] == pytest.approx(side['gflops'], rel=0.05)
    assert 'by the formula' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('argv', 'expected'),
    [
        ([], 'token_merging.type=eomt_mm.ALGM'),
        (['--cfg-options', *ALGM, f'{METHOD}.threshold=2'], '[-1, 1]'),
        (
            ['--number', '3', '--cfg-options', *ALGM, f'{METHOD}.threshold=0.5'],
            '3 images',
        ),
        (['--cfg-options', f'{METHOD}=eomt_mm.ALGM'], 'expected a dict'),
        (['--json', '/dev/null/x/f.json'], 'f.json cannot be written'),
        (
            ['--images', 'none', '--cfg-options', *ALGM, f'{METHOD}.threshold=0.5'],
            'no photographs in none',
        ),
    ],
)
def test_mistakes_in_timing(tool, tiny, capsys, argv, expected):
    config, checkpoint = tiny()
    argv = ['merging', str(config), str(checkpoint), '--rounds', '1', *argv]
    status = cli.run(tool('analysis_tools/benchmark').main, argv)
    assert status == 2 and expected in capsys.readouterr().err


@pytest.mark.parametrize('task', ['semantic', 'instance'])
def test_pictures(run_tool, tiny, tmp_path, task):
    config, checkpoint = tiny(task)
    out = tmp_path / 'pictures'
    argv = (config, checkpoint, '--out', out, '--number', 2)
    options = ('--cfg-options', *ALGM, f'{METHOD}.threshold=0.3')
    written = run_tool('analysis_tools/show_merging', *argv, *options)
    assert [path.name for path in written[-1:]] == ['merging.png']
    assert len(written) == 3 == len(list(out.iterdir()))
    assert Image.open(written[0]).width == 4 * (256 + 12) + 12


def test_mosaic_and_links(tool):
    show = tool('analysis_tools/show_merging')
    photo = np.zeros((40, 40, 3), np.uint8)
    photo[:, 20:] = 200
    ids = np.array([[0, 1], [0, 0]])
    tiles = np.array(show.mosaic(Image.fromarray(photo), ids))
    # Three patches, one of them light; and one by itself.
    assert tiles[2, 2].tolist() == tiles[35, 35].tolist() == [67, 67, 67]
    assert tiles[2, 35].tolist() == [200, 200, 200]
    assert tiles[2, 19].tolist() == tiles[19, 35].tolist() == [255, 255, 255]
    links = np.array(show.linked(Image.fromarray(photo), ids))
    assert (links[:20, 20:] == 200).all()
    assert (links[2, 2] != 0).any() and (links[35, 35] != 200).any()


def test_pictures_need_merging(tool, tiny, capsys, tmp_path):
    config, checkpoint = tiny()
    argv = [str(config), str(checkpoint), '--out', str(tmp_path / 'out')]
    assert cli.run(tool('analysis_tools/show_merging').main, argv) == 2
    assert 'has no token merging' in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
