"use strict";
const at = (id) => document.getElementById(id);
const FIELDS = ["key", "target", "label", "relation", "mix", "only", "sort"];
const AT_ONCE = 60; // cards that are made before more are scrolled to
const pictures = JSON.parse(at("pictures").textContent);
let data; // columns of samples and of views, see gallery.py
let owner; // of each view, the number of its sample
let first; // of each sample, the number of its first view
let shown = []; // numbers of the views that fit the filters, sorted
const selected = new Set();
let opened = null; // the number of the sample in the dialog

/** Return a new element with text; whatever the text is, it stays text. */
function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

async function unpacked(id) {
  const bytes = Uint8Array.from(atob(at(id).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}

const named = (number) => {
  const name = data.classes[number] ?? "";
  return name === "" || name === String(number) ? String(number) : `${number} ${name}`;
};
const briefly = (number) => named(number).split(",", 1)[0]; // ImageNet's names list synonyms
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const marked = (i) => `${data.marks[data.relation[i]]} ${briefly(data.label[i])}`;

/** Return how a view is mixed; a lambda is never rounded to 0 or 1 (relations.py: lambda_text). */
function mixed(i) {
  if (data.lam[i] === 1) return "unmixed";
  const fromHalf = Math.abs(data.lam[i] - 0.5);
  return `${data.kinds[data.mix[i]]}, lambda ${data.lam[i].toFixed(fromHalf > 0.4995 && fromHalf < 0.5 ? 5 : 3)}`;
}

/** Return one view's part of its sample's strip of pictures, or a place for none. */
function tile(i) {
  const sample = owner[i], drawn = pictures[sample], made = element("span", drawn ? "tile" : "tile none");
  if (!drawn) return made;
  const n = data.views[sample], number = i - first[sample];
  made.style.backgroundImage = `url(${drawn.strip})`;
  made.style.backgroundSize = `${n * 100}% 100%`;
  made.style.backgroundPosition = `${n > 1 ? (100 * number) / (n - 1) : 0}% 0`;
  return made;
}

function card(i) {
  const sample = owner[i], made = element("div", "card"), select = element("label", "select");
  const box = element("input"), open = element("button", "view");
  box.type = "checkbox";
  box.dataset.select = sample;
  box.checked = selected.has(sample);
  box.tabIndex = -1; // the key x does the same
  select.title = data.shards[data.shard[sample]];
  select.append(box, element("span", "", data.key[sample]));
  open.type = "button";
  open.dataset.sample = sample;
  open.dataset.view = i;
  open.append(tile(i), element("span", `caption ${data.relations[data.relation[i]]}`, marked(i)));
  if (data.label[i] !== data.target[sample]) open.append(element("span", "caption", `target ${briefly(data.target[sample])}`));
  open.append(element("span", "caption soft", `view ${data.view[i]}: ${mixed(i)}`));
  open.setAttribute(
    "aria-label",
    `${data.key[sample]}, view ${data.view[i]}: target ${named(data.target[sample])}, label ${named(data.label[i])}, ${mixed(i)}`,
  );
  made.append(select, open);
  return made;
}

function fits() {
  const wanted = Object.fromEntries(FIELDS.map((id) => [id, at(id).value]));
  const key = wanted.key.toLowerCase(), relation = data.relations.indexOf(wanted.relation), mix = data.kinds.indexOf(wanted.mix);
  const samples = data.key.map(
    (name, sample) =>
      (!key || name.toLowerCase().includes(key)) &&
      (!wanted.target || data.target[sample] === Number(wanted.target)) &&
      (wanted.only !== "pictures" || sample in pictures) &&
      (wanted.only !== "selected" || selected.has(sample)),
  );
  return (i) =>
    samples[owner[i]] &&
    (!wanted.label || data.label[i] === Number(wanted.label)) &&
    (!wanted.relation || (relation < 0 ? data.relation[i] !== 0 : data.relation[i] === relation)) &&
    (mix < 0 || data.mix[i] === mix);
}

/** Return the order of two views; those that it leaves alike stay in the store's order. */
const SORTS = {
  "": (a, b) => data.agreement[owner[a]] - data.agreement[owner[b]] || data.certainty[owner[b]] - data.certainty[owner[a]] || a - b,
  highest: (a, b) => data.agreement[owner[b]] - data.agreement[owner[a]],
  key: (a, b) => (data.key[owner[a]] < data.key[owner[b]] ? -1 : Number(data.key[owner[a]] > data.key[owner[b]])),
  target: (a, b) => data.target[owner[a]] - data.target[owner[b]],
  label: (a, b) => data.label[a] - data.label[b],
  lambda: (a, b) => data.lam[a] - data.lam[b],
};

function show() {
  const fit = fits(), sort = SORTS[at("sort").value];
  shown = [];
  for (let i = 0; i < owner.length; i++) if (fit(i)) shown.push(i);
  if (sort) shown.sort(sort);
  at("gallery").replaceChildren();
  more();
  const samples = new Set(shown.map((i) => owner[i])).size, every = data.key.length;
  at("count").textContent =
    `${shown.length.toLocaleString("en")} of ${owner.length.toLocaleString("en")} views, ` +
    `${samples.toLocaleString("en")} of ${every.toLocaleString("en")} samples on this page`;
}

/** Add cards to the gallery, up to that of the place `until` among those shown. */
function more(until = at("gallery").children.length + AT_ONCE - 1) {
  const from = at("gallery").children.length;
  at("gallery").append(...shown.slice(from, until + 1).map(card));
  at("more").hidden = at("gallery").children.length >= shown.length;
}

/** Return numbers as runs, `0-4,7`; and back, those that there are samples of. */
function runs(numbers) {
  const parts = [];
  for (const number of [...numbers].sort((a, b) => a - b)) {
    const last = parts.at(-1);
    if (last && last[1] === number - 1) last[1] = number;
    else parts.push([number, number]);
  }
  return parts.map(([from, to]) => (from === to ? from : `${from}-${to}`)).join(",");
}
function* numbers(text) {
  for (const [, from, to] of text.matchAll(/(\d+)(?:-(\d+))?/g)) {
    for (let n = Number(from); n <= Math.min(Number(to ?? from), data.key.length - 1); n++) yield n;
  }
}

function remember() {
  const state = new URLSearchParams();
  for (const id of FIELDS) if (at(id).value) state.set(id, at(id).value);
  if (opened !== null) state.set("open", opened);
  if (selected.size) state.set("selected", runs(selected));
  history.replaceState(null, "", `#${state}`);
}

function recall() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const id of FIELDS) {
    at(id).value = state.get(id) ?? "";
    if (at(id).selectedIndex === -1) at(id).value = "";
  }
  selected.clear();
  for (const sample of numbers(state.get("selected") ?? "")) selected.add(sample);
  tellSelected();
  show();
  const [sample] = numbers(state.get("open") ?? "");
  if (sample === undefined) at("dialog").close();
  else open(sample);
}

function changed() {
  show();
  remember();
}

const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
function csv() {
  const rows = [...selected].sort((a, b) => a - b).map((sample) => `${quoted(data.shards[data.shard[sample]])},${quoted(data.key[sample])}\n`);
  return `shard,key\n${rows.join("")}`;
}

function tellSelected() {
  at("selected").textContent = `${selected.size.toLocaleString("en")} sample${selected.size === 1 ? "" : "s"} selected`;
  for (const box of document.querySelectorAll("[data-select]")) box.checked = selected.has(Number(box.dataset.select));
  at("dialog-select").checked = opened !== null && selected.has(opened);
  at("csv").value = selected.size ? csv() : "";
  for (const id of ["clear", "copy", "download"]) at(id).disabled = !selected.size;
}

function select(samples, on) {
  for (const sample of samples) on ? selected.add(sample) : selected.delete(sample);
  tellSelected();
  if (at("only").value === "selected") show();
  remember();
}

/** Return a word as a POSIX shell takes it. */
const shell = (word) => (/^[\w./{}-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

function open(sample, chosen = -1) {
  opened = sample;
  const drawn = pictures[sample], shard = data.shards[data.shard[sample]];
  at("dialog-title").textContent = data.key[sample];
  at("dialog-target").textContent =
    `${shard}; target ${named(data.target[sample])}, which is the label of ${percent(data.agreement[sample])} of its views; ` +
    `${named(data.likeliest[sample])} is that of ${percent(data.certainty[sample])}`;
  at("dialog-original").hidden = !drawn;
  at("dialog-original").src = drawn ? drawn.original : "data:,";
  const command = ["distillcache", "inspect", "show", data.store, `${shard}/${data.key[sample]}`, "--shards", data.pattern];
  at("dialog-command").textContent = drawn ? "" : `No pictures of it are on this page; they are drawn by: ${command.map(shell).join(" ")}`;
  at("dialog-views").className = drawn ? "" : "bare";
  at("dialog-views").replaceChildren(
    ...Array.from({ length: data.views[sample] }, (_, number) => {
      const i = first[sample] + number, row = element("li", i === chosen ? "chosen" : ""), words = element("div");
      const partner = data.partner[i] < 0 ? "" : ` with ${briefly(data.partner[i])}`;
      words.append(
        element("p", data.relations[data.relation[i]], marked(i)),
        element("p", "soft", `view ${data.view[i]}: ${mixed(i)}${partner}`),
      );
      if (drawn) words.append(element("p", "", drawn.plans[number]), element("p", "soft", drawn.likely[number]));
      row.append(tile(i), words);
      return row;
    }),
  );
  tellSelected();
  remember();
  if (!at("dialog").open) at("dialog").showModal();
  at("dialog").scrollTop = 0;
}

/** Open the sample that is `step` samples away among those shown. */
function turn(step) {
  const samples = [...new Set(shown.map((i) => owner[i]))];
  const next = samples[samples.indexOf(opened) + step];
  if (next !== undefined) open(next);
}

/** Move the focus by so many cards, or by a row of them. */
function move(key, from) {
  const cards = [...at("gallery").children];
  const columns = cards.findIndex((one) => one.offsetTop > cards[0].offsetTop);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[key];
  const to = cards.indexOf(from) + step;
  if (to >= cards.length) more();
  at("gallery").children[to]?.querySelector(".view").focus();
}

async function copy() {
  at("csv").closest("details").open = true;
  at("csv").select();
  let copied = true;
  try {
    await navigator.clipboard.writeText(csv());
  } catch {
    copied = document.execCommand("copy");
  }
  at("selected").textContent = copied ? `copied: ${selected.size}` : "copy the text below";
}

function download() {
  const link = element("a");
  link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
  link.download = "selected.csv";
  link.click();
  URL.revokeObjectURL(link.href);
}

/** Show the views of a class, or of one taken for another. */
function filterBy({ target = "", label = "" }) {
  at("filters").reset();
  at("target").value = target;
  at("label").value = label;
  changed();
  at("views-title").scrollIntoView();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=checkbox]), select, textarea");
  const focused = event.target.closest(".card");
  if (at("dialog").open) {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") turn(event.key === "ArrowLeft" ? -1 : 1);
    else if (event.key === "x") select([opened], !selected.has(opened));
    else return;
  } else if (event.key === "/" && !typing) at("key").focus();
  else if (focused && event.key.startsWith("Arrow")) move(event.key, focused);
  else if (focused && event.key === "x") {
    const sample = Number(focused.querySelector(".view").dataset.sample);
    select([sample], !selected.has(sample));
  } else return;
  event.preventDefault();
}

function onClick(event) {
  const one = event.target.closest("[data-sample], [data-target]");
  if (!one) return;
  if (one.dataset.sample) open(Number(one.dataset.sample), Number(one.dataset.view ?? -1));
  else filterBy(one.dataset);
}

/** Say the title of what is pointed at in a chart below it. */
function say(event) {
  const hit = event.target.closest(".hit");
  const into = event.target.closest("figure")?.querySelector("output");
  if (into) into.textContent = hit ? hit.querySelector("title").textContent : "\u00a0";
}

function options(id, numbers) {
  const times = new Map();
  for (const number of numbers) times.set(number, (times.get(number) ?? 0) + 1);
  const sorted = [...times.keys()].sort((a, b) => a - b);
  at(id).append(
    ...sorted.map((number) => {
      const option = element("option", "", named(number));
      option.value = number;
      return option;
    }),
  );
}

async function start() {
  data = await unpacked("data");
  first = [];
  owner = new Uint32Array(data.view.length);
  let next = 0;
  data.views.forEach((n, sample) => {
    first.push(next);
    owner.fill(sample, next, next + n);
    next += n;
  });
  options("target", data.target);
  options("label", data.label);
  const some = Object.values(pictures)[0];
  document.body.classList.toggle("no-pictures", !some);
  document.body.classList.toggle("small", Boolean(some) && some.tile < 100);
  at("filters").addEventListener("input", changed);
  at("filters").addEventListener("reset", () => setTimeout(changed));
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("click", onClick);
  document.addEventListener("keydown", onKey);
  document.addEventListener("pointerover", say);
  document.addEventListener("change", (event) => {
    if (event.target.dataset.select) select([Number(event.target.dataset.select)], event.target.checked);
  });
  at("dialog-select").addEventListener("change", (event) => select([opened], event.target.checked));
  at("select-shown").addEventListener("click", () => select(new Set(shown.map((i) => owner[i])), true));
  at("clear").addEventListener("click", () => select([...selected], false));
  at("copy").addEventListener("click", copy);
  at("download").addEventListener("click", download);
  at("previous").addEventListener("click", () => turn(-1));
  at("next").addEventListener("click", () => turn(1));
  at("close").addEventListener("click", () => at("dialog").close());
  at("dialog").addEventListener("click", (event) => event.target === at("dialog") && at("dialog").close());
  at("dialog").addEventListener("close", () => {
    opened = null;
    remember();
  });
  at("more").addEventListener("click", () => more());
  new IntersectionObserver(([seen]) => seen.isIntersecting && !at("more").hidden && more(), { rootMargin: "600px" }).observe(at("more"));
  window.addEventListener("hashchange", recall);
  recall();
  document.body.dataset.ready = "yes";
}
start();
