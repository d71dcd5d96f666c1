// A hit: where it stands, its passage, why it is there, its whole text, and what stands around it.

import { call } from "./api.js";
import { requestOf, conditions } from "./state.js";
import { appendMarked, fillText, passage, sharedWords } from "./text.js";

const PLACES = { line: ", line ", page: ", page ", cell: ", cell ", row: ", row ", record: ", record ", chapter: ", chapter " };
const PARTS = { dense: "meaning", lexical: "words", rerank: "reranking" };
const UNITS = { dense: "cosine", lexical: "BM25", rerank: "reranker's score", retrieval: "score before reranking" };
const MOST_AROUND = 8; // chunks before and after

/** Return where a hit stands: its file with line or page, or its title or id; and its headings. */
export function titleOf(hit) {
  const { path, headings, title } = hit.metadata;
  const place = Object.keys(PLACES).find((name) => typeof hit.metadata[name] === "number");
  const source = path ? String(path).split("/").pop() : title || hit.id;
  const trail = Array.isArray(headings) ? headings : [];
  return [source + (place ? PLACES[place] + hit.metadata[place] : ""), ...trail].join(" › ");
}

/** Return in words why a hit is among others. */
function reason(hit, hits, words) {
  const told = [];
  const { dense, lexical, retrieval } = hit.parts;
  if (dense !== undefined) {
    told.push(dense >= 0.5 ? "close in meaning" : dense >= 0.25 ? "related in meaning" : "not close in meaning");
  }
  const shared = sharedWords(hit.text, words);
  if (shared.length) told.push(`shares ${shared.map((word) => `‘${word}’`).join(", ")}`);
  else if (lexical !== undefined) told.push("shares small words");
  if (retrieval !== undefined) {
    const before = 1 + hits.filter((other) => other.parts.retrieval > retrieval).length;
    const rank = hits.indexOf(hit) + 1;
    told.push(before === rank ? "reranking left it here" : `reranking moved it from ${before} to ${rank}`);
  }
  return told.join(", ");
}

function likelihood(relevance) {
  if (relevance >= 0.7) return "Likely relevant";
  return relevance >= 0.35 ? "Perhaps relevant" : "Probably not relevant";
}

/** Return a bar of one part of a hit's score: the cosine from 0 to 1, others beside those of the other hits. */
function bar(name, value, hits) {
  const values = hits.map((hit) => hit.parts[name]).filter((other) => other !== undefined);
  const [low, high] = name === "dense" ? [0, 1] : [name === "rerank" ? Math.min(...values) : 0, Math.max(...values)];
  const share = high > low ? (value - low) / (high - low) : 1;
  const told = `${UNITS[name]} ${value.toFixed(2)}`;
  const label = document.createElement("span");
  label.className = "part";
  label.title = told;
  label.append(`${PARTS[name]} `, drawn(Math.max(0, Math.min(1, share)), `${PARTS[name]}: ${told}`));
  return label;
}

/** Return a bar as a picture; the page's policy allows no style of its own width. */
function drawn(share, told) {
  const [picture, filled] = ["svg", "rect"].map((name) => document.createElementNS("http://www.w3.org/2000/svg", name));
  const attributes = { class: "bar", role: "img", "aria-label": told, viewBox: "0 0 1 1", preserveAspectRatio: "none" };
  for (const [name, value] of Object.entries(attributes)) picture.setAttribute(name, value);
  filled.setAttribute("width", share);
  filled.setAttribute("height", 1);
  picture.append(filled);
  return picture;
}

function fillWhy(node, hit, hits, words) {
  const strong = document.createElement("b");
  if (typeof hit.relevance === "number") {
    strong.textContent = `${likelihood(hit.relevance)} (${hit.relevance.toFixed(2)})`;
    strong.title = "How likely the hit is relevant, from 0 to 1";
    node.querySelector(".reason").append(strong, ": ");
  }
  node.querySelector(".reason").append(reason(hit, hits, words) || "found");
  const parts = Object.entries(hit.parts).filter(([name]) => name in PARTS);
  node.querySelector(".parts").append(...parts.map(([name, value]) => bar(name, value, hits)));
}

function fillMetadata(list, hit) {
  const numbers = Object.entries(hit.parts).map(([name, value]) => [UNITS[name] || name, value.toFixed(3)]);
  const rows = [["id", hit.id], ["score", hit.score.toFixed(3)], ...numbers, ...Object.entries(hit.metadata)];
  for (const [name, value] of rows) {
    const term = document.createElement("dt");
    const given = document.createElement("dd");
    term.textContent = name;
    given.textContent = typeof value === "string" ? value : JSON.stringify(value);
    list.append(term, given);
  }
}

/** Show one of the hits at the end of a list; `shown` has the state, the query's words, all hits, and what can be done. */
export function showHit(list, hit, shown) {
  const { words, hits } = shown;
  const node = document.getElementById("hit").content.cloneNode(true).querySelector("li");
  const find = (selector) => node.querySelector(selector);
  node.dataset.id = hit.id;
  find(".title").textContent = titleOf(hit);
  appendMarked(find(".passage"), passage(hit.text, words), words);
  fillWhy(node, hit, hits, words);
  fillMetadata(find(".metadata"), hit);

  const open = (opened) => {
    if (opened && !find(".text").hasChildNodes()) fillText(find(".text"), hit, words);
    find(".title").setAttribute("aria-expanded", String(opened));
    find(".whole").hidden = !opened;
    find(".passage").hidden = opened;
  };
  find(".title").addEventListener("click", () => open(find(".whole").hidden));
  const { path, chunk, chunks } = hit.metadata;
  if (typeof path === "string" && typeof chunk === "number" && chunks > 1) {
    find(".around").hidden = false;
    find(".around").addEventListener("click", () => showAround(node, hit, shown, open));
  }
  find(".remove").hidden = !shown.remove;
  find(".remove").addEventListener("click", () => shown.remove(hit, node));
  list.append(node);
}

/** Show a hit with more of the chunks around it at each call, and alone again after the most. */
async function showAround(node, hit, shown, open) {
  const button = node.querySelector(".around");
  const text = node.querySelector(".text");
  const wide = Number(button.dataset.wide || 0);
  const wider = wide >= MOST_AROUND ? 0 : wide ? 2 * wide : 1;
  button.disabled = true;
  try {
    let part = hit;
    if (wider) {
      const { path, chunk } = hit.metadata;
      const only = { ...conditions(shown.state), path, chunk };
      const asked = { ...requestOf(shown.state), where: only, k: 1, group_by: null, rerank: false, expand: wider };
      part = (await call("v1/search", { method: "POST", json: asked })).hits[0] || hit;
    }
    open(true);
    fillText(text, part, shown.words);
    button.dataset.wide = wider;
    button.textContent = wider >= MOST_AROUND ? "Show it alone" : wider ? "Show more around it" : "Show the text around it";
    shown.say(wider ? `Shown with up to ${wider} chunk${wider > 1 ? "s" : ""} before and after it.` : "Shown alone.");
  } catch (error) {
    shown.fail(error);
  } finally {
    button.disabled = false;
    button.focus();
  }
}
