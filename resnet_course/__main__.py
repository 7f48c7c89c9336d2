"`python -m resnet_course` is the command `resnet-course`"
from .cli import main

main()
