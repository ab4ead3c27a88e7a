// The run explorer: filter the samples, open one, read its tries. The address after # names what is
// open: #/task/sample/repeat, so that a sample can be linked to.
"use strict";
(() => {
  const { el } = g4eval;
  const PAGE = 100;
  const OUTCOMES = ["correct", "incorrect", "no_answer", "ungraded"];
  const WORDS = { correct: "correct", incorrect: "incorrect", no_answer: "no answer", ungraded: "ungraded" };
  const TRUNCATED = 4;
  const DISAGREE = 8;
  const count = (x) => x.toLocaleString("en");

  const box = document.getElementById("explorer");
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const detail = document.getElementById("detail");
  let index;
  let rows = []; // one a sample
  let shown = []; // those the filters let through, in order
  let page = 0;
  let open = null; // the row on display
  let repeatShown = 0;

  function flatten(task, taskIndex) {
    return task.ids.map((id, i) => {
      const codes = [...task.codes[i]].map((digit) => parseInt(digit, 16));
      const outcomes = codes.map((code) => OUTCOMES[code % 4]);
      const graded = outcomes.filter((o) => o !== "ungraded").length;
      const right = outcomes.filter((o) => o === "correct").length;
      const tokens = task.tokens[i].filter((t) => t !== null);
      return {
        task, taskIndex, i, id, outcomes, graded, right,
        cut: codes.map((code) => (code & TRUNCATED) !== 0),
        disagree: codes.some((code) => (code & DISAGREE) !== 0),
        anyCut: codes.some((code) => (code & TRUNCATED) !== 0),
        share: graded ? right / graded : -1,
        tokens: tokens.length ? tokens.reduce((a, b) => a + b, 0) / tokens.length : null,
        search: id.toLowerCase(),
      };
    });
  }

  // Filters
  const select = (name, label, options, onlyTask = null) =>
    el("label", { "data-task": onlyTask },
      label,
      el("select", { name }, ...options.map(([value, text]) => el("option", { value }, text))));

  function buildFilters() {
    const groups = index.tasks.flatMap((task) =>
      Object.entries(task.groups).filter(([, values]) => values.length > 1).map(([name, values]) =>
        select(`group:${name}`, name[0].toUpperCase() + name.slice(1),
          [["", "all"], ...values.map((value, i) => [String(i), value || "none"])], task.id)));
    form.append(
      el("label", {}, "Find", el("input", { type: "search", name: "find", autocomplete: "off", placeholder: "sample id" })),
      select("task", "Task", [["", "all"], ...index.tasks.map((task) => [task.id, task.title])]),
      select("outcome", "Outcome", [
        ["", "all"], ["all", "always correct"], ["mixed", "sometimes correct"], ["never", "never correct"],
        ["incorrect", "has an incorrect try"], ["no_answer", "has a try without answer"], ["ungraded", "has an ungraded try"]]),
      ...groups,
      select("order", "Order", [["", "as in the task"], ["hard", "hardest first"], ["long", "longest first"]]),
      el("label", { class: "check" }, el("input", { type: "checkbox", name: "cut" }), "Truncated"),
      el("label", { class: "check" }, el("input", { type: "checkbox", name: "disagree" }), "Readings disagree"),
      el("output", { class: "count", "aria-live": "polite" }),
    );
    form.addEventListener("input", () => apply());
    form.addEventListener("submit", (event) => event.preventDefault());
  }

  const TESTS = {
    all: (row) => row.graded > 0 && row.right === row.graded,
    mixed: (row) => row.right > 0 && row.right < row.graded,
    never: (row) => row.graded > 0 && row.right === 0,
  };

  function apply() {
    const started = performance.now();
    const wanted = Object.fromEntries(new FormData(form));
    const only = index.tasks.length === 1 ? index.tasks[0].id : wanted.task;
    for (const label of form.querySelectorAll("label[data-task]")) {
      label.hidden = label.dataset.task !== only; // a group belongs to one task
    }
    const groups = [...form.querySelectorAll("label[data-task]:not([hidden]) select")]
      .filter((s) => s.value !== "")
      .map((s) => [s.name.slice("group:".length), Number(s.value)]);
    const find = wanted.find.trim().toLowerCase();
    const test = TESTS[wanted.outcome] ?? ((row) => row.outcomes.includes(wanted.outcome));
    shown = rows.filter((row) =>
      (!only || row.task.id === only) &&
      (!find || row.search.includes(find)) &&
      (!wanted.outcome || test(row)) &&
      (!wanted.cut || row.anyCut) &&
      (!wanted.disagree || row.disagree) &&
      groups.every(([name, value]) => row.task.of[name]?.[row.i] === value));
    if (wanted.order === "hard") shown.sort((a, b) => a.share - b.share);
    if (wanted.order === "long") shown.sort((a, b) => (b.tokens ?? -1) - (a.tokens ?? -1));
    page = 0;
    renderList();
    form.querySelector("output").textContent =
      shown.length === rows.length ? `${count(rows.length)} samples` : `${count(shown.length)} of ${count(rows.length)} samples`;
    box.dataset.filterMilliseconds = (performance.now() - started).toFixed(1);
  }

  // The list
  const address = (row, repeat = 0) =>
    "#/" + [row.task.id, row.id, repeat].map(encodeURIComponent).join("/");

  const square = (outcome, cut) => el("span", { class: `o ${outcome}${cut ? " cut" : ""}` });

  function strip(row) {
    return el("span", { class: "strip", role: "img",
      "aria-label": `${row.right} of ${row.graded} correct` +
        (row.anyCut ? ", truncated" : "") + (row.graded < row.outcomes.length ? ", some ungraded" : "") },
      ...row.outcomes.map((outcome, r) => square(outcome, row.cut[r])));
  }

  function item(row) {
    const groups = Object.keys(row.task.groups).map((name) => row.task.groups[name][row.task.of[name][row.i]]);
    const note = [index.tasks.length > 1 ? row.task.title : null, ...groups, row.disagree ? "readings disagree" : null];
    return el("li", {}, el("a", { href: address(row), "aria-current": row === open ? "true" : null },
      el("span", { class: "id" }, row.id),
      strip(row),
      el("span", { class: "share" }, row.graded ? `${Math.round(100 * row.share)} %` : "\u2013"),
      el("span", { class: "tokens", title: "mean tokens an answer" }, row.tokens === null ? "" : `${count(Math.round(row.tokens))} tok`),
      el("span", { class: "group" }, note.filter(Boolean).join(" \u00b7 "))));
  }

  function renderList() {
    const pages = Math.max(1, Math.ceil(shown.length / PAGE));
    const step = (by) => () => { page += by; renderList(); list.scrollTop = 0; list.scrollIntoView({ block: "nearest" }); };
    const pager = pages === 1 ? null : el("div", { class: "pager" },
      el("button", { type: "button", disabled: page === 0, onclick: step(-1) }, "Previous"),
      `${count(page * PAGE + 1)}\u2013${count(Math.min(shown.length, (page + 1) * PAGE))} of ${count(shown.length)}`,
      el("button", { type: "button", disabled: page + 1 >= pages, onclick: step(1) }, "Next"));
    const key = el("ul", { class: "key", "aria-label": "Key" },
      ...OUTCOMES.map((outcome) => el("li", {}, square(outcome, false), WORDS[outcome])),
      el("li", {}, square("no_answer", true), "underlined: truncated"));
    list.replaceChildren(key,
      el("ol", { class: "samples" }, ...shown.slice(page * PAGE, (page + 1) * PAGE).map(item)),
      shown.length ? "" : el("p", { class: "hint" }, "No sample fits these filters."), pager ?? "");
  }

  function markOpen() {
    for (const link of list.querySelectorAll(".samples a")) {
      const here = open !== null && link.getAttribute("href") === address(open);
      if (here) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  // One sample
  const fact = (name, value) =>
    value === null || value === undefined || value === "" ? null : el("div", {}, el("dt", {}, name), el("dd", {}, modelText.inline(String(value))));

  function block(title, note, isOpen, ...children) {
    return el("details", { class: "block", open: isOpen },
      el("summary", {}, title, " ", el("span", { class: "sub inline" }, note)), ...children);
  }

  // One row a test; those that were accepted and whose texts are not kept share a row.
  function tests(entry) {
    const isPlain = ([verdict, ...texts]) => verdict === "AC" && texts.every((text) => text === null);
    const plain = entry.tests.filter(isPlain).length;
    const row = ([verdict, input, expected, got]) => el("tr", {},
      el("td", { class: verdict === "AC" ? "AC" : "bad" }, modelText.inline(verdict)),
      ...[input, expected, got].map((text) => el("td", {}, modelText.inline(text ?? "\u2013"))));
    const accepted = el("tr", {}, el("td", { class: "AC" }, "AC"),
      el("td", { colspan: 3 }, `${count(plain)} test${plain === 1 ? "" : "s"} accepted`));
    return el("table", { class: "tests" },
      el("thead", {}, el("tr", {}, ...["Verdict", "Input", "Expected", "Got"].map((h) => el("th", { scope: "col" }, h)))),
      el("tbody", {}, plain ? accepted : "", ...entry.tests.filter((test) => !isPlain(test)).map(row)));
  }

  const gatedNote = () => el("div", { class: "gated" },
    "This task's authors ask that its questions are not published. Prompt, thought, answer and target are left out of this report; " +
    "g4eval report --include-gated writes one with them, for your own eyes.");

  function promptBlock(prompt) {
    const characters = prompt.reduce((sum, turn) => sum + turn.content.length, 0);
    const turns = () => prompt.flatMap((turn) =>
      [prompt.length > 1 ? el("h4", {}, modelText.inline(turn.role)) : "", modelText(turn.content)]);
    const note = `${count(characters)} characters`;
    return characters < 4000
      ? block("Prompt", note, true, ...turns())
      : lazy(block("Prompt", note, false), turns);
  }

  function tryView(row, texts, place) {
    const entry = texts.repeats[place];
    const hidden = row.task.hidden;
    const outcome = row.outcomes[place];
    const length = (text) => `${count(text.length)} characters`;
    const packedPrompt = texts.prompts[entry.prompt];
    const prompt = packedPrompt ? JSON.parse(g4eval.unpack(packedPrompt)) : [];
    const answer = entry.text ? g4eval.unpack(entry.text) : "";
    return [
      el("dl", { class: "meta" },
        fact("Outcome", WORDS[outcome] + (row.cut[place] ? ", truncated" : "")),
        fact("Target", texts.target === null ? null : typeof texts.target === "string" ? texts.target : JSON.stringify(texts.target)),
        fact("Read", hidden || entry.verdict ? null : entry.extraction ?? "nothing"), // code is marked instead
        entry.lenient !== entry.extraction && !entry.verdict ? fact("Second reading", entry.lenient ?? "nothing") : null,
        fact("Verdict", entry.verdict),
        fact("Stopped by", entry.stop === "length" ? "the token budget" : entry.stop === "stop" ? "itself" : entry.stop),
        fact("Tokens", row.task.tokens[row.i][place] === null ? null :
          count(row.task.tokens[row.i][place]) + (entry.reasoningTokens ? `, ${count(entry.reasoningTokens)} of them thought` : "")),
        fact("Prompt", entry.promptTokens ? `${count(entry.promptTokens)} tokens` : null),
        fact("Time", entry.seconds ? `${entry.seconds.toFixed(1)} s` : null)),
      ...(entry.notes ?? []).map((note) => el("p", { class: "hint" }, "The grader says: ", modelText.inline(note), ".")),
      hidden ? gatedNote() : null,
      row.task.gated && !hidden && !prompt.length
        ? el("p", { class: "hint" }, "Prompts and targets of gated tasks are not stored with a run.") : null,
      prompt.length ? promptBlock(prompt) : null,
      entry.reasoning
        ? lazy(block("Reasoning", entry.reasoningTokens ? `${count(entry.reasoningTokens)} tokens` : "", false),
            () => [modelText(g4eval.unpack(entry.reasoning))])
        : null,
      hidden ? null : block("Answer", answer ? length(answer) : "empty: nothing came after the thought", true,
        answer ? modelText(answer, entry.extraction) : ""),
      entry.tests ? block("Tests", `${count(entry.tests.length)} ran`, true, tests(entry)) : null,
    ].filter((node) => node !== null);
  }

  // Long texts are put into the page when they are unfolded.
  function lazy(details, make) {
    details.addEventListener("toggle", () => details.append(...make()), { once: true });
    return details;
  }

  async function show(row, repeat, focus) {
    open = row;
    repeatShown = repeat;
    box.classList.add("open");
    markOpen();
    const number = row.task.shards[row.i];
    if (number < 0) return detail.replaceChildren(el("p", { class: "hint" }, "No completion is stored for this sample yet."));
    let texts;
    try {
      texts = (await g4eval.shard(index.folder, `${row.task.prefix}-${number}`))[row.id];
    } catch (error) {
      return detail.replaceChildren(el("p", { class: "hint" }, `The texts can't be read: ${error.message}.`));
    }
    if (open !== row || repeatShown !== repeat) return undefined; // another one was opened meanwhile
    const place = Math.min(Math.max(repeat, 0), texts.repeats.length - 1);
    const at = shown.indexOf(row);
    const step = (by) => {
      const next = shown[at + by];
      return el("button", { type: "button", class: "button", disabled: at < 0 || !next,
        onclick: () => { location.hash = address(next); } }, by < 0 ? "Previous" : "Next");
    };
    const buttons = texts.repeats.map((entry, r) => el("button", {
      type: "button", "aria-pressed": r === place ? "true" : "false",
      "aria-label": `Try ${entry.repeat + 1}: ${WORDS[row.outcomes[r]]}${row.cut[r] ? ", truncated" : ""}`,
      onclick: () => { location.hash = address(row, r); } }, square(row.outcomes[r], row.cut[r]), String(entry.repeat + 1)));
    const scroll = detail.dataset.sample === row.id ? detail.scrollTop : 0;
    detail.replaceChildren(
      el("header", {},
        el("a", { class: "back", href: "#samples" }, "Back to the list"),
        el("h3", {}, row.id),
        el("span", { class: "sub inline" }, row.task.title),
        el("span", { class: "walk" }, step(-1), step(1))),
      el("div", { class: "repeats", role: "group", "aria-label": "Tries" }, ...buttons),
      ...tryView(row, texts, place));
    detail.dataset.sample = row.id;
    detail.scrollTop = scroll;
    if (list.offsetParent === null) detail.scrollIntoView({ block: "start" }); // narrow: in its place
    if (focus) detail.querySelector('[aria-pressed="true"]')?.focus({ preventScroll: true });
    return undefined;
  }

  // Turn to the list's page that holds a sample; filters that hide it stay as they are.
  function bringIntoList(row) {
    const at = shown.indexOf(row);
    if (at < 0) return;
    if (Math.floor(at / PAGE) !== page) {
      page = Math.floor(at / PAGE);
      renderList();
    }
    const link = list.querySelectorAll(".samples a")[at % PAGE];
    if (!link || list.offsetParent === null) return;
    const [outer, inner] = [list.getBoundingClientRect(), link.getBoundingClientRect()];
    if (inner.top < outer.top || inner.bottom > Math.min(outer.bottom, innerHeight)) {
      list.scrollTop += inner.top - outer.top - list.clientHeight / 3;
    }
  }

  function partsOf(hash) {
    try {
      return hash.startsWith("#/") ? hash.slice(2).split("/").map(decodeURIComponent) : [];
    } catch {
      return []; // no address of ours
    }
  }

  function route(focus) {
    const parts = partsOf(location.hash);
    const row = parts.length >= 2 ? rows.find((r) => r.task.id === parts[0] && r.id === parts[1]) : undefined;
    if (row) {
      bringIntoList(row);
      return show(row, Number(parts[2]) || 0, focus);
    }
    open = null;
    box.classList.remove("open");
    detail.replaceChildren();
    return markOpen();
  }

  // j and k walk through the samples, as readers of mail are used to.
  addEventListener("keydown", (event) => {
    if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
    const by = { j: 1, k: -1 }[event.key];
    if (!by || !shown.length) return;
    const next = shown[open ? shown.indexOf(open) + by : 0];
    if (next) location.hash = address(next);
  });
  addEventListener("hashchange", () => route(true));

  g4eval.want("index").then((data) => {
    index = data;
    rows = index.tasks.flatMap(flatten);
    buildFilters();
    apply();
    // A link from another page opens its sample, and brings it into view.
    Promise.resolve(route(false)).then(() => {
      if (open === null) return;
      (list.offsetParent === null ? detail : box).scrollIntoView({ block: "start" });
      bringIntoList(open);
    });
    box.dataset.ready = "true";
  });
})();
