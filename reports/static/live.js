// A report of a run in progress: ask for data/live.js now and then, show how far it is, and load the
// page again when there is more to see. A reader who has a sample open is asked first.
"use strict";
(() => {
  const SECONDS = 5;
  const box = document.getElementById("live");
  const bar = document.getElementById("live-bar");
  const text = document.getElementById("live-text");
  const button = document.getElementById("live-load");
  let version = null;
  button.addEventListener("click", () => location.reload());

  async function look() {
    g4eval.forget("live");
    try {
      await g4eval.load(`data/live.js?${Date.now()}`);
    } catch {
      return; // being written just now: the next look finds it
    }
    const state = await g4eval.want("live");
    box.hidden = false;
    bar.max = Math.max(1, state.planned);
    bar.value = state.done;
    text.textContent = state.finished
      ? `Finished: ${state.done.toLocaleString("en")} completions.`
      : `Running: ${state.done.toLocaleString("en")} of ${state.planned.toLocaleString("en")} completions. Intervals are of what is there.`;
    const isNew = version !== null && version !== state.version;
    version ??= state.version;
    if (isNew && location.hash.startsWith("#/")) button.hidden = false;
    else if (isNew) location.reload();
  }
  look();
  setInterval(look, 1000 * SECONDS);
})();
