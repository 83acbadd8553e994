"""What a CPU does differently in inference.

`onednn` and `attention` are kernels, `layers` puts them in the place of PyTorch's, and
`decision` asks `choice`, which times both on the machine at hand. `network` calls
`prepare`, and attention layers take any function that does what
`masked_attention.attend` does. Behind the network, `windows` asks for `product`.
"""

from .decision import cast_throughout, prepare
from .onednn import product

__all__ = ['cast_throughout', 'prepare', 'product']
