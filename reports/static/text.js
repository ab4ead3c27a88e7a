// A model's text on the page: text nodes only. Code in fences is set in a fixed width, the extracted
// answer is marked, and characters that can't be seen or turn the reading direction are named.
"use strict";
const modelText = (() => {
  const { el } = g4eval;
  const FIRST = 200_000; // characters shown at first, and at each "show more"
  const NAMED = 500; // hidden characters named one by one in a piece; the rest become SIGN
  const SIGN = "\u00a4"; // in the page's own font: a sign from another font makes long texts slow
  const HIDDEN =
    /([\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u206f\ufeff]|\p{Surrogate})\1*/gu;
  const NAMES = {
    0x0: "NUL", 0x200b: "ZERO WIDTH SPACE", 0x200e: "LEFT-TO-RIGHT MARK",
    0x200f: "RIGHT-TO-LEFT MARK", 0x202a: "LEFT-TO-RIGHT EMBEDDING",
    0x202b: "RIGHT-TO-LEFT EMBEDDING", 0x202c: "POP DIRECTIONAL FORMATTING",
    0x202d: "LEFT-TO-RIGHT OVERRIDE", 0x202e: "RIGHT-TO-LEFT OVERRIDE",
    0x2066: "LEFT-TO-RIGHT ISOLATE", 0x2067: "RIGHT-TO-LEFT ISOLATE",
    0x2068: "FIRST STRONG ISOLATE", 0x2069: "POP DIRECTIONAL ISOLATE",
    0xfeff: "BYTE ORDER MARK",
  };

  function append(parent, text) {
    let start = 0;
    let named = 0;
    for (const match of text.matchAll(HIDDEN)) {
      if (++named > NAMED) break;
      parent.append(text.slice(start, match.index));
      const point = match[1].codePointAt(0);
      const label = `U+${point.toString(16).toUpperCase().padStart(4, "0")}`;
      const times = match[0].length / match[1].length;
      const title = NAMES[point] ?? (point >= 0xd800 && point <= 0xdfff ? "LONE SURROGATE" : "");
      parent.append(
        el("span", { class: "hidden-char", title: title || null }, times > 1 ? `${label}×${times}` : label),
      );
      start = match.index + match[0].length;
    }
    const rest = text.slice(start);
    parent.append(named > NAMED ? rest.replace(HIDDEN, SIGN) : rest);
  }

  // Where the extraction stands: in the last box, else after the last "answer", else its last place.
  function findExtraction(text, extraction) {
    if (!extraction) return null;
    const plain = extraction.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const edge = /^\w/.test(extraction) ? "(?<!\\w)" : "";
    const end = /\w$/.test(extraction) ? "(?!\\w)" : "";
    const exact = `${edge}${plain}${end}`;
    const tail = text.slice(-FIRST);
    for (const before of ["\\\\f?box(?:ed)?\\s*\\{[^{}\\n]{0,20}?", "answer[^\\n]{0,30}?", ""]) {
      const found = [...tail.matchAll(new RegExp(`(${before})(${exact})`, "gi"))].at(-1);
      if (found) {
        const start = text.length - tail.length + found.index + found[1].length;
        return [start, start + found[2].length];
      }
    }
    return null;
  }

  function codeRanges(text) {
    const ranges = [];
    for (const match of text.matchAll(/^```[^\n]*\n([\s\S]*?)(?:^```|$(?![\s\S]))/gm)) {
      const start = match.index + match[0].indexOf("\n") + 1;
      ranges.push([start, start + match[1].length]);
    }
    return ranges;
  }

  // [start, end) of the text as nodes; code and mark may overlap.
  function piece(box, text, start, end, codes, mark) {
    const cuts = new Set([start, end]);
    for (const [a, b] of [...codes, ...(mark ? [mark] : [])]) {
      for (const cut of [a, b]) if (cut > start && cut < end) cuts.add(cut);
    }
    const places = [...cuts].sort((a, b) => a - b);
    for (let i = 0; i + 1 < places.length; i++) {
      const [from, to] = [places[i], places[i + 1]];
      let parent = box;
      if (codes.some(([a, b]) => from >= a && from < b)) {
        parent = parent.appendChild(el("code"));
      }
      if (mark && from >= mark[0] && from < mark[1]) {
        parent = parent.appendChild(el("mark", { title: "the answer that was read" }));
      }
      append(parent, text.slice(from, to));
    }
  }

  function block(text, extraction = null) {
    const box = el("div", { class: "model-text", dir: "ltr" });
    const codes = codeRanges(text);
    const mark = findExtraction(text, extraction);
    let shown = 0;
    const more = el("button", { type: "button", class: "button", onclick: () => show() });
    function show() {
      more.remove();
      const end = Math.min(text.length, shown + FIRST);
      piece(box, text, shown, end, codes, mark);
      shown = end;
      if (shown < text.length) {
        more.textContent = `Show more: ${(text.length - shown).toLocaleString("en")} characters left`;
        box.append(more);
      }
    }
    show();
    return box;
  }

  // A short text inside a line or a cell.
  function inline(text) {
    const box = el("span", { class: "inline-text", dir: "ltr" });
    append(box, text);
    return box;
  }

  return Object.assign(block, { inline });
})();
