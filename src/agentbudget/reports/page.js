"use strict";
// Sorts a table by the column whose heading is pressed: words from A, numbers from the largest; again the other way.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const status = table.closest("[id]").querySelector("[role=status]");
  const words = new Intl.Collator(undefined, { numeric: true });
  const rank = (row, column) => {
    const cell = row.cells[column];
    return "v" in cell.dataset ? Number(cell.dataset.v) : cell.textContent;
  };
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const first = head.classList.contains("n") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const rows = [...table.tBodies[0].rows].map((row) => [rank(row, column), row]);
    rows.sort(([a], [b]) => sign * (typeof a === "number" ? a - b : words.compare(a, b)));
    table.tBodies[0].append(...rows.map(([, row]) => row));
    heads.forEach((each) => each.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    status.textContent = `Sorted by ${head.textContent}, ${order}.`;
  }));
}
