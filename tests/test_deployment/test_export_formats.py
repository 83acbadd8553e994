"""Every backbone, format and precision of the export, on tiny models."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from eomt_mm.deploy import Predictor
from eomt_mm.deploy.model_file import KEY, read_meta
from eomt_mm.errors import UserError
from exporting import files
from exporting.files import classifier
from measuring.inference import load_model

KEEP = dict(
    type='eomt_mm.ALGM', keep=(0.7, 0.8), local_block=1, global_block=2, window=2
)
BACKBONES = [('dinov2', None), ('swiglu', None), ('dinov3', None), ('eva02', None)]
BACKBONES += [('dinov2', KEEP), ('dinov3', KEEP)]


@pytest.mark.slow
@pytest.mark.parametrize('arch, merging', BACKBONES)
def test_onnx(tiny, export, tmp_path, arch, merging):
    """The tool itself refuses what differs; here the limits are read again."""
    model = tiny('semantic', arch, merging)
    full = export(model, tmp_path / 'full.onnx')
    assert set(full) == {'class_logits', 'mask_logits'}
    assert 0 < max(full.values()) < 1e-4
    if merging is None:  # rounding merges other tokens of a tiny random model
        half = export(model, tmp_path / 'half.onnx', '--dtype', 'fp16')
        assert max(full.values()) < max(half.values()) < 2e-2
        sizes = [(tmp_path / f'{n}.onnx').stat().st_size for n in ('half', 'full')]
        assert sizes[0] < 0.9 * sizes[1]


@pytest.mark.slow
@pytest.mark.parametrize('dtype, limit', [('fp32', 1e-6), ('fp16', 2e-2)])
def test_programs_of_torch(tiny, export, tmp_path, dtype, limit):
    model = tiny('panoptic', 'dinov3')
    path = tmp_path / 'tiny.pt2'
    found = export(model, path, '--dtype', dtype)
    assert max(found.values()) < limit
    extra = {f'{KEY}.json': ''}
    run = torch.export.load(path, extra_files=extra).module()
    meta = json.loads(extra[f'{KEY}.json'])
    assert meta['classes'] == ['cat', 'dog', 'sky', 'sea']
    for count in (1, 2, 5):
        classes, masks = run(torch.zeros(count, 3, 64, 64))
        assert classes.shape == (count, 8, 5) and masks.shape == (count, 8, 16, 16)


def session(path):
    return onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])


def test_any_number_of_images(exported):
    """One file; each image has the result that it has alone."""
    run = session(exported('panoptic').onnx)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 3, 64, 64)).astype(np.float32)
    alone = [run.run(None, {'images': image[None]}) for image in images]
    for count in (1, 2, 5):
        for name, found in enumerate(run.run(None, {'images': images[:count]})):
            expected = np.concatenate([result[name] for result in alone[:count]])
            np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_fixed_number_of_images(tiny, export, photos, tmp_path):
    """Three windows of a long photo, two at a time."""
    model = tiny('semantic')
    export(model, tmp_path / 'two.onnx', '--batch', 2)
    export(model, tmp_path / 'any.onnx')
    assert session(tmp_path / 'two.onnx').get_inputs()[0].shape == [2, 3, 64, 64]
    two, any_ = (Predictor(tmp_path / f'{name}.onnx') for name in ('two', 'any'))
    assert (two(photos[0]) == any_(photos[0])).mean() > 0.999


def test_weights_in_a_file_of_their_own(tiny, export, photos, tmp_path, monkeypatch):
    """Models of more than 2 GB: both files move together."""
    monkeypatch.setattr(files, 'LARGEST', 0)
    model = tiny('panoptic')
    export(model, tmp_path / 'made/large.onnx')
    names = {'large.onnx', 'large.onnx.data'}
    assert {path.name for path in (tmp_path / 'made').iterdir()} == names
    expected = Predictor(tmp_path / 'made/large.onnx')(photos[0])
    (tmp_path / 'made').rename(tmp_path / 'moved')
    moved = tmp_path / 'moved/large.onnx'
    assert (Predictor(moved)(photos[0]) == expected).all()
    (tmp_path / 'moved/large.onnx.data').unlink()
    with pytest.raises(UserError, match="'large.onnx.data', which is not beside it"):
        Predictor(moved)


def test_metadata(exported):
    meta = read_meta(exported('panoptic').onnx)
    assert meta['task'] == 'panoptic' and meta['size'] == [64, 64]
    assert meta['classes'] == ['cat', 'dog', 'sky', 'sea'] and meta['num_things'] == 2
    assert meta['palette'][0] == [200, 40, 40] and meta['upright'] is True
    assert meta['resize'] == dict(rows=64, cols=64)
    assert meta['test']['score_thr'] == 0.3 and meta['test']['overlap_thr'] == 0.4
    written = onnx.load(exported('panoptic').onnx).metadata_props
    assert json.loads({p.key: p.value for p in written}[KEY]) == meta
    semantic = read_meta(exported('semantic').onnx)
    assert semantic['resize'] == dict(short_side=64, max_aspect=10.0)


@pytest.mark.slow
@pytest.mark.parametrize('task', ['semantic', 'panoptic', 'instance'])
def test_results_in_the_graph(tiny, export, tmp_path, task):
    """The outputs of --with-postprocess against the package's own functions."""
    from eomt_mm.models.postprocess import instance_result
    from eomt_mm.models.windows import class_map

    model = tiny(task)
    export(model, tmp_path / 'all.onnx', '--with-postprocess')
    run = session(tmp_path / 'all.onnx')
    names = [output.name for output in run.get_outputs()]
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 64, 64))
    values = run.run(None, {'images': images.astype(np.float32)})
    found = {n: torch.from_numpy(v) for n, v in zip(names, values, strict=True)}
    for i in range(2):
        logits = found['class_logits'][i], found['mask_logits'][i]
        if task == 'semantic':
            expected = class_map(*logits, (64, 64))
            torch.testing.assert_close(found['class_scores'][i], expected)
            continue
        scores, labels, masks = (found[n][i] for n in ('scores', 'labels', 'masks'))
        if task == 'instance':
            expected = instance_result(*logits, *[(64, 64)] * 3, 4, 20)
            assert scores.shape == (20,) and masks.shape == (20, 64, 64)
            wanted = expected.scores.sort().values
            torch.testing.assert_close(scores.sort().values, wanted)
            inside = (masks > 0.5).sum((1, 2)).sort().values
            assert torch.equal(inside, expected.masks.sum((1, 2)).sort().values)
        else:
            best, label = logits[0].softmax(-1).max(-1)
            best = (best * (label != 4)).sort(descending=True)
            torch.testing.assert_close(scores, best.values)
            real = scores > 0
            assert torch.equal(labels[real], label[best.indices][real])
            assert masks.min() >= 0 and masks.max() <= 1


def test_a_network_of_bgr_without_normalisation(tiny, export, photos, tmp_path):
    """Loaders give BGR; the graph turns RGB into what the network was trained on."""
    model = tiny('semantic')
    text = model.config.read_text()
    text = text.replace('bgr_to_rgb=True', 'bgr_to_rgb=False')
    text = text.replace(
        'mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]', ''
    )
    model.config.write_text(text)
    export(model, tmp_path / 'bgr.onnx')
    images = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64))
    images = images.astype(np.float32)
    found = session(tmp_path / 'bgr.onnx').run(None, {'images': images})[0]
    network = load_model(model.cfg, str(model.checkpoint), torch.device('cpu')).network
    with torch.no_grad():
        expected, _ = network(torch.from_numpy(images).flip(1))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-3)


def test_int8(tiny, export, tmp_path):
    model = tiny('semantic', 'dinov2')
    found = export(model, tmp_path / 'small.onnx', '--quantize', 'int8')
    assert max(found.values()) > 1e-4, 'nothing was quantised'
    graph = onnx.load(tmp_path / 'small.onnx').graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert onnx.TensorProto.INT8 in kinds.values()
    assert kinds[classifier(graph).input[1]] == onnx.TensorProto.FLOAT
    assert [path.name for path in tmp_path.iterdir()] == ['small.onnx']


def test_fp16_keeps_what_decides_in_fp32(tiny, export, tmp_path):
    """Every softmax and norm, and the product of the class logits."""
    model = tiny('semantic', 'eva02')
    export(model, tmp_path / 'half.onnx', '--dtype', 'fp16')
    whole = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / 'half.onnx'))
    types = {v.name: v.type.tensor_type.elem_type for v in whole.graph.value_info}
    types |= {t.name: t.data_type for t in whole.graph.initializer}
    seen = set()
    for node in whole.graph.node:
        if node.op_type in ('Softmax', 'LayerNormalization'):
            assert types[node.input[0]] == onnx.TensorProto.FLOAT, node.name
            seen.add(node.op_type)
    assert seen == {'Softmax', 'LayerNormalization'}
    assert types[classifier(whole.graph).input[1]] == onnx.TensorProto.FLOAT
    sizes = {onnx.TensorProto.FLOAT: 0, onnx.TensorProto.FLOAT16: 0}
    for tensor in whole.graph.initializer:
        if tensor.data_type in sizes:
            sizes[tensor.data_type] += np.prod(tensor.dims)
    assert sizes[onnx.TensorProto.FLOAT16] > 2 * sizes[onnx.TensorProto.FLOAT]
