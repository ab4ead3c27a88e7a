// Two runs: the flipped samples, worst losses first, and the chart of differences.
"use strict";
(() => {
  const { el } = g4eval;
  const PAGE = 12;
  const tools = document.getElementById("flip-tools");
  const box = document.getElementById("flip-list");

  g4eval.want("comparison").then((data) => {
    const deltas = document.getElementById("deltas");
    charts.responsive(deltas, (width) => charts.differences(data.tasks, width));

    const flips = data.tasks.flatMap((task) =>
      task.flips.map(([id, baseRight, baseOf, rightNow, of]) => ({
        task, id, base: [baseRight, baseOf], candidate: [rightNow, of],
        change: rightNow / of - baseRight / baseOf,
      })));
    let shownRows = PAGE;

    const options = (pairs) => pairs.map(([value, text]) => el("option", { value }, text));
    const task = el("select", { name: "task" }, ...options([["", "all"], ...data.tasks.map((t) => [t.id, t.title])]));
    const side = el("select", { name: "side" }, ...options([["", "worse and better"], ["worse", "worse"], ["better", "better"]]));
    const output = el("output", { class: "count", "aria-live": "polite" });
    tools.append(el("label", {}, "Task", task), el("label", {}, "Direction", side), output);

    const link = (run, flip, word) =>
      el("a", { href: `${run.file}#/${encodeURIComponent(flip.task.id)}/${encodeURIComponent(flip.id)}/0` }, word);

    function row(flip) {
      const [a, b] = [flip.base, flip.candidate];
      return el("li", { class: "flip-row" },
        el("strong", {}, flip.id),
        el("span", { class: "sub inline" }, flip.task.title),
        el("span", {}, `${a[0]} of ${a[1]} \u2192 ${b[0]} of ${b[1]} correct`),
        el("span", { class: flip.change < 0 ? "loss" : "gain" }, charts.signed(100 * flip.change)),
        el("span", { class: "both" }, link(data.base, flip, "baseline"), link(data.candidate, flip, "candidate")));
    }

    function render() {
      const fitting = flips
        .filter((f) => !task.value || f.task.id === task.value)
        .filter((f) => !side.value || (side.value === "worse") === f.change < 0)
        .sort((x, y) => x.change - y.change);
      if (side.value === "better") fitting.reverse();
      output.textContent = `${fitting.length} sample${fitting.length === 1 ? "" : "s"}`;
      const more = fitting.length > shownRows
        ? el("div", { class: "pager" }, el("button", { type: "button", onclick: () => { shownRows += 200; render(); } },
            `Show more: ${fitting.length - shownRows} left`))
        : "";
      box.replaceChildren(
        el("ol", { class: "flips" }, ...fitting.slice(0, shownRows).map(row)),
        fitting.length ? "" : el("p", { class: "hint" }, "No sample flipped."), more);
    }
    for (const control of [task, side]) control.addEventListener("input", () => { shownRows = PAGE; render(); });
    render();
  });
})();
