"""Coverage-guided fuzzing of the reader of answers: `make fuzz`, or `python -m tests.fuzz.fuzz_answer`.

The first byte of an input says whether the request was HEAD and how many cuts there are; then come the cuts,
two bytes each, then the answer.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proxy.upstream", "httptools"]):
    from tests.fuzz.mutate import SEEDS
    from tests.fuzz.oracle import check

MOST_CUTS = 7


def one_input(data: bytes) -> None:
    """One input of the fuzzer. Raises AssertionError where the oracle does not hold."""
    if not data:
        return
    cuts = data[0] % (MOST_CUTS + 1)
    places = [int.from_bytes(data[at : at + 2]) for at in range(1, 1 + 2 * cuts, 2)]
    check(data[1 + 2 * cuts :], places, bodiless=bool(data[0] & 0x80))


def main() -> None:
    """Fuzz from the seeds; libFuzzer's own arguments, such as -max_total_time=60, are passed on."""
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(SEEDS):
            (Path(folder) / str(number)).write_bytes(b"\0" + seed)
        atheris.Setup([sys.argv[0], "-max_len=4096", *sys.argv[1:], folder], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
