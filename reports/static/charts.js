// The forest plots, drawn by Observable Plot. Colours come from the style sheet, so that both modes
// and print work; marks have classes instead of colours.
"use strict";
const charts = (() => {
  const MINUS = "\u2212";
  const number = (x, digits = 1) => x.toFixed(digits).replace("-", MINUS);
  const signed = (x) => (x > 0 ? "+" : "") + number(x);
  const range = (low, high) => `${number(low)}\u2013${number(high)}`;
  const known = (x) => x !== null && x !== undefined;

  // Redraw when the width changes by more than a few pixels.
  function responsive(box, draw) {
    let width = 0;
    new ResizeObserver(([entry]) => {
      const next = Math.floor(entry.contentRect.width);
      if (Math.abs(next - width) < 4) return;
      width = next;
      const drawn = draw(width);
      box.replaceChildren(drawn instanceof SVGElement ? spoken(drawn) : drawn);
    }).observe(box);
  }

  // To assistive technology a chart is one image with all its numbers; its groups have no names.
  function spoken(chart) {
    chart.setAttribute("role", "img");
    for (const group of chart.querySelectorAll("g[aria-label]")) group.removeAttribute("aria-label");
    return chart;
  }

  function bounds(values, pad) {
    const low = Math.max(0, Math.floor((Math.min(...values) - pad) / 5) * 5);
    const high = Math.min(100, Math.ceil((Math.max(...values) + pad) / 5) * 5);
    return [low, high];
  }

  const shorten = (text, room) => (text.length <= room ? text : `${text.slice(0, room - 1)}\u2026`);

  const empty = (text) => g4eval.el("p", { class: "hint" }, text);

  // One row a run: its label above, then measured with both intervals, the published one below it.
  function forest(panel, width) {
    const rows = panel.rows.filter((row) => known(row.value)).map((row, index) => ({ ...row, index }));
    const values = rows
      .flatMap((r) => [r.wideLow, r.wideHigh, r.publishedLow, r.publishedHigh, r.published])
      .filter(known);
    if (panel.reference) values.push(panel.reference.value);
    if (!values.length) return empty("Nothing was graded yet.");
    const domain = bounds(values, 2);
    const printed = rows.filter((row) => known(row.published));
    const sentences = rows.map(
      (r) =>
        `${r.label}: ${number(r.value)}, 95 % interval ${range(r.low, r.high)}` +
        (known(r.published) ? `, published ${number(r.published)}, ${r.verdict}` : ""),
    );
    const tip = (r) =>
      `${r.run}\nmeasured ${number(r.value)}  (${range(r.low, r.high)})\n` +
      `questions like these ${range(r.wideLow, r.wideHigh)}` +
      (known(r.published)
        ? `\npublished ${number(r.published)}` +
          (known(r.publishedLow) ? `  (${range(r.publishedLow, r.publishedHigh)})` : "") +
          `\n${r.verdict}`
        : "");
    return Plot.plot({
      className: "chart",
      width,
      height: 34 + rows.length * 46,
      marginLeft: 2,
      marginRight: 14,
      marginTop: 4,
      marginBottom: 26,
      ariaLabel: `${panel.task}. ${sentences.join(". ")}`,
      x: { domain, ticks: Math.min(6, Math.round(width / 70)), label: null },
      y: { domain: [rows.length, 0], axis: null },
      marks: [
        Plot.gridX({ strokeOpacity: 0.16, ticks: Math.min(6, Math.round(width / 70)) }),
        panel.reference
          ? Plot.ruleX([panel.reference.value], { className: "stroke-reference" })
          : null,
        Plot.link(rows, { x1: "wideLow", x2: "wideHigh", y1: (r) => r.index + 0.52, y2: (r) => r.index + 0.52, className: "stroke-wide" }),
        Plot.link(rows, { x1: "low", x2: "high", y1: (r) => r.index + 0.52, y2: (r) => r.index + 0.52, className: "stroke-own" }),
        Plot.dot(rows, { x: "value", y: (r) => r.index + 0.52, r: 4.5, className: "fill-own" }),
        Plot.link(printed, { x1: (r) => r.publishedLow ?? r.published, x2: (r) => r.publishedHigh ?? r.published, y1: (r) => r.index + 0.78, y2: (r) => r.index + 0.78, className: "stroke-theirs" }),
        Plot.dot(printed, { x: "published", y: (r) => r.index + 0.78, r: 4, symbol: "diamond", className: "fill-theirs" }),
        Plot.text(rows, {
          frameAnchor: "left",
          y: (r) => r.index + 0.2,
          text: (r) => shorten(r.label, Math.floor(width / 8)),
          textAnchor: "start",
          fontSize: 12,
          fontWeight: 550,
          stroke: "var(--card)",
          strokeWidth: 5,
          className: "fill-label",
        }),
        Plot.text(rows, {
          frameAnchor: "right",
          y: (r) => r.index + 0.2,
          text: (r) => number(r.value),
          textAnchor: "end",
          fontSize: 12,
          fontWeight: 650,
          stroke: "var(--card)",
          strokeWidth: 5,
          className: "fill-label",
        }),
        Plot.tip(
          rows,
          Plot.pointer({ x: "value", y: (r) => r.index + 0.52, title: tip, maxRadius: 80, fontSize: 12, className: "tip" }),
        ),
      ],
    });
  }

  // Differences in points around a line at 0.
  function differences(tasks, width) {
    const rows = tasks.filter((t) => known(t.delta)).map((t, index) => ({ ...t, index }));
    if (!rows.length) return empty("No sample was graded in both runs.");
    const reach = Math.max(1, ...rows.flatMap((t) => [Math.abs(t.low), Math.abs(t.high)])) * 1.08;
    return Plot.plot({
      className: "chart",
      width,
      height: 34 + rows.length * 42,
      marginLeft: 2,
      marginRight: 14,
      marginTop: 4,
      marginBottom: 26,
      ariaLabel: rows
        .map((t) => `${t.title}: ${signed(t.delta)} points, ${signed(t.low)} to ${signed(t.high)}`)
        .join(". "),
      x: { domain: [-reach, reach], ticks: 7, label: null, tickFormat: (d) => (d > 0 ? `+${d}` : String(d).replace("-", MINUS)) },
      y: { domain: [rows.length, 0], axis: null },
      marks: [
        Plot.gridX({ strokeOpacity: 0.16, ticks: 7 }),
        Plot.ruleX([0], { strokeOpacity: 0.8 }),
        Plot.link(rows, { x1: "low", x2: "high", y1: (t) => t.index + 0.62, y2: (t) => t.index + 0.62, className: "stroke-own" }),
        Plot.dot(rows, { x: "delta", y: (t) => t.index + 0.62, r: 4.5, className: "fill-own" }),
        Plot.text(rows, { frameAnchor: "left", y: (t) => t.index + 0.26, text: "title", textAnchor: "start", fontSize: 12, fontWeight: 550, stroke: "var(--card)", strokeWidth: 5, className: "fill-label" }),
        Plot.text(rows, { frameAnchor: "right", y: (t) => t.index + 0.26, text: (t) => signed(t.delta), textAnchor: "end", fontSize: 12, fontWeight: 650, stroke: "var(--card)", strokeWidth: 5, className: "fill-label" }),
      ],
    });
  }

  const panels = document.getElementById("panels");
  if (panels) {
    g4eval.want("leaderboard").then((data) => {
      [...panels.querySelectorAll(".plot")].forEach((box, index) =>
        responsive(box, (width) => forest(data.panels[index], width)),
      );
    });
  }
  return { differences, responsive, signed };
})();
