"""How OpenMP's threads wait for each other; imported before torch, which reads this when it is loaded."""

import os

# By default an idle thread of GNU's OpenMP keeps its core busy for milliseconds. Where another process wants that core,
# two threads were measured 20 times slower than one. A shorter wait costs a few per cent on an idle machine and keeps a
# busy one usable; a value set by the user stays.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")
