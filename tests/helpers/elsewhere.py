"""A device that is none: tensors that claim to live elsewhere, hold CPU tensors, and refuse to mix with the CPU's.

    with Elsewhere() as device:
        model.to(DEVICE)(images.to(DEVICE)).sum().backward()
    device.reads        # {"aten.nonzero": 3}: values that the training process waited for
    device.copies       # {"waits": 0, "goes on": 2}: tensors moved there

It shows without an accelerator what one would complain about or wait for; kernels are the CPU's.
"""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from uda.runtime import devices

DEVICE = torch.device("meta")  # what these tensors answer: not "cpu", and known to every build
INNER = torch.device("cpu", 1)  # what the dispatcher sees: an own device, whose kernels and autocast are the CPU's
HOST = torch.device("cpu")
THERE = (DEVICE, INNER)

aten = torch.ops.aten
# their results' shapes or values are the host's business
READING = {
    aten._local_scalar_dense,
    aten.nonzero,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.masked_select,
    aten.bincount,
    aten.equal,
    aten.repeat_interleave,
    aten.isin,  # by sorting out what is there twice, unless one side is small
}


class There(Tensor):
    """A tensor of that device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> There:
        return Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=INNER,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    device = property(lambda self: DEVICE)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a tensor elsewhere, outside `with Elsewhere()`")

    def tolist(self):
        return self.cpu().tolist()

    def __deepcopy__(self, memo) -> There:
        with torch.no_grad():
            copy = There(self.inner.detach().clone())
        copy.requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copy._is_param = True
        memo[id(self)] = copy
        return copy


class Elsewhere(TorchDispatchMode):
    """Inside it there is that device; counts what is read back and moved, raises where devices mix."""

    def __init__(self) -> None:
        super().__init__()
        self.reset()

    def reset(self) -> None:
        self.reads: Counter[str] = Counter()
        self.copies: Counter[str] = Counter()

    def __enter__(self):
        self.overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        self.autocast = torch.autocast
        torch.autocast = lambda device, *args, **kwargs: self.autocast("cpu", *args, **kwargs)
        devices.WITHOUT_WAITING.add(DEVICE.type)  # as CUDA
        return super().__enter__()

    def __exit__(self, *error):
        torch.__future__.set_overwrite_module_params_on_conversion(self.overwrite)
        torch.autocast = self.autocast
        devices.WITHOUT_WAITING.remove(DEVICE.type)
        return super().__exit__(*error)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, Tensor)]
        theirs = [x for x in tensors if isinstance(x, There)]
        hosts = [x for x in tensors if not isinstance(x, There)]
        wanted = kwargs.get("device")
        result_is_there = wanted in THERE if wanted is not None else bool(theirs)
        packet = func.overloadpacket

        if packet in (aten._to_copy, aten.copy_):
            target_is_there = result_is_there if packet is aten._to_copy else isinstance(args[0], There)
            source = args[0] if packet is aten._to_copy else args[1]
            waits = not (kwargs.get("non_blocking") or (packet is aten.copy_ and len(args) > 2 and args[2]))
            if target_is_there and not isinstance(source, There):
                self.copies["waits" if waits else "goes on"] += 1
            elif not target_is_there and isinstance(source, There):
                self.reads[str(packet)] += 1
        elif theirs:
            self.refuse_to_mix(func, theirs, hosts)
            indices = tree_flatten(args[1:2])[0]
            by_mask = any(isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in indices)
            fills = packet in (aten.index_put, aten.index_put_) and args[2].numel() > 1
            if packet in READING or (by_mask and (packet is aten.index or fills)):
                self.reads[str(packet)] += 1

        if wanted in THERE:
            kwargs["device"] = HOST
        known = {id(x.inner): x for x in theirs}
        out = func(*tree_map(unwrap, args), **tree_map(unwrap, kwargs))
        for x in theirs:
            if x.shape != x.inner.shape:
                raise NotImplementedError(f"{func} changes a tensor's shape in place")
        if not result_is_there or packet is aten._local_scalar_dense:
            return out
        return tree_map(lambda y: known.get(id(y), y) if id(y) in known or not isinstance(y, Tensor) else There(y), out)

    @staticmethod
    def refuse_to_mix(func, theirs: list[Tensor], hosts: list[Tensor]) -> None:
        """PyTorch takes single numbers from the CPU, where an operation goes element by element."""
        by_element = torch.Tag.pointwise in func.tags or func.__name__.startswith("_foreach")
        mixed = [x for x in hosts if x.ndim > 0 or not by_element]
        if mixed:
            shapes = [tuple(x.shape) for x in mixed], [tuple(x.shape) for x in theirs]
            raise RuntimeError(f"{func}: CPU tensors {shapes[0]} mixed with tensors elsewhere {shapes[1]}")


def unwrap(x):
    return x.inner if isinstance(x, There) else x
