"From one convolution to a ResNet-50: a course you can run and a package you can import"
__version__ = "0.1.0"


class CourseError(ValueError):
    "A mistake the reader can mend: its message is one line that names the value, the rule and the fix"


def __getattr__(name):
    "`from resnet_course import ResNet, create_model` works, and torch is imported only then"
    if name in ('ResNet', 'create_model'):
        from . import models
        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
