"use strict";
// The explorer: the same runs in linked figures. What is chosen in one stands out in all others.
const DATA = JSON.parse(document.getElementById("explorer-data").textContent);
const BOX = document.querySelector(".explorer"), COLUMNS = new Map(DATA.columns.map((c) => [c.key, c]));
const CURVES = {
  loss: ["validation loss", "checks"], train_loss: ["training loss", "training"], lr: ["learning rate", "training"],
  grad_norm: ["gradient norm", "training"], tokens_per_second: ["throughput (tokens/s)", "training"],
};
const PLACES = { flops: "compute C (FLOPs)", tokens: "tokens D", step: "step" };
const state = { focus: -1, brush: null, words: "", hidden: new Set(), zoom: false, join: true, views: [] };

// --- numbers as the page writes them -------------------------------------------------------------

const SUPER = "⁰¹²³⁴⁵⁶⁷⁸⁹";
function power(value) {
  const exponent = Math.floor(Math.log10(value) + 1e-9), mantissa = Number((value / 10 ** exponent).toFixed(2));
  const raised = "10" + String(exponent).replace(/./g, (d) => (d === "-" ? "⁻" : SUPER[d]));
  return mantissa === 1 ? raised : `${mantissa}×${raised}`;
}
function shown(value, key = "") {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (/flops|budget/.test(key) && value > 0) return power(value);
  for (const [size, unit] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= 0.9995 * size) return `${Number((value / size).toPrecision(3))} ${unit}`;
  }
  return value && Math.abs(value) < 1e-3 ? value.toExponential(2) : String(Number(value.toPrecision(4)));
}
const FUNCTIONS = { showFlops: (value) => shown(value, "flops"), showNumber: (value) => shown(value) };

// --- runs ----------------------------------------------------------------------------------------

const value = (key, id) => COLUMNS.get(key)?.values[id] ?? null;
const TEXT = DATA.runs.map((name, id) => [name, ...DATA.columns.map((c) => c.values[id])].join(" ").toLowerCase());
const dark = matchMedia("(prefers-color-scheme: dark)");

// Categories of the column that colours, each with its colour; all runs have one where there is none.
function palette() {
  const key = pick("colour").value, column = COLUMNS.get(key);
  if (!column) return { key: "", kinds: [], of: () => "var(--accent)" };
  const kinds = [...new Set(column.values.filter((v) => v !== null))];
  kinds.sort((a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b))));
  // Groups of runs that are all left out are grey, so that the others are coloured as in the page's own figures.
  const used = kinds.filter((kind) => column.values.some((v, id) => v === kind && !DATA.out[id]));
  const colours = DATA.palettes[used.length][dark.matches ? "dark" : "light"];
  return { key, kinds, of: (kind) => colours[used.indexOf(kind)] ?? "var(--muted)" };
}

function isShown(id) {
  const words = state.words.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.every((word) => TEXT[id].includes(word))) return false;
  if (state.hidden.has(value(pick("colour").value, id))) return false;
  return !state.brush || Object.entries(state.brush).every(([key, range]) => {
    const at = value(key, id);
    return typeof at === "number" ? at >= Math.min(...range) && at <= Math.max(...range) : range.includes(at);
  });
}

// --- figures -------------------------------------------------------------------------------------

const CONFIG = {
  background: null, font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: {
    labelColor: "var(--muted)", titleColor: "var(--ink)", gridColor: "var(--grid)", domainColor: "var(--muted)",
    tickColor: "var(--muted)", titleFontWeight: "normal", labelFontSize: 12, titleFontSize: 13, labelOverlap: true,
  },
};
const DIM = (full, faint) => ({
  condition: { test: "shown === null || shown[datum.id] === 1", value: full }, value: faint,
});
const SIGNALS = [{ name: "focus", value: -1 }, { name: "shown", value: null }];

// Powers of ten and what lies between them, as many as can be read; zoomed axes choose their own.
function ticks(log, values, isFlops) {
  const known = values.filter((v) => v > 0), found = [];
  const [low, high] = [known.reduce((a, b) => Math.min(a, b), Infinity), known.reduce((a, b) => Math.max(a, b), 0)];
  if (!log || state.zoom || !known.length) return { tickCount: 6 };
  const parts = high > (isFlops ? 30 : 300) * low ? [1] : high > 6 * low ? [1, 2, 5] : [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9];
  for (let e = Math.floor(Math.log10(low)) - 1; e <= Math.log10(high) + 1; e += 1) parts.forEach((part) => found.push(part * 10 ** e));
  return { values: found };
}

function axis(field, key, label, log, values) {
  if (COLUMNS.get(key)?.kind === "word") return { field, type: "nominal", title: label, axis: { labelAngle: 0 } };
  const format = /flops|budget/.test(key) ? "showFlops" : "showNumber";
  // Two studies share their scales, so that what is lower is lower.
  const domain = DATA.sides && values.length ? { domain: [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))] } : {};
  return {
    field, type: "quantitative", title: label, axis: { labelExpr: `${format}(datum.value)`, ...ticks(log, values, format === "showFlops") },
    scale: log ? { type: "log", nice: false, padding: 12, ...domain } : { type: "linear", zero: false, nice: false, padding: 12, ...domain },
  };
}

function tip(id, keys) {
  const row = { run: DATA.runs[id] };
  for (const key of new Set(keys)) if (COLUMNS.has(key)) row[key] = shown(value(key, id), key);
  return row;
}

// Fields are named by their role: a column's name may hold dots, which would be read as paths.
function scatter(number) {
  const [x, y] = [pick("x", number).value, pick("y", number).value], colours = palette();
  const logs = [pick("xlog", number).checked, pick("ylog", number).checked];
  const keys = [x, y, "params", "tokens", "flops", "loss", "seed", colours.key].filter(Boolean);
  const fit = (v, log) => v !== null && (!log || !(typeof v === "number") || v > 0);
  const rows = [], all = { x: [], y: [] };
  DATA.runs.forEach((name, id) => {
    const at = { x: value(x, id), y: value(y, id) };
    if (!fit(at.x, logs[0]) || !fit(at.y, logs[1])) return;
    all.x.push(at.x); all.y.push(at.y);
    if (DATA.sides && DATA.side[id] !== number) return;
    const kind = value(colours.key, id);
    rows.push({ id, ...at, out: DATA.out[id], kind: String(kind), budget: value("budget", id), colour: colours.of(kind),
      ...Object.fromEntries(Object.entries(tip(id, keys)).map(([k, v], i) => [`t${i}`, v])) });
  });
  const titles = Object.keys(tip(0, keys)).map((k, i) => ({ field: `t${i}`, title: COLUMNS.get(k)?.label ?? k }));
  const place = {
    x: axis("x", x, COLUMNS.get(x).label, logs[0], all.x),
    y: axis("y", y, COLUMNS.get(y).label, logs[1], all.y),
  };
  const colour = { field: "colour", type: "nominal", scale: null };
  const params = [state.zoom ? { name: "zoom", select: "interval", bind: "scales" }
    : { name: "brush", select: { type: "interval", mark: { fill: "var(--ink)", fillOpacity: 0.08, stroke: "var(--muted)" } } }];
  const layer = [];
  if (state.join && colours.key && COLUMNS.get(x).kind === "number") {
    layer.push({
      data: { values: rows.filter((row) => !row.out) },
      transform: [{ aggregate: [{ op: "mean", field: "y", as: "y" }], groupby: ["x", "kind", "colour", "budget"] }],
      mark: { type: "line", strokeWidth: 1.4, opacity: 0.55, interpolate: "monotone" },
      encoding: { ...place, color: colour, detail: [{ field: "kind" }, { field: "budget" }] },
    });
  }
  for (const [name, mark] of [["frontier", { type: "line", stroke: "var(--ink)", strokeWidth: 2 }],
    ["minima", { type: "point", shape: "triangle-down", size: 90, filled: true, fill: "var(--ink)" }]]) {
    const points = DATA[name].filter((p) => (p.side ?? number) === number && fit(p[x] ?? null, logs[0]) && fit(p[y] ?? null, logs[1]))
      .map((p) => ({ x: p[x], y: p[y], what: name === "minima" ? "minimum of an isoFLOP curve" : "fitted frontier" }));
    if (points.length && x !== y) {
      layer.push({ data: { values: points }, mark: { ...mark, clip: true },
        encoding: { ...place, tooltip: { field: "what", title: "law" }, order: { field: "x" } } });
    }
  }
  layer.push({
    data: { values: rows }, params,
    mark: { type: "point", filled: true, strokeWidth: 1.6, cursor: "pointer", clip: true },
    encoding: {
      ...place, fill: { condition: { test: "datum.out === 1", value: "var(--paper)" }, ...colour },
      stroke: colour, tooltip: titles, opacity: DIM(1, 0.1),
      size: { condition: { test: "focus === datum.id", value: 260 }, value: 70 },
    },
  });
  return { width: "container", height: 320, params: SIGNALS, layer, config: CONFIG };
}

function curves() {
  const x = pick("x", "c").value, y = pick("y", "c").value, [label, part] = CURVES[y], colours = palette();
  const logs = [pick("xlog", "c").checked, pick("ylog", "c").checked];
  const rows = [];
  DATA.curves.forEach((curve, id) => {
    const across = curve[part][x] ?? [], up = curve[part][y] ?? [], kind = value(colours.key, id);
    const keys = ["params", "flops", "loss", colours.key].filter(Boolean), [run, ...rest] = Object.values(tip(id, keys));
    across.forEach((at, i) => {
      if (at === null || up[i] === null || (logs[0] && at <= 0) || (logs[1] && up[i] <= 0)) return;
      rows.push({ id, x: at, y: up[i], colour: colours.of(kind), run, rest: rest.join(", ") });
    });
  });
  return {
    width: "container", height: 340, params: [...SIGNALS, ...(state.zoom ? [{ name: "zoom", select: "interval", bind: "scales" }] : [])],
    data: { values: rows },
    mark: { type: "line", cursor: "pointer", clip: true, point: rows.length < 500 ? { size: 24, filled: true } : false },
    encoding: {
      x: axis("x", x, PLACES[x], logs[0], rows.map((row) => row.x)), y: axis("y", y, label, logs[1], rows.map((row) => row.y)),
      stroke: { field: "colour", type: "nominal", scale: null }, detail: { field: "id" },
      opacity: DIM(0.75, 0.06), tooltip: [{ field: "run", title: "run" }, { field: "rest", title: "its values" }],
      strokeWidth: { condition: { test: "focus === datum.id", value: 4 }, value: 1.3 },
    },
    config: CONFIG,
  };
}

// --- state to figures ----------------------------------------------------------------------------

const own = (name, number) => BOX.querySelector(`[data-pick="${name}${number}"]`);
// Two studies side by side share one choice of axes.
const pick = (name, number = "") => own(name, number) ?? own(name, "0");
const FIGURES = [["0", () => scatter(0)], ["1", () => scatter(1)], ["c", curves]];

async function draw(only = null) {
  for (const [index, [number, spec]] of FIGURES.entries()) {
    const place = BOX.querySelector(`[data-figure="${number}"]`);
    if (!place || (only !== null && only !== number)) continue;
    state.views[index]?.finalize();
    // ast: the interpreter of expressions, since the page's policy allows no code made of text.
    const made = await vegaEmbed(place, spec(), {
      mode: "vega-lite", renderer: "svg", actions: false, ast: true, tooltip: { theme: "page" }, expressionFunctions: FUNCTIONS,
    });
    const view = made.view;
    state.views[index] = view;
    const idOf = (item) => { const id = item?.datum?.id ?? item?.items?.[0]?.datum?.id; return Number.isInteger(id) ? id : -1; };
    view.addEventListener("pointerover", (event, item) => focus(idOf(item)));
    view.addEventListener("pointerout", () => focus(-1));
    view.addEventListener("click", (event, item) => { if (idOf(item) >= 0) openRun(idOf(item)); });
    if (number !== "c" && !state.zoom) {
      view.addSignalListener("brush", (name, found) => {
        const axes = { x: pick("x", number).value, y: pick("y", number).value };
        const entries = Object.entries(found ?? {}).map(([field, range]) => [axes[field], range]);
        state.brush = entries.length ? Object.fromEntries(entries) : null;
        mark();
      });
    }
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", describe(number));
  }
  mark();
}

function describe(number) {
  const names = number === "c" ? [PLACES[pick("x", "c").value], CURVES[pick("y", "c").value][0]]
    : ["x", "y"].map((letter) => COLUMNS.get(pick(letter, number).value).label);
  return `${names[1]} against ${names[0]}`;
}

// Tell every figure, the table and the count which runs stand out.
function mark() {
  const flags = DATA.runs.map((name, id) => (isShown(id) ? 1 : 0)), count = flags.reduce((a, b) => a + b, 0);
  const all = count === flags.length;
  for (const view of state.views) view?.signal("shown", all ? null : flags).runAsync();
  document.querySelectorAll("tr[data-run]").forEach((row) =>
    row.classList.toggle("faint", !all && !flags[Number(row.dataset.run)]));
  BOX.querySelector(".count").textContent = all ? `${count} runs` : `${count} of ${flags.length} runs stand out`;
}

function focus(id) {
  if (id === state.focus) return;
  state.focus = id;
  for (const view of state.views) view?.signal("focus", id).runAsync();
  document.querySelectorAll("tr[data-run]").forEach((row) => row.classList.toggle("focus", Number(row.dataset.run) === id));
}

// One legend for all figures: its entries are switches.
function legend() {
  const colours = palette(), place = BOX.querySelector(".legend");
  state.hidden.clear();
  place.replaceChildren(...colours.kinds.map((kind) => {
    const button = document.createElement("button"), swatch = document.createElement("span");
    button.type = "button";
    button.setAttribute("aria-pressed", "true");
    swatch.style.background = colours.of(kind);
    button.append(swatch, shown(kind, colours.key));
    button.addEventListener("click", () => {
      const off = !state.hidden.delete(kind);
      if (off) state.hidden.add(kind);
      button.setAttribute("aria-pressed", String(!off));
      mark();
    });
    return button;
  }));
}

function options(select, entries, chosen) {
  select.replaceChildren(...entries.map(([key, label]) => new Option(label, key, false, key === chosen)));
}

function setLog(letter, number) {
  const column = COLUMNS.get(pick(letter, number).value), box = pick(`${letter}log`, number);
  box.disabled = column?.kind === "word";
  box.checked = number === "c" || Boolean(column?.log);
}

function begin() {
  const axes = DATA.columns.map((c) => [c.key, c.label]);
  const up = DATA.columns.filter((c) => c.kind === "number").map((c) => [c.key, c.label]);
  const redrawn = (number) => () => { state.brush = null; draw(DATA.sides ? null : number); };
  for (const number of ["0", "1"]) {
    if (!own("x", number)) continue;
    const [x, y] = DATA.start.figures[number];
    options(pick("x", number), axes, x);
    options(pick("y", number), up, y);
    for (const letter of ["x", "y"]) {
      setLog(letter, number);
      pick(letter, number).addEventListener("change", () => { setLog(letter, number); redrawn(number)(); });
      pick(`${letter}log`, number).addEventListener("change", redrawn(number));
    }
  }
  const known = Object.keys(CURVES).filter((key) => DATA.curves.some((c) => (c[CURVES[key][1]][key] ?? []).length > 1));
  if (known.length) {
    options(pick("x", "c"), Object.entries(PLACES), "flops");
    options(pick("y", "c"), known.map((key) => [key, CURVES[key][0]]), known[0]);
    for (const letter of ["x", "y"]) {
      setLog(letter, "c");
      for (const name of [letter, `${letter}log`]) pick(name, "c").addEventListener("change", () => draw("c"));
    }
  } else {
    BOX.querySelector('[data-figure="c"]').closest("figure").remove();
    FIGURES.pop();
  }
  const coloured = DATA.columns.filter((c) => c.colours).map((c) => [c.key, c.label]);
  options(pick("colour"), [["", "nothing"], ...coloured], DATA.start.colour);
  pick("colour").addEventListener("change", () => { legend(); draw(); });
  pick("join").addEventListener("change", (event) => { state.join = event.target.checked; draw(); });
  pick("zoom").addEventListener("change", (event) => { state.zoom = event.target.checked; state.brush = null; draw(); });
  pick("words").addEventListener("input", (event) => { state.words = event.target.value; mark(); });
  BOX.querySelector(".clear").addEventListener("click", () => {
    state.words = pick("words").value = "";
    state.brush = null;
    legend();
    draw();
  });
  document.querySelectorAll("tr[data-run]").forEach((row) => {
    row.addEventListener("pointerenter", () => focus(Number(row.dataset.run)));
    row.addEventListener("pointerleave", () => focus(-1));
  });
  dark.addEventListener("change", () => { legend(); draw(); });
  legend();
  draw();
}
// The library is packed; it runs as a script of this page, before anything is drawn.
async function unpack() {
  const packed = Uint8Array.from(atob(document.getElementById("explorer-library").textContent), (c) => c.charCodeAt(0));
  const stream = new Response(packed).body.pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
  script.remove();
}
if (window.DecompressionStream) {
  BOX.hidden = false;
  unpack().then(begin);
}
