"""A process of its own that has the imports done: forked from a server that has done nothing else

To start one takes seconds less than to start Python; whoever must see the start itself starts Python."""
import os
import sys
from multiprocessing import get_context
from multiprocessing.reduction import DupFd

FORKED = get_context('forkserver')
FORKED.set_forkserver_preload(['fastai.vision.all', 'nbdev.test', 'matplotlib.pyplot', 'resnet_course.cli',
                               'resnet_course.recipes'])


def _main(words, out, err):
    from resnet_course.cli import main
    for fd, number in ((out, 1), (err, 2)): os.dup2(fd.detach(), number)
    sys.stdout, sys.stderr = (os.fdopen(number, 'w', closefd=False) for number in (1, 2))
    sys.argv[1:] = words
    main()


class Command:
    "`resnet-course WORDS`, as `subprocess.Popen` would have it with pipes"
    def __init__(self, *words):
        pipes = os.pipe(), os.pipe()
        args = [str(w) for w in words], *(DupFd(end) for _, end in pipes)
        self.process = FORKED.Process(target=_main, args=args)
        self.process.start()
        for _, end in pipes: os.close(end)
        self.stdout, self.stderr = (os.fdopen(end) for end, _ in pipes)

    def send_signal(self, signal): os.kill(self.process.pid, signal)

    @property
    def returncode(self): return self.process.exitcode

    def communicate(self, timeout):
        self.process.join(timeout)
        assert self.returncode is not None, f"not finished after {timeout} s"
        with self.stdout as out, self.stderr as err: return out.read(), err.read()
