"use strict";
// The search page. Texts enter the page as text nodes alone, so that nothing in a document can become markup.

const by = (id) => document.getElementById(id);
const PASSAGE = 320; // characters of a hit that are shown before it is opened
const STEM = 5; // words that begin alike are marked alike

function headers() {
  const key = by("key").value;
  const sent = { "content-type": "application/json" };
  return key ? { ...sent, authorization: `Bearer ${key}` } : sent;
}

function say(text, wrong = false) {
  by("status").textContent = text;
  by("status").classList.toggle("error", wrong);
}

async function answer(response) {
  const body = await response.json();
  if (!response.ok) {
    if (response.status === 401) {
      document.querySelector(".more").open = true;
      by("key").focus();
    }
    throw new Error(body.error ? body.error.message : `status ${response.status}`);
  }
  return body;
}

function wordsOf(text) {
  return [...text.toLowerCase().matchAll(/[\p{L}\p{N}]+/gu)].map((found) => found[0]);
}

/** Append a text to a node, with the words that begin as a word of the query marked. */
function appendMarked(node, text, stems) {
  let place = 0;
  for (const found of text.matchAll(/[\p{L}\p{N}]+/gu)) {
    if (!stems.has(found[0].toLowerCase().slice(0, STEM))) continue;
    node.append(text.slice(place, found.index));
    const mark = document.createElement("mark");
    mark.textContent = found[0];
    node.append(mark);
    place = found.index + found[0].length;
  }
  node.append(text.slice(place));
}

/** Return the stretch of a text that holds most of the query's words, cut at words. */
function passage(text, stems) {
  const lines = text.split("\n").filter((line) => /[\p{L}\p{N}]/u.test(line)); // without rulers
  const flat = lines.join(" ").replace(/\s+/g, " ").trim();
  if (flat.length <= PASSAGE) return flat;
  const places = [...flat.matchAll(/[\p{L}\p{N}]+/gu)]
    .filter((found) => stems.has(found[0].toLowerCase().slice(0, STEM)))
    .map((found) => found.index);
  let best = 0, most = 0;
  for (const begin of places) {
    const inside = places.filter((place) => place >= begin && place < begin + PASSAGE - 60).length;
    if (inside > most) [best, most] = [begin, inside];
  }
  const begin = best < 60 ? 0 : flat.indexOf(" ", best - 60) + 1;
  const end = flat.lastIndexOf(" ", begin + PASSAGE);
  return (begin ? "… " : "") + flat.slice(begin, end > begin ? end : begin + PASSAGE) + (begin + PASSAGE < flat.length ? " …" : "");
}

function titleOf(hit) {
  const { path, headings, title } = hit.metadata;
  const parts = [title || (path ? String(path).split("/").pop() : hit.id)];
  return [...parts, ...(Array.isArray(headings) ? headings : [])].join(" › ");
}

function show(hit, stems) {
  const node = by("hit").content.cloneNode(true);
  node.querySelector(".title").textContent = `${hit.rank}. ${titleOf(hit)}`;
  appendMarked(node.querySelector(".passage"), passage(hit.text, stems), stems);
  appendMarked(node.querySelector(".text"), hit.text, stems);
  const scores = node.querySelector(".scores");
  const parts = [["score", hit.score], ...Object.entries(hit.parts)];
  parts.forEach(([name, value], i) => {
    const span = document.createElement("span");
    const number = document.createElement(i ? "span" : "b");
    number.textContent = value.toFixed(2);
    span.append(`${name} `, number);
    scores.append(span);
  });
  const list = node.querySelector(".metadata");
  for (const [name, value] of Object.entries({ id: hit.id, ...hit.metadata })) {
    const term = document.createElement("dt");
    const given = document.createElement("dd");
    term.textContent = name;
    given.textContent = typeof value === "string" ? value : JSON.stringify(value);
    list.append(term, given);
  }
  by("hits").append(node);
}

let running = null;

async function search(event) {
  if (event) event.preventDefault();
  const query = by("query").value.trim();
  if (!query) return;
  let where = null;
  if (by("where").value.trim()) {
    try {
      where = JSON.parse(by("where").value);
    } catch (error) {
      say(`The filter is no JSON: ${error.message}`, true);
      by("where").focus();
      return;
    }
  }
  if (running) running.abort();
  const mine = (running = new AbortController());
  say("Searching …");
  try {
    const asked = {
      query, where, index: by("index").value || null, mode: by("mode").value, k: Number(by("k").value),
      rerank: by("rerank").checked,
    };
    const sent = { method: "POST", headers: headers(), body: JSON.stringify(asked), signal: mine.signal };
    const found = await answer(await fetch("v1/search", sent));
    by("hits").replaceChildren();
    const stems = new Set(wordsOf(query).filter((word) => word.length > 3).map((word) => word.slice(0, STEM)));
    found.hits.forEach((hit) => show(hit, stems));
    const count = found.hits.length;
    say(count ? `${count} hit${count > 1 ? "s" : ""} in ${found.milliseconds.toFixed(0)} ms` : "No hits.");
    sessionStorage.setItem("key", by("key").value);
  } catch (error) {
    if (error.name !== "AbortError") say(error.message, true);
  }
}

async function indexes() {
  try {
    const found = await answer(await fetch("v1/indexes", { headers: headers() }));
    by("index").replaceChildren();
    for (const one of found.data) by("index").append(new Option(`${one.name} (${one.documents})`, one.name));
    say(found.data.length ? "" : "This server has no index: start it with `tp-retrieval serve INDEX`.", !found.data.length);
  } catch (error) {
    say(error.message, true);
  }
}

by("key").value = sessionStorage.getItem("key") || "";
by("form").addEventListener("submit", search);
for (const id of ["index", "mode", "rerank"]) by(id).addEventListener("change", () => search());
by("key").addEventListener("change", indexes);
indexes();
