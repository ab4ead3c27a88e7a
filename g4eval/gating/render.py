"""A verdict record as text for a terminal, Markdown for a CI summary, and JUnit XML."""

import re
from xml.etree import ElementTree as ET

from g4eval.output import visible
from g4eval.store.verdicts import (
    StoredDetails,
    StoredLook,
    StoredPolicy,
    StoredTaskVerdict,
    VerdictRecord,
)

# Keys that should be written down before the run; said first where they weren't.
MARGINS = ("margin_pt", "ok_pt", "alpha_pass", "alpha_fail", "design", "guardrail_alpha")


def render_text(record: VerdictRecord, *, was_stored: bool) -> str:
    """Return the verdict as plain text, the rules first."""
    policy = record.policy
    lines = [_rules(policy)]
    defaults = [key for key in MARGINS if key in record.policy_defaults]
    if defaults:
        told = ", ".join(f"{key} {getattr(policy, key)}" for key in defaults)
        lines.append(f"not in a policy, so by default: {told}")
    lines.append(f"baseline {record.baseline.run_id}, candidate {record.candidate.run_id}")
    lines += _layer_lines(record)
    if record.tasks:
        lines += ["", *_task_table(record), "", *_primary_lines(record)]
    lines += ["", f"{record.verdict} (exit code {record.exit_code})"]
    lines += [f"  {reason}" for reason in record.reasons]
    lines.append(record.meaning)
    lines += _next_lines(record)
    if was_stored:
        lines.append(f"decided on {record.decided_at}; the same data give the same verdict")
    lines += _notes(record)
    return "\n".join(lines) + "\n"


def render_markdown(record: VerdictRecord) -> str:
    """Return the verdict as Markdown, for a job summary."""
    sign = {"PASS": "✅", "FAIL": "❌", "INCONCLUSIVE": "❔", "INVALID": "⛔"}[record.verdict]
    lines = [
        f"## {sign} g4eval gate: {record.verdict}",
        "",
        f"{_code(record.baseline.run_id)} → {_code(record.candidate.run_id)}",
        "",
        _plain(_rules(record.policy)) + ".",
        "",
        *(f"- {_plain(reason)}" for reason in record.reasons),
    ]
    if record.tasks:
        lines += ["", *_markdown_table(record), "", *map(_plain, _primary_lines(record))]
    lines += ["", _plain(record.meaning), ""]
    lines += [f"- {_plain(line)}" for line in (*_layer_lines(record), *_notes(record))]
    lines += [f"- next: {_code(command)}" for command in record.next]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Return a text as Markdown that shows it: no HTML, link, image or second line of its own."""
    text = " ".join(visible(text).split())
    for sign, shown in (("&", "&amp;"), ("<", "&lt;"), ("[", "\\["), ("|", "\\|")):
        text = text.replace(sign, shown)
    return text


def _code(text: str) -> str:
    """Return a text as a code span, which a backtick in it doesn't end."""
    text = " ".join(visible(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if len(fence) > 1 else f"`{text}`"


def render_junit(record: VerdictRecord) -> str:
    """Return JUnit XML: a case for the verdict and one for each layer.

    FAIL is a failure, INVALID an error. INCONCLUSIVE is a failure where the policy says so and
    skipped otherwise: the exit code is what a pipeline should look at.
    """
    suite = ET.Element("testsuite", name="g4eval gate", timestamp=record.decided_at)
    message = "; ".join(record.reasons) or record.meaning
    kind = {"FAIL": "failure", "INVALID": "error", "INCONCLUSIVE": "skipped"}.get(record.verdict)
    if record.verdict == "INCONCLUSIVE" and record.exit_code == 1:
        kind = "failure"
    cases = [("verdict", kind, message)]
    kinds = {"FAIL": "failure", "INVALID": "error", "not run": "skipped"}
    cases += [
        (layer.layer, kinds.get(layer.says), "; ".join(layer.findings)) for layer in record.layers
    ]
    for name, outcome, said in cases:
        text = visible(said)  # XML has no control characters
        case = ET.SubElement(suite, "testcase", classname="g4eval.gate", name=name)
        if outcome is not None:
            ET.SubElement(case, outcome, message=text)
    for attribute, element in (
        ("failures", "failure"),
        ("errors", "error"),
        ("skipped", "skipped"),
    ):
        suite.set(attribute, str(sum(outcome == element for _, outcome, _ in cases)))
    suite.set("tests", str(len(cases)))
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _rules(policy: StoredPolicy) -> str:
    return (
        f"margin {policy.margin_pt:g} points, tolerated {policy.ok_pt:g}, alpha "
        f"{policy.alpha_pass:g} for PASS and {policy.alpha_fail:g} for FAIL, "
        f"design {policy.design}, primary {policy.primary}"
    )


def _layer_lines(record: VerdictRecord) -> list[str]:
    lines = []
    for layer in record.layers:
        findings = f": {'; '.join(layer.findings)}" if layer.findings else ""
        lines.append(f"{layer.layer}: {layer.says}{findings}")
        changed = layer.details.changed
        if changed:
            lines[-1] += f" (swap: {layer.details.axis}; {'; '.join(changed)})"
        if layer.details.rates:
            lines[-1] += f" ({_shape(layer.details)})"
        unknown = layer.details.unknown_in_both
        if unknown:
            lines[-1] += f" (unknown in both: {', '.join(unknown)})"
    return lines


def _shape(details: StoredDetails) -> str:
    """Return L3's shares, baseline to candidate, and the change of the mean length."""
    parts = [
        f"{name.replace('_', ' ')} {100 * rate.baseline:.1f} to {100 * rate.candidate:.1f} %"
        for name, rate in details.rates.items()
    ]
    length = details.length
    if length is not None:
        parts.append(
            f"length {length.change_pct:+.1f} %, 95 % {length.low_pct:+.1f} to "
            f"{length.high_pct:+.1f}"
        )
    return "; ".join(parts)


def _rows(record: VerdictRecord) -> list[list[str]]:
    rows = [["task", "samples", "repeats", "baseline", "candidate", "difference", "95 %", "flips"]]
    for task, values in record.tasks.items():
        limits = values.interval_fixed_pt
        interval = "" if limits is None else f"{limits[0]:+.2f} to {limits[1]:+.2f}"
        expected = values.expected_discordance_pct
        flips = f"{values.discordance_pct:.1f} %"
        flips += "" if expected is None else f" (from sampling {expected:.1f})"
        rows.append(
            [
                task,
                _samples(values),
                str(values.repeats),
                f"{values.baseline_pct:.2f}",
                f"{values.candidate_pct:.2f}",
                f"{values.delta_pt:+.2f}",
                interval,
                flips,
            ]
        )
    return rows


def _samples(values: StoredTaskVerdict) -> str:
    """Return how many samples, and how many of them had a try by the last look."""
    seen = values.n_samples_seen
    return (
        str(values.n_samples)
        if seen in (None, values.n_samples)
        else (f"{seen} of {values.n_samples}")
    )


def _task_table(record: VerdictRecord) -> list[str]:
    rows = _rows(record)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i in (0, len(row) - 1) else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _markdown_table(record: VerdictRecord) -> list[str]:
    head, *rows = _rows(record)
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    return lines + [f"| {' | '.join(map(_plain, row))} |" for row in rows]


def _primary_lines(record: VerdictRecord) -> list[str]:
    primary = record.primary
    if primary is None:
        return []
    lines = [f"{record.estimand}: {primary.delta_pt:+.2f} points"]
    if primary.interval_fixed_pt is not None:
        low, high = primary.interval_fixed_pt
        lines[0] += f", 95 % {low:+.2f} to {high:+.2f}"
    if primary.interval_super_pt is not None:
        low, high = primary.interval_super_pt
        lines.append(f"on samples like these: 95 % {low:+.2f} to {high:+.2f}")
    if primary.confidence_sequence_pt is not None:
        low, high = primary.confidence_sequence_pt
        lines.append(f"confidence sequence, valid at every look: {low:+.2f} to {high:+.2f}")
    lines += [_look_line(look) for look in record.looks]
    if record.verdict in ("PASS", "FAIL") and record.pairs_used < record.pairs_planned:
        lines.append(f"it stopped at look {len(record.looks)}: its boundary was crossed")
    lines.append(f"pairs used: {record.pairs_used:,} of {record.pairs_planned:,}")
    lines += [
        f"{task}: a loss of {values.cannot_exclude_loss_pt:.1f} points is not excluded"
        for task, values in record.tasks.items()
        if not values.excludes_guardrail_margin
    ]
    return lines


def _look_line(look: StoredLook) -> str:
    name = "log e" if look.has_e_values else "z"
    passes = look.log_e_pass if look.has_e_values else look.z_pass
    fails = look.log_e_fail if look.has_e_values else look.z_fail

    def shown(value: float | None) -> str:
        return "beyond any" if value is None else f"{value:.2f}"

    return (
        f"look {look.round} at {look.information_fraction:.0%}: {name} for PASS "
        f"{shown(passes)} (needs {look.bound_pass:.2f}), for FAIL "
        f"{shown(fails)} (needs {look.bound_fail:.2f})"
    )


def _next_lines(record: VerdictRecord) -> list[str]:
    if not record.next:
        return []
    return ["next:", *(f"  {line}" for line in record.next), "  and this command again"]


def _notes(record: VerdictRecord) -> list[str]:
    notes = []
    if record.not_run:
        notes.append(f"not run: {', '.join(record.not_run)}")
    calibration = record.calibration
    notes.append(
        "uncalibrated: no A/A run has shown that equal engines pass on this machine"
        if calibration is None
        else f"calibration {calibration.id[:8]}, {calibration.age_days:g} days old"
    )
    return notes
