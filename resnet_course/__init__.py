"From one convolution to a ResNet-50: a course you can run and a package you can import"
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ['CourseError', 'ResNet', 'create_model']
_HOMES = {'ResNet': 'resnet', 'create_model': 'resnet'}  # as in the imports below


class CourseError(ValueError):
    "A mistake the reader can mend: its message is one line that names the value, the rule and the fix"


def __dir__(): return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from .resnet import ResNet
    from .resnet import create_model
else:  # hidden from type checkers: to them, a module that has it has every name
    def __getattr__(name):
        "`from resnet_course import ResNet, create_model` works, and torch is imported only then"
        if name in _HOMES: return getattr(import_module(f'.{_HOMES[name]}', __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
