"""An exported model at work: NumPy, Pillow and ONNX Runtime, no framework.

    python -m eomt_mm.deploy model.onnx photo.jpg --out picture.png

`model_file` reads what a file says of itself, `predictor` fits the photo, runs the
network and finishes its predictions by `postprocess`, `painting` shows them. Nothing
here imports PyTorch, MMEngine or MMCV, nor needs them to be installed.
"""

from .postprocess import Instances
from .predictor import Predictor

__all__ = ['Instances', 'Predictor']
