"""Coverage-guided fuzzing of the dialects' readers: `make fuzz`, or `python -m tests.fuzz.fuzz_dialects`.

The first byte of an input chooses the dialect; the rest is a body.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proxy.dialects"]):
    from tests.fuzz.dialects import NAMES, SEEDS, check


def one_input(data: bytes) -> None:
    """One input of the fuzzer. Raises where the oracle does not hold."""
    if data:
        check(NAMES[data[0] % len(NAMES)], data[1:])


def main() -> None:
    """Fuzz from the seeds; libFuzzer's own arguments, such as -max_total_time=60, are passed on."""
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS):
            for which in range(len(NAMES)):
                (Path(folder) / f"{number}-{which}").write_bytes(bytes([which]) + seed)
        atheris.Setup([sys.argv[0], "-max_len=4096", *sys.argv[1:], folder], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
