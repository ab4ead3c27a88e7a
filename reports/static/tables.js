// Sort a table by its headings, filter its rows. Values to sort by stand in data-sort.
"use strict";
(() => {
  const value = (row, column, type) => {
    const cell = row.cells[column];
    const raw = cell.dataset.sort ?? cell.textContent.trim();
    if (type === "text") return raw.toLowerCase();
    return raw === "" ? null : Number(raw);
  };

  function sortBy(table, heading) {
    const column = heading.cellIndex;
    const type = heading.dataset.sortType;
    const first = type === "text" ? "ascending" : "descending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = heading.getAttribute("aria-sort") === first ? other : first;
    for (const th of heading.parentElement.cells) {
      if (th.hasAttribute("aria-sort")) th.setAttribute("aria-sort", "none");
    }
    heading.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => [value(row, column, type), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null); // what isn't there comes last
      return a < b ? -sign : a > b ? sign : 0;
    });
    body.append(...keyed.map(([, row]) => row));
  }

  for (const table of document.querySelectorAll("table[data-sortable]")) {
    for (const button of table.querySelectorAll("button.sort")) {
      button.addEventListener("click", () => sortBy(table, button.closest("th")));
    }
  }

  const controls = [...document.querySelectorAll("[data-filter-table]")];
  function filter(id) {
    const table = document.getElementById(id);
    const own = controls.filter((control) => control.dataset.filterTable === id);
    const wanted = own.filter((c) => c.dataset.filterKey && c.value);
    const words = own.filter((c) => !c.dataset.filterKey).map((c) => c.value.trim().toLowerCase());
    let count = 0;
    for (const row of table.tBodies[0].rows) {
      row.textLower ??= row.textContent.toLowerCase();
      const fits =
        wanted.every((c) => row.dataset[c.dataset.filterKey] === c.value) &&
        words.every((word) => row.textLower.includes(word));
      row.hidden = !fits;
      count += fits;
    }
    const total = table.tBodies[0].rows.length;
    const output = document.querySelector(`[data-count-of="${id}"]`);
    output.textContent = count === total ? `${total} rows` : `${count} of ${total} rows`;
  }
  for (const control of controls) {
    control.addEventListener("input", () => filter(control.dataset.filterTable));
  }
  for (const id of new Set(controls.map((control) => control.dataset.filterTable))) filter(id);
})();
