"""Error rates of the gate and of the rules in common use, as the Markdown tables of docs/gate.md.

Run by `nox -s gate-sim`, or `python benchmarks/gate_error_rates.py --count 10000`.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

from g4eval.gate.policy import GatePolicy
from g4eval.gate.simulate import SUITE, TRUTHS, gate_rates, side_by_side

DESIGNS = (GatePolicy(design="gst"), GatePolicy(design="anytime"), GatePolicy(design="fixed"))
TWICE = {name: replace(task, repeats=2 * task.repeats) for name, task in SUITE.items()}


def print_error_rates(count: int, seed: int) -> None:
    """Print the gate's error rates for three designs as a Markdown table."""
    print("| truth (points) | design | PASS | FAIL | INCONCLUSIVE | primary FAIL | mean pairs |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for truth in TRUTHS:
        found = gate_rates(SUITE, truth, DESIGNS, rho=0.6, count=count, seed=seed)
        rows = [(str(policy.design), rates) for policy, rates in zip(DESIGNS, found, strict=True)]
        (twice,) = gate_rates(TWICE, truth, DESIGNS[1:2], rho=0.6, count=count, seed=seed)
        rows.insert(2, ("anytime, up to twice the pairs", twice))
        for design, rates in rows:
            print(
                f"| {truth.label} | {design} | {rates.passed:.1%} | {rates.failed:.1%} | "
                f"{rates.inconclusive:.1%} | {rates.primary_failed:.1%} | {rates.mean_pairs:.0f} |",
                flush=True,
            )


def print_side_by_side(count: int, seed: int) -> None:
    """Print pass / fail rates of the rules in common use beside the gate's, as Markdown."""
    deltas = (0.0, -1.0, -2.0, -3.0, -5.0)
    for repeats in (1, 8):
        columns = [side_by_side(d, repeats, count=count, seed=seed) for d in deltas]
        print(f"\n198 samples, accuracy 0.843, {repeats} repeats: PASS / FAIL %\n")
        print("| rule | " + " | ".join(f"{d:+g}" if d else "0" for d in deltas) + " |")
        print("| --- |" + " --- |" * len(deltas))
        for rule in columns[0]:
            cells = [f"{c[rule].passed:.0%} / {c[rule].failed:.0%}" for c in columns]
            print(f"| {rule} | " + " | ".join(cells).replace("%", "") + " |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--count", type=int, default=3000, help="simulated comparisons a row")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    print_error_rates(options.count, options.seed)
    print_side_by_side(options.count, options.seed)


if __name__ == "__main__":
    main()
