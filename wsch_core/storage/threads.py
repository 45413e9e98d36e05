"""How OpenMP's threads wait for each other; imported before torch, which reads this when it is loaded."""

import os
from contextlib import contextmanager

# By default an idle thread of GNU's OpenMP keeps its core busy for milliseconds. Where another process wants that core,
# two threads were measured 20 times slower than one. A shorter wait costs a few per cent on an idle machine and keeps a
# busy one usable; a value set by the user stays.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")


@contextmanager
def torch_threads_kept():
    """Around what may start numba: it sets OpenMP's number of threads, and with it torch's, and then sums are rounded
    differently than before."""
    import torch  # only here: the variable above must be set first

    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)
