"""What `import wsch_core` costs beside `import torch`, each in processes of their own.

python benchmarks/startup.py [--rounds 10] [--json startup.json]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from timing import in_turn, machine, save, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    ways = {
        f"import {name}": lambda name=name: subprocess.run([sys.executable, "-c", f"import {name}"], check=True)
        for name in ("torch", "wsch_core")
    }
    seconds = in_turn(ways, given.rounds, 2)
    rows = [{"": name, "s": value, "times torch": value / seconds["import torch"]} for name, value in seconds.items()]
    table(rows[0], [row.values() for row in rows])
    save(given.json, {"machine": machine(), "start-up": rows})


if __name__ == "__main__":
    main()
