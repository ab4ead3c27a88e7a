"""Simulate all cells, one after the other, and write the table: `nox -s gate-sim`.

What is done is kept in results.jsonl beside this file and not done again, unless with fewer runs
than are asked for; `--again` starts over.
`--quick` runs a stratified part with fewer runs, for CI, and fails where a cell misses.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gate_sim.cells import SEED, Cell, cells
from benchmarks.gate_sim.table import misses, write_table

RESULTS = Path(__file__).with_name("results.jsonl")
TABLE = Path(__file__).parents[2] / "docs" / "gate-sim.md"
QUICK = {
    "level": (7, 600),
    "interval": (40, 150),
    "suite": (9, 60),
}  # every so many; of so many runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, print each cell, write docs/gate-sim.md."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--again", action="store_true", help="forget what was simulated before")
    parser.add_argument("--only", default="", help="level, suite or interval")
    parser.add_argument("--share", type=float, default=1.0, help="of the runs of each cell")
    options = parser.parse_args(arguments)
    if options.quick:
        return _quick()
    if options.again:
        RESULTS.unlink(missing_ok=True)
    done = {row["name"]: int(str(row["count"])) for row in read_results()}
    for cell in cells():
        count = max(1, round(options.share * cell.count))
        if done.get(cell.name, 0) >= count or options.only not in ("", cell.kind):
            continue
        row = simulate(cell, count)
        with RESULTS.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")
        print(row["name"], row["values"], flush=True)
    write_table(read_results(), TABLE)
    return 0


def read_results() -> list[dict[str, object]]:
    """Return what was simulated, in the order of the cells."""
    if not RESULTS.is_file():
        return []
    rows = {r["name"]: r for r in map(json.loads, RESULTS.read_text("utf-8").splitlines())}
    return [rows[cell.name] for cell in cells() if cell.name in rows]


def simulate(cell: Cell, count: int) -> dict[str, object]:
    """Return one cell's row."""
    started = time.monotonic()
    values = cell.run(count)
    seconds = round(time.monotonic() - started, 1)
    return {
        "name": cell.name,
        "kind": cell.kind,
        "count": count,
        "seed": SEED,
        "seconds": seconds,
        "values": {k: round(v, 6) for k, v in values.items() if math.isfinite(v)},
    }


def _quick() -> int:
    seen: dict[str, int] = {}
    failed = 0
    for cell in cells():
        every, count = QUICK[cell.kind]
        seen[cell.kind] = seen.get(cell.kind, 0) + 1
        if seen[cell.kind] % every != 1:
            continue
        row = simulate(cell, count)
        missed = misses(row)
        failed += bool(missed)
        print("MISSED" if missed else "ok", row["name"], row["values"], *missed, flush=True)
    return min(1, failed)


if __name__ == "__main__":
    raise SystemExit(main())
