"""Find the best LoRA strategy for your GPU: ``python benchmark_lora_speed.py --gpu-budget 14GB``.

It is ``loraperf bench --advise``: the table of all strategies on this machine, with intervals, and then the code
to paste for the fastest, the smallest, and the fastest that fits the budget. ``--help`` shows what else there is:
``--model``, ``--adapter``, ``--height``, ``--width``, ``--steps``, ``--batch``, ``--sweep steps=4,8,16``.
"""

import sys

from pytest_loraperf.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", "--advise", *sys.argv[1:]]))
