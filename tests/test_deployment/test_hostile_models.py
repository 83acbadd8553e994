"""Files that are no EoMT export, or mean harm: one line each."""

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from eomt_mm.deploy import Predictor
from eomt_mm.deploy.__main__ import main
from eomt_mm.deploy.model_file import KEY, read_meta
from eomt_mm.errors import UserError

META = dict(
    format=1,
    task='semantic',
    classes=['cat', 'dog'],
    palette=[[1, 2, 3], [4, 5, 6]],
    num_things=0,
    size=[8, 8],
    upright=True,
    resize=dict(short_side=8, max_aspect=10.0),
    test=dict(score_thr=0.8, overlap_thr=0.8, max_per_image=100),
)
ZEROS = np.zeros((1, 2, 4, 4), np.float32)


def tensor(name, location=None):
    value = TensorProto(name=name, dims=[1, 2, 3], data_type=TensorProto.FLOAT)
    if location is None:
        value.raw_data = np.zeros(6, np.float32).tobytes()
    else:
        value.data_location = TensorProto.EXTERNAL
        value.external_data.add(key='location', value=location)
        value.external_data.add(key='length', value='24')
    return value


def model(
    meta=META,
    weight=None,
    images=(1, 3, 8, 8),
    where='initializer',
    masks=ZEROS,
):
    """Constant logits of two queries and three classes."""
    weight = weight or tensor('class_logits')
    value_info = helper.make_tensor_value_info
    masks = numpy_helper.from_array(masks, 'mask_logits')
    outputs = [
        value_info('class_logits', TensorProto.FLOAT, [1, 2, 3]),
        value_info('mask_logits', masks.data_type, [None] * 4),
    ]
    nodes, initializers = [], [masks]
    if where == 'initializer':
        initializers.append(weight)
    else:  # a constant in a branch that may never run
        nodes = [helper.make_node('Constant', [], ['class_logits'], value=weight)]
    if where == 'branch':
        inner = helper.make_graph(nodes, 'inner', [], outputs[:1])
        given = helper.make_tensor('yes', TensorProto.BOOL, [], [True])
        initializers.append(given)
        nodes = [
            helper.make_node(
                'If', ['yes'], ['class_logits'], then_branch=inner, else_branch=inner
            )
        ]
    inputs = [value_info('images', TensorProto.FLOAT, images)]
    graph = helper.make_graph(nodes, 'g', inputs, outputs, initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    made.ir_version = 9
    if meta is not None:
        made.metadata_props.add(key=KEY, value=json.dumps(meta))
    return made


@pytest.fixture
def write(tmp_path):
    def write(made):
        path = tmp_path / 'model.onnx'
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        return path

    return write


@pytest.mark.parametrize('where', ['initializer', 'constant', 'branch'])
def test_a_sound_file_is_taken(write, where):
    path = write(model(where=where))
    assert read_meta(path) == META
    photo = np.zeros((8, 20, 3), np.uint8)
    assert Predictor(path)(photo).shape == (8, 20)


@pytest.mark.parametrize('where', ['initializer', 'constant', 'branch'])
@pytest.mark.parametrize(
    'location', ['../secret', '/etc/passwd', 'a/../../secret', 'C:\\secret', '', '.']
)
def test_weights_outside_of_the_folder(write, tmp_path, where, location):
    (tmp_path.parent / 'secret').write_bytes(bytes(24))
    path = write(model(weight=tensor('class_logits', location), where=where))
    with pytest.raises(UserError, match='not in its folder: it may be hostile'):
        Predictor(path)


def test_weights_behind_a_link(write, tmp_path):
    (tmp_path / 'weights').symlink_to('/etc/passwd')
    path = write(model(weight=tensor('class_logits', 'weights')))
    with pytest.raises(UserError, match='not in its folder'):
        read_meta(path)


def test_weights_beside_the_file(write, tmp_path):
    path = write(model(weight=tensor('class_logits', 'sub/weights')))
    with pytest.raises(UserError, match="in 'sub/weights', which is not beside it"):
        read_meta(path)
    (tmp_path / 'sub').mkdir()
    (tmp_path / 'sub/weights').write_bytes(bytes(24))
    assert read_meta(path) == META


@pytest.mark.parametrize(
    'content', [b'', b'PK\x03\x04 not a model', b'\xff' * 40, b'\x3a\xff\xff\xff\x0f']
)
def test_no_onnx_file(write, content):
    with pytest.raises(UserError, match='is no ONNX file'):
        read_meta(write(content))


def test_a_file_cut_off_anywhere(write):
    """Never another exception, whatever the place."""
    whole = model().SerializeToString()
    for end in range(1, len(whole)):
        path = write(whole[:end])
        try:
            assert read_meta(path) == META
        except UserError:
            continue


def test_messages_nested_without_end(write):
    """A graph in an attribute of a node of a graph ..., 3000 deep."""
    content = b''
    for _ in range(1000):
        for number in (1, 5, 6):  # node of graph, attribute of node, graph
            tag = {1: 0x32, 5: 0x2A, 6: 0x0A}[number]
            length, size = len(content), []
            while length > 127:
                size.append(length & 127 | 128)
                length >>= 7
            content = bytes([tag, *size, length]) + content
    head = onnx.ModelProto().SerializeToString()
    size, length = [], len(content)
    while length > 127:
        size.append(length & 127 | 128)
        length >>= 7
    with pytest.raises(UserError, match='is no ONNX file .nested too deeply'):
        read_meta(write(head + bytes([0x3A, *size, length]) + content))


def test_no_export_of_ours(write):
    with pytest.raises(UserError, match='is not an EoMT export: it has no metadata'):
        read_meta(write(model(meta=None)))


CHANGES = [
    dict(format=2),
    dict(task='depth'),
    dict(classes=[]),
    dict(classes=['cat', 7]),
    dict(palette=[[1, 2, 3]]),
    dict(palette=[[1, 2, 3], [4, 5, 600]]),
    dict(palette=[[1, 2], [4, 5]]),
    dict(size=[8, -8]),
    dict(size=[8, 10**9]),
    dict(size='8x8'),
    dict(resize=dict(short_side=8)),
    dict(resize=dict(short_side='8', max_aspect=10)),
    dict(test=dict(score_thr=0.8)),
    dict(upright='yes'),
    dict(num_things=None),
    dict(num_things=3),
    dict(classes='ab'),
    dict(size=[9000, 8]),
    dict(resize=dict(rows=0, cols=8)),
    dict(resize=dict(rows=8.5, cols=8.5)),
    dict(resize=dict(short_side=60000, max_aspect=10)),
    dict(resize=dict(short_side=8, max_aspect=0)),
    dict(test=META['test'] | dict(score_thr=float('nan'))),
]


@pytest.mark.parametrize('change', CHANGES, ids=str)
def test_odd_metadata(write, change):
    with pytest.raises(UserError, match='of another version, or damaged'):
        read_meta(write(model(meta=META | change)))
    for odd in ([], 'text', {}):
        with pytest.raises(UserError, match='of another version, or damaged'):
            read_meta(write(model(meta=odd)))


def test_metadata_of_another_network(write):
    with pytest.raises(UserError, match='do not fit its metadata'):
        Predictor(write(model(images=(1, 3, 16, 16))))
    other = META | dict(classes=['a'], palette=[[0, 0, 0]])
    with pytest.raises(UserError, match='do not fit its metadata'):
        Predictor(write(model(meta=other)))


def test_a_field_that_only_parsers_see(write):
    """ONNX Runtime's drops bits of a tag above 32: another graph, unchecked."""
    hostile = model(weight=tensor('class_logits', '../secret')).graph
    content = hostile.SerializeToString()
    size = bytes([len(content) & 127 | 128, len(content) >> 7])
    seen, unseen = b'\x3a', b'\xba\x80\x80\x80\x10'
    start = model().SerializeToString()
    with pytest.raises(UserError, match='not in its folder'):
        read_meta(write(start + seen + size + content))
    with pytest.raises(UserError, match='is no ONNX file .no protocol buffer'):
        read_meta(write(start + unseen + size + content))


@pytest.mark.parametrize(
    'change, message',
    [
        (dict(images=(0, 3, 8, 8)), 'do not fit its metadata'),
        (dict(masks=np.zeros((1, 2, 4, 4), np.float16)), 'do not fit its metadata'),
        (dict(masks=np.zeros((1, 1, 4, 4), np.float32)), 'do not go together'),
        (dict(masks=np.zeros((1, 2, 0, 4), np.float32)), 'do not go together'),
        (dict(masks=np.full((1, 2, 4, 4), np.nan, np.float32)), 'that are not finite'),
    ],
)
def test_networks_that_do_not_keep_their_word(write, change, message):
    with pytest.raises(UserError, match=message):
        Predictor(write(model(**change)))(np.zeros((8, 8, 3), np.uint8))


def test_networks_that_fail(write):
    made = model()
    made.graph.input.add().CopyFrom(
        helper.make_tensor_value_info('more', TensorProto.FLOAT, [1])
    )
    with pytest.raises(UserError, match="'more'.*do not fit its metadata"):
        Predictor(write(made))
    made = model()
    del made.graph.initializer[0]  # the masks
    huge = numpy_helper.from_array(np.array([1, 2, 10**6, 10**7]), 'huge')
    made.graph.initializer.add().CopyFrom(huge)
    made.graph.node.add(
        op_type='ConstantOfShape', input=['huge'], output=['mask_logits']
    )
    with pytest.raises(UserError, match='ONNX Runtime cannot (open|run) '):
        Predictor(write(made))(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize('provider', ['NoSuchProvider', ('NoSuchProvider', {})])
def test_providers_that_are_not_there(write, provider):
    """ONNX Runtime would take the CPU without an error."""
    with pytest.raises(UserError, match="'NoSuchProvider' here, it has .*CPUExec"):
        Predictor(write(model()), providers=[provider, 'CPUExecutionProvider'])


@pytest.mark.parametrize(
    'error, status, message',
    [
        (KeyboardInterrupt(), 130, 'interrupted'),
        (MemoryError('9 GB'), 2, 'error: the memory is not enough for .* .9 GB.'),
    ],
)
def test_how_the_command_ends(
    write, tmp_path, capsys, monkeypatch, error, status, message
):
    from PIL import Image

    def fail(*_):
        raise error

    Image.new('RGB', (9, 9)).save(tmp_path / 'photo.png')
    monkeypatch.setattr(Predictor, '__call__', fail)
    words = (write(model()), tmp_path / 'photo.png', '--out', tmp_path / 'out.png')
    assert run(*words) == status
    said = capsys.readouterr().err.strip()
    assert re.fullmatch(message, said)
    assert not (tmp_path / 'out.png').exists()


def test_what_onnxruntime_refuses(write):
    made = model()
    made.graph.node.add(op_type='NoSuchOperator', output=['x'])
    with pytest.raises(UserError, match='ONNX Runtime cannot open .*model.onnx: '):
        Predictor(write(made))


def run(*argv):
    return main([str(word) for word in argv])


@pytest.mark.parametrize(
    'name, content, message',
    [
        ('none.jpg', None, 'there is no such file'),
        ('empty.jpg', b'', 'is not an image that can be read'),
        ('text.png', b'hello', 'is not an image that can be read'),
        ('cut.png', 'cut', 'is not an image that can be read'),
        ('bomb.png', 'bomb', 'megapixels, and the limit is'),
    ],
)
def test_photos_that_cannot_be_read(write, tmp_path, capsys, name, content, message):
    from PIL import Image

    photo = tmp_path / name
    if content == 'cut':
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(photo)
        photo.write_bytes(photo.read_bytes()[:900])
    elif content == 'bomb':
        Image.new('1', (20000, 20000)).save(photo)
    elif content is not None:
        photo.write_bytes(content)
    assert run(write(model()), photo, '--out', tmp_path / 'out.png') == 2
    said = capsys.readouterr().err
    assert message in said and said.count('\n') == 1 and said.startswith('error: ')
    assert not (tmp_path / 'out.png').exists()


def test_a_picture_that_cannot_be_written(write, tmp_path, capsys):
    from PIL import Image

    Image.new('RGB', (9, 9)).save(tmp_path / 'photo.png')
    (tmp_path / 'file').touch()
    words = [write(model()), tmp_path / 'photo.png', '--out']
    assert run(*words, tmp_path / 'file/out.png') == 2
    assert 'cannot be written' in capsys.readouterr().err
    assert run(*words, tmp_path / 'out.xyz') == 2
    assert 'ending in .png' in capsys.readouterr().err
    assert {p.name for p in tmp_path.iterdir()} == {'file', 'model.onnx', 'photo.png'}


def test_names_do_not_steer_the_terminal(write, tmp_path, capsys):
    from PIL import Image

    Image.new('RGB', (9, 9)).save(tmp_path / 'photo.png')
    names = ['\x1b[2Jcat', 'dog']
    assert (
        run(write(model(meta=META | dict(classes=names))), tmp_path / 'photo.png') == 0
    )
    assert '\x1b' not in capsys.readouterr().out
