"From one convolution to a ResNet-50: a course you can run and a package you can import"
from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ['CourseError', 'ResNet', 'create_model']
_HOMES = {'CourseError': 'errors', 'ResNet': 'resnet', 'create_model': 'models'}  # as in the imports below


def __dir__(): return sorted({*globals(), *__all__})


if TYPE_CHECKING:
    from .errors import CourseError
    from .models import create_model
    from .resnet import ResNet
else:  # hidden from type checkers: to them, a module that has it has every name
    def __getattr__(name):
        "`from resnet_course import ResNet, create_model` works, and torch is imported only then"
        if name in _HOMES: return getattr(import_module(f'.{_HOMES[name]}', __name__), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
