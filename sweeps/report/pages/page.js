"use strict";
// Nothing here is needed to read the page: it adds sorting, filters and downloads, all offline.
const NAMES = { ascending: "ascending", descending: "descending" };

function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function slug(text) {
  return text.normalize("NFKD").toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 60) || "table";
}

function addButton(place, label, description, act) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "tool";
  button.textContent = label;
  button.setAttribute("aria-label", `${label}: ${description}`);
  button.addEventListener("click", act);
  place.append(button);
}

// --- tables --------------------------------------------------------------------------------------

// A cell that a spreadsheet would run as a formula is marked as text; numbers stay numbers.
function csvCell(cell) {
  if (cell.dataset.value !== undefined) return cell.dataset.value;
  let text = cell.textContent.trim();
  if (text === "\u2013") return "";
  if (/^[=+\-@\t\r]/.test(text) && Number.isNaN(Number(text))) text = "'" + text;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csvOf(table) {
  return [...table.rows].map((row) => [...row.cells].map(csvCell).join(",")).join("\n") + "\n";
}

function sortBy(table, index) {
  const heads = [...table.tHead.rows[0].cells], head = heads[index];
  const sign = head.getAttribute("aria-sort") === NAMES.ascending ? -1 : 1;
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", sign > 0 ? NAMES.ascending : NAMES.descending);
  const keyed = [...table.tBodies[0].rows].map((row) => {
    const cell = row.cells[index], value = cell.dataset.value;
    return { row, value: value === undefined ? undefined : Number(value), text: cell.textContent };
  });
  // Cells without a value go last, whichever way the numbers run.
  keyed.sort((a, b) => {
    if (a.value !== undefined && b.value !== undefined) return sign * (a.value - b.value);
    if (a.value !== undefined || b.value !== undefined) return a.value === undefined ? 1 : -1;
    return sign * a.text.localeCompare(b.text);
  });
  table.tBodies[0].append(...keyed.map((item) => item.row));
}

function addFilter(table) {
  const rows = [...table.tBodies[0].rows], words = rows.map((row) => row.textContent.toLowerCase());
  const label = document.createElement("label"), input = document.createElement("input");
  const status = document.createElement("span");
  input.type = "search";
  input.placeholder = "words, in any column";
  status.setAttribute("role", "status");
  label.append("Filter ", input);
  const tools = document.createElement("p");
  tools.className = "controls";
  tools.append(label, status);
  table.parentElement.before(tools);
  input.addEventListener("input", () => {
    const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !wanted.every((word) => words[index].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    status.textContent = wanted.length ? `${shown} of ${rows.length} rows` : "";
  });
}

for (const table of document.querySelectorAll("table:not(.ladder)")) {
  const title = table.caption.textContent.trim(), name = slug(title) + ".csv";
  if (table.classList.contains("sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, index) =>
      head.firstElementChild.addEventListener("click", () => sortBy(table, index)));
    if (table.tBodies[0].rows.length > 8) addFilter(table);
  }
  addButton(table.caption, "CSV", `save the table ${title}`, () => save(name, "text/csv", csvOf(table)));
}

// --- figures -------------------------------------------------------------------------------------

// A file has no page to take its colours from: it gets those of the light theme, on white.
function svgOf(svg) {
  const copy = svg.cloneNode(true), box = svg.viewBox.baseVal;
  copy.setAttribute("xmlns", svg.namespaceURI);
  copy.setAttribute("width", box.width);
  copy.setAttribute("height", box.height);
  const ground = document.createElementNS(svg.namespaceURI, "rect");
  ground.setAttribute("width", "100%");
  ground.setAttribute("height", "100%");
  ground.setAttribute("fill", "#ffffff");
  copy.prepend(ground);
  return copy.outerHTML.replace(/var\((--[\w-]+)\)/g, (whole, name) => COLORS[name] ?? whole);
}

for (const figure of document.querySelectorAll("figure[data-name]")) {
  const name = figure.dataset.name, svg = figure.querySelector("svg");
  addButton(figure.querySelector("figcaption"), "SVG", `save the figure ${name}`,
    () => save(name + ".svg", "image/svg+xml", svgOf(svg)));
}

// --- runs ----------------------------------------------------------------------------------------

// The details of a run open where one is, instead of far below; without script the link leads there.
function openRun(number) {
  const run = document.getElementById(`run-${number}`);
  if (!run || !window.HTMLDialogElement) return;
  const dialog = document.createElement("dialog"), home = document.createComment("");
  const end = () => {
    dialog.remove();
    if (home.isConnected) home.replaceWith(run);
  };
  run.before(home);
  dialog.append(run);
  document.body.append(dialog);
  dialog.addEventListener("click", (event) => {
    const link = event.target.closest("a");
    if (event.target !== dialog && !link) return;
    if (link?.classList.contains("close")) event.preventDefault();
    end();
  });
  dialog.addEventListener("close", end);
  dialog.showModal();
}
document.addEventListener("click", (event) => {
  const found = /^#run-(\d+)$/.exec(event.target.closest?.("a")?.getAttribute("href") ?? "");
  if (!found) return;
  event.preventDefault();
  openRun(Number(found[1]));
});

// --- videos --------------------------------------------------------------------------------------

const videos = [...document.querySelectorAll("video")];
// Controls would cover these small pictures: they come with the pointer or the focus.
for (const video of videos) {
  video.controls = false;
  video.tabIndex = 0;
  for (const event of ["pointerenter", "focus"]) video.addEventListener(event, () => { video.controls = true; });
  for (const event of ["pointerleave", "blur"]) video.addEventListener(event, () => { video.controls = video.matches(":focus"); });
}
const pause = () => videos.forEach((video) => video.pause());
document.getElementById("pause")?.addEventListener("click", pause);
document.getElementById("restart")?.addEventListener("click", () => videos.forEach((video) => {
  video.currentTime = 0;
  video.play();
}));
if (matchMedia("(prefers-reduced-motion: reduce)").matches) pause();

// --- print: paper cannot unfold ------------------------------------------------------------------

const folded = () => [...document.querySelectorAll("details:not([open])")];
let opened = [];
addEventListener("beforeprint", () => { opened = folded(); opened.forEach((item) => { item.open = true; }); });
addEventListener("afterprint", () => opened.forEach((item) => { item.open = false; }));
