"""Lets PyPI's torchvision, a CUDA build, be imported beside a CPU build of PyTorch. A ``.pth`` file imports this at start.

Its compiled half cannot load there, and importing it would then fail where it describes two of its operators to PyTorch.
They are declared just before torchvision is imported; calling them still fails, and nothing that serves text does.
"""

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_OPERATORS = tuple(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor" for name in ("nms", "qnms"))
_libraries: list[object] = []
"""PyTorch forgets the declarations when their library is collected."""


class _BeforeTorchvision(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in _OPERATORS:
                library.define(operator)
            _libraries.append(library)
        return None


sys.meta_path.insert(0, _BeforeTorchvision())
