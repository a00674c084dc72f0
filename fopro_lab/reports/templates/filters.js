"use strict";
const form = document.querySelector("form.filters");
const rows = [...document.querySelectorAll("tr[data-node]")];
const parts = [...document.querySelectorAll("[data-node]:not(tr)")];
const folds = [...document.querySelectorAll("details.more")].map((fold) => [fold, fold.open]);

function filter() {
  const asked = [...new FormData(form)].filter(([, value]) => value);
  const words = form.elements.words.value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = asked.filter(([name]) => name !== "words");
  const shown = new Set();
  for (const row of rows) {
    const own = JSON.parse(row.dataset.words);
    const fits = chosen.every(([name, value]) => own[name] === value);
    if (fits) shown.add(row.dataset.node);
    row.hidden = !fits || !words.every((word) => told(row).includes(word));
  }
  // A figure is found by its own caption or by its notebook's row.
  const found = new Set(rows.filter((row) => !row.hidden).map((row) => row.dataset.node));
  for (const part of parts) {
    const node = part.dataset.node;
    part.hidden = !(found.has(node) || (words.length && shown.has(node) && part.matches("figure")
      && words.every((word) => part.textContent.toLowerCase().includes(word))));
  }
  for (const [fold, open] of folds) {
    const left = fold.querySelectorAll("[data-node]:not([hidden])").length;
    fold.hidden = !left;
    fold.open = asked.length ? fold.open : open;
    const count = fold.querySelector("summary b");
    if (count) count.textContent = left;
  }
  form.querySelector("output").textContent = `${found.size} of ${rows.length} notebooks`;
}

function told(row) {
  return `${row.textContent} ${row.dataset.words}`.toLowerCase();
}

form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filter));
filter();
