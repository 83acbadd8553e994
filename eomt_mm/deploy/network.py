"""A network in ONNX Runtime that is held to what its metadata promises."""

from pathlib import Path

import numpy as np

from eomt_mm.errors import UserError

OUTPUTS = ['class_logits', 'mask_logits']
FLOAT = 'tensor(float)'
SILENT = 4  # of ONNX Runtime's log: its errors are exceptions, too


class Network:
    """An ONNX file, opened once it has proved harmless.

    Args:
        path (str | Path): The file.
        meta (dict): Its metadata.
        providers (list[str], optional): ONNX Runtime's. Defaults to the CPU.
        threads (int): Threads of the CPU; 0 leaves the number to ONNX Runtime.
            Defaults to 0.

    Attributes:
        batch (int): Images that it takes at once.

    Raises:
        UserError: ONNX Runtime or a provider is missing, or the file is damaged or
            does not fit its metadata.
    """

    def __init__(
        self,
        path: str | Path,
        meta: dict,
        providers: list[str] | None = None,
        threads: int = 0,
    ) -> None:
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise UserError(
                f'{error.name} is not installed: pip install onnxruntime'
            ) from error
        if threads < 0:
            raise UserError(f'threads is {threads}: expected 0 or more')
        providers = providers or ['CPUExecutionProvider']
        names = [p if isinstance(p, str) else p[0] for p in providers]
        _require(names, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = SILENT
        # A name may end in .ort, whose format nobody has checked.
        options.add_session_config_entry('session.load_model_format', 'ONNX')
        self.path, self.classes = path, len(meta['classes']) + 1
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers)
        except Exception as error:  # ONNX Runtime has a class for each of its states
            raise UserError(
                f'ONNX Runtime cannot open {path}: {_line(error)}'
            ) from error
        # One whose libraries are missing is left out without an exception.
        _require(names, self.session.get_providers())
        self.batch = self._check(meta)

    def _check(self, meta: dict) -> int:
        """Return the number of images at once; refuse what `__call__` cannot run."""
        inputs, outputs = (
            {value.name: (value.type, value.shape) for value in values}
            for values in (self.session.get_inputs(), self.session.get_outputs())
        )
        images, classes, masks = (
            found.get(name, (None, []))
            for found, name in zip(
                (inputs, outputs, outputs), ('images', *OUTPUTS), strict=True
            )
        )
        batch = images[1][0] if images[1] else None
        if (
            inputs.keys() != {'images'}
            or {images[0], classes[0], masks[0]} != {FLOAT}
            or images[1][1:] != [3, *meta['size']]
            or classes[1][2:] != [self.classes]
            or len(masks[1]) != 4
            or isinstance(batch, int)
            and batch < 1
        ):
            raise UserError(
                f'{self.path} has inputs {inputs} and outputs {outputs}, which do not '
                'fit its metadata: export the model again'
            )
        return batch if isinstance(batch, int) else 1

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict.

        Args:
            images (np.ndarray): RGB from 0 to 255, shape (batch, 3, H, W) fp32.

        Returns:
            tuple[np.ndarray, np.ndarray]: Class logits (batch, K, classes + 1) and
            mask logits (batch, K, h, w).

        Raises:
            UserError: ONNX Runtime fails, or returns something else.
        """
        try:
            classes, masks = self.session.run(OUTPUTS, {'images': images})
        except Exception as error:
            raise UserError(
                f'ONNX Runtime cannot run {self.path}: {_line(error)}'
            ) from error
        queries = (len(images), classes.shape[1])
        if (
            classes.shape != (*queries, self.classes)
            or masks.shape[:2] != queries
            or 0 in masks.shape
        ):
            raise UserError(
                f'{self.path} returns class logits {classes.shape} and mask logits '
                f'{masks.shape} for {len(images)} image(s), which do not go together: '
                'export the model again'
            )
        if not (np.isfinite(classes).all() and np.isfinite(masks).all()):
            raise UserError(
                f'{self.path} returns numbers that are not finite: export the model '
                'in fp32, or look at its weights'
            )
        return classes, masks


def _require(names: list[str], known: list[str]) -> None:
    missing = [name for name in names if name not in known]
    if missing:
        raise UserError(
            f'ONNX Runtime cannot use the provider {missing[0]!r} here, it has '
            f'{", ".join(known)}: install its libraries and the onnxruntime package '
            'that brings it, or choose another'
        )


def _line(error: Exception) -> str:
    return str(error).partition('\n')[0]
