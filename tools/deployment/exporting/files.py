"""Writing ONNX, with weights in a file beside it where they are large, and `.pt2`."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from eomt_mm.deploy.model_file import KEY
from eomt_mm.errors import UserError

from .silence import quiet

if TYPE_CHECKING:
    import onnx

OPSETS = (18, 23)  # the oldest that PyTorch writes, the newest tried here
INPUT = 'images'
# A protocol buffer ends at 2 GiB; what is not weights takes little.
LARGEST = 2**31 - 2**26
# Matrix products with weights; convolutions would be slower in int8.
QUANTIZED = ['MatMul', 'Gemm']


def write_onnx(
    program: torch.export.ExportedProgram,
    path: Path,
    outputs: list[str],
    meta: dict,
    opset: int,
) -> None:
    """Write a program as ONNX.

    Args:
        program (ExportedProgram): The network.
        path (Path): The file; weights of 2 GB and more lie in `<path>.data`.
        outputs (list[str]): Their names.
        meta (dict): The metadata.
        opset (int): Of ONNX.

    Raises:
        UserError: The packages of the extra `deploy` are missing.
    """
    try:
        table = {torch.ops.aten.sort.stable: _stable_sort()}
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    with quiet():
        found = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=opset,
            input_names=[INPUT],
            output_names=outputs,
            custom_translation_table=table,
            verbose=False,
        )
    found.model.metadata_props[KEY] = json.dumps(meta)
    size = sum(weight.numel() * weight.element_size() for weight in _weights(program))
    found.save(path, external_data=size > LARGEST)


def _weights(program: torch.export.ExportedProgram) -> list[torch.Tensor]:
    return [*program.state_dict.values(), *program.constants.values()]


def _stable_sort():
    """A stable sort in ONNX, whose TopK puts the first of equal values first."""
    from onnxscript import opset18 as op

    def sort(x, *, stable=None, dim=-1, descending=False):
        count = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]))
        return op.TopK(x, count, axis=dim, largest=int(descending), sorted=1)

    return sort


def write_program(
    program: torch.export.ExportedProgram, path: Path, meta: dict
) -> None:
    """Write a program as `.pt2`, for `torch.export.load`, metadata as a file within."""
    # PyTorch's own writer ends the process when the disk is full.
    archive = io.BytesIO()
    torch.export.save(program, archive, extra_files={f'{KEY}.json': json.dumps(meta)})
    path.write_bytes(archive.getbuffer())


def quantize(source: Path, target: Path) -> None:
    """Bring the weights of linear layers to int8; activations are brought at run time.

    Class logits stay in fp32, as they do everywhere.

    Args:
        source (Path): An fp32 export.
        target (Path): The file to write.
    """
    try:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    graph = onnx.load(source, load_external_data=False).graph
    with quiet():
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[classifier(graph).name],
        )


def classifier(graph: onnx.GraphProto) -> onnx.NodeProto:
    """Find the product that makes `class_logits`; its weights have lost their name."""
    makers = {output: node for node in graph.node for output in node.output}
    node = makers['class_logits']
    while node.op_type not in QUANTIZED:
        node = next(makers[name] for name in node.input if name in makers)
    return node


def _missing(error: ModuleNotFoundError) -> UserError:
    return UserError(
        f'{error.name} is not installed, and ONNX files need it: pip install '
        '"eomt_mm[deploy]", or write a .pt2 file'
    )
