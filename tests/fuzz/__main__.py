"""`python -m tests.fuzz MINUTES [BORDER...]`: share the minutes out, print a table."""

import sys
import time

from tests.fuzz.borders import all_borders
from tests.fuzz.running import fuzz


def main() -> None:
    """Exit with 1 where any border let something through."""
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    chosen = [b for b in all_borders() if not sys.argv[2:] or b.name in sys.argv[2:]]
    first_seed = int(time.time())
    print(f"first seed {first_seed}; {minutes:g} minutes over {len(chosen)} borders")
    print(f"{'border':<24}{'inputs':>9}{'refused':>9}{'slowest':>10}{'memory':>10}{'failures':>10}")
    broken = False
    for border in chosen:
        share = minutes * 60 / len(chosen)
        done = fuzz(border, first_seed=first_seed, examples=500, seconds=share)
        print(
            f"{done.border:<24}{done.inputs:>9,}{done.refused:>9,}{done.slowest_seconds:>8.2f} s"
            f"{done.peak_bytes / 1e6:>7,.0f} MB{len(done.failures):>10}",
            flush=True,
        )
        for failure in done.failures:
            print(failure, flush=True)
        broken = broken or bool(done.failures)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
