"""What the operators of a call are and hold."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class Operators(TorchDispatchMode):
    """Counts operators, and the bytes of tensors that are alive.

    Attributes:
        count (int): Operators that compute something; views do not.
        peak (int): Most bytes that were alive at once.
    """

    def __init__(self):
        super().__init__()
        self.count = self.alive = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.count += not func.is_view
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.add(tensor.untyped_storage())
        return out

    def add(self, storage):
        key = storage._cdata
        if key in self.known:
            return
        self.known.add(key)
        self.alive += storage.nbytes()
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self.drop, key, storage.nbytes())

    def drop(self, key, size):
        self.known.discard(key)
        self.alive -= size


class Waits(TorchDispatchMode):
    """Counts the operators for which the host of an accelerator waits.

    Attributes:
        names (list[str]): Of the operators, in order.
    """

    # The sizes of their results, or their results, are numbers of the device.
    ASKING = ('_local_scalar_dense', 'nonzero', '_unique2', 'masked_select')

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == 'index' and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        if by_mask or name in self.ASKING:
            self.names.append(name)
        return func(*args, **(kwargs or {}))
