"""The table of parameters and GFLOPs."""

import json

import pytest

from eomt_mm.errors import UserError

TOOL = 'analysis_tools/get_flops'
EOMT_S = 'eomt/eomt_vits_coco_panoptic_640_1x.py'


@pytest.fixture
def ladder(root):
    return root / 'configs/ladder'


def test_prints_a_row_for_each_config(run_tool, ladder, capsys, tmp_path):
    masked = ladder / 'step4_vits_coco_panoptic_640.py'
    paths = [masked, ladder.parent / EOMT_S]
    rows = run_tool(TOOL, *paths, '--json', tmp_path / 'new/flops.json')
    first, second = capsys.readouterr().out.splitlines()[1:]
    assert '640 x 640     23,975,942      88.8' in first
    assert '640 x 640     23,975,942      68.0' in second
    assert json.loads((tmp_path / 'new/flops.json').read_text()) == rows
    assert rows[1] == {
        'config': str(paths[1]),
        'size': [640, 640],
        'parameters': 23_975_942,
        'gflops': pytest.approx(67.96, abs=0.01),
        'on_noise': False,
    }


def test_a_config_that_cannot_be_counted_does_not_stop_the_others(
    run_tool, ladder, capsys, tmp_path
):
    broken = tmp_path / 'broken.py'
    broken.write_text(
        "_base_ = '{}'\nmodel = dict(neck=dict(type='NoSuchNeck'))\n".format(
            ladder / 'step1_vitl_coco_panoptic_640.py'
        )
    )
    good = ladder.parent / EOMT_S
    rows = run_tool(TOOL, 'nowhere.py', broken, 'mmseg::no/such.py', good)
    errors = [row.get('error', '') for row in rows]
    assert errors[0] == 'config not found: nowhere.py'
    assert 'NoSuchNeck' in errors[1]
    assert 'mmseg has no config no/such.py' in errors[2]
    assert 'error' not in rows[3]
    assert 'error: config not found' in capsys.readouterr().out


def test_size_is_that_of_network_and_image(run_tool, ladder):
    good = ladder.parent / EOMT_S
    (row,) = run_tool(TOOL, good, '--size', 320, 640)
    assert row['size'] == [320, 640]
    assert row['parameters'] == 23_975_942 - 800 * 384  # half the position codes
    assert row['gflops'] < 67.96 / 2
    (row,) = run_tool(TOOL, 'mmseg::setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512.py')
    assert row['size'] == [512, 512]


def test_what_depends_on_the_image_is_marked(run_tool, root, capsys):
    (row,) = run_tool(TOOL, root / 'configs/demo/eomt_scenes_semantic_algm.py')
    assert row['on_noise']
    assert '(depends on the image; counted on noise)' in capsys.readouterr().out


def test_a_size_that_does_not_fit(run_tool, ladder):
    good = ladder / 'step0_vits_coco_panoptic_640.py'
    with pytest.raises(
        UserError, match='nothing could .* 48 x 640 is not a multiple of 32'
    ):
        run_tool(TOOL, good, '--size', 48, 640)


def test_options_of_the_config(run_tool, root):
    """The GFLOPs of a model with merging that its config does not have."""
    config = root / 'configs/demo/eomt_scenes_semantic_192.py'
    method = 'model.backbone.token_merging'
    options = [f'{method}.type=eomt_mm.ToMe', f'{method}.r=100']
    (plain,) = run_tool(TOOL, config)
    (merged,) = run_tool(TOOL, config, '--cfg-options', *options)
    assert merged['gflops'] < 0.8 * plain['gflops']
