"From one convolution to a ResNet-50: a course you can run and a package you can import"
__version__ = "0.1.0"

_HOMES = {'ResNet': 'resnet', 'create_model': 'models', 'CourseError': 'errors'}


def __getattr__(name):
    "`from resnet_course import ResNet, create_model` works, and torch is imported only then"
    if name not in _HOMES: raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module
    return getattr(import_module(f'.{_HOMES[name]}', __name__), name)
