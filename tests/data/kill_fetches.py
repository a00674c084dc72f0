"""Start fetches and kill each at its moment: `python kill_fetches.py ADDRESS ROOT SECONDS...`.

A process of its own, without threads, so that it can be forked. A fetch that was done before its
moment makes the later moments earlier, a killed one a little later: however fast this machine is
just now, about four in five are killed.
"""

import os
import signal
import sys
import time
from pathlib import Path

from fopro_lab.data.fetch import fetch


def main(address: str, root: Path, moments: list[float]) -> None:
    pace = 1.0
    for number, moment in enumerate(moments):
        child = os.fork()
        if not child:
            fetch("isic2019", out=root / str(number), mirror=address, progress=False)
            os._exit(0)
        time.sleep(pace * moment)
        os.kill(child, signal.SIGKILL)
        killed = os.waitpid(child, 0)[1] == signal.SIGKILL
        pace *= 1.2 if killed else 0.5
        print(int(killed))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), [float(text) for text in sys.argv[3:]])
