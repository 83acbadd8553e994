"""What a CPU does differently in inference.

`onednn` and `attention` are kernels, `layers` puts them in the place of PyTorch's.
`network` calls `prepare`, and attention layers take any function that does what
`masked_attention.attend` does. Behind the network, `windows` asks for `product`.
"""

from .layers import prepare
from .onednn import product

__all__ = ['prepare', 'product']
