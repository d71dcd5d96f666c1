// The search page: its form, its address, and what a search shows.

import { ApiError, call, storedKey, storeKey } from "./api.js";
import { closeAnswer, stopAnswer, writeAnswer } from "./answer.js";
import { connectUpload, removeDocument } from "./documents.js";
import { showChips, showFacets } from "./facets.js";
import { showHit } from "./hits.js";
import { addressOf, fromAddress, requestOf } from "./state.js";
import { wordsOf } from "./text.js";

const by = (id) => document.getElementById(id);
const WIDE = matchMedia("(min-width: 60rem)");
const OF_FILES = new Set("chunk chunks digest start end line headings".split(" ")); // keys that group nothing

let access = { write: false, namespace: null, reranks: false, answers: false };
let indexes = [];
let running = null;
let shown = null; // of the hits that are seen: state, words, hits, and what can be done

function say(text, wrong = false) {
  by("status").textContent = text;
  by("status").classList.toggle("error", wrong);
}

/** Tell an error, and ask for a key where that is what is missing. */
function fail(error) {
  if (error.name === "AbortError") return;
  say(error.message, true);
  if (error instanceof ApiError && error.status === 401) askForKey(storedKey() !== "");
}

/** Return what the form asks for. */
function formState() {
  return {
    q: by("query").value.trim(),
    index: by("index").value,
    namespace: by("namespace").value,
    mode: by("mode").value,
    where: by("where").value.trim(),
    k: Math.min(Math.max(Math.trunc(Number(by("k").value)) || 10, 1), 100),
    group: by("group").value,
    rerank: by("rerank").checked,
  };
}

function offer(select, options, value) {
  select.replaceChildren(...options.map(([name, label]) => new Option(label, name)));
  if (!options.some(([name]) => name === value)) select.append(new Option(value, value));
  select.value = value;
}

/** Fill the form from a state. */
async function fillForm(state) {
  const index = state.index || indexes[0]?.name || "";
  by("query").value = state.q;
  for (const name of ["mode", "where", "k"]) by(name).value = state[name];
  by("rerank").checked = state.rerank && access.reranks;
  by("where").closest("details").open ||= false;
  offer(by("index"), indexes.map(({ name, documents }) => [name, `${name} (${documents.toLocaleString("en")})`]), index);
  fillNamespaces(state.namespace);
  offer(by("group"), [["", "–"], ["path", "file"]], state.group);
  showChips(by("chips"), { ...state, index }, changeFilter);
  await fillGroups(state.group);
}

function fillNamespaces(value) {
  const named = indexes.find(({ name }) => name === by("index").value)?.namespaces || {};
  const names = access.namespace === null ? [...new Set(["", ...Object.keys(named)])] : [access.namespace];
  by("namespaces").hidden = names.length < 2 && !value;
  offer(by("namespace"), names.map((name) => [name, name || "(none)"]), access.namespace ?? value);
}

/** Offer the metadata keys of the chosen index to group by. */
async function fillGroups(value) {
  if (!by("index").value) return;
  const described = await call(`v1/indexes/${encodeURIComponent(by("index").value)}`);
  const keys = (described.metadata_keys || []).filter((key) => key !== "path" && !OF_FILES.has(key));
  offer(by("group"), [["", "–"], ["path", "file"], ...keys.map((key) => [key, key])], value);
}

function changeFilter(where) {
  by("where").value = where;
  begin();
}

/** Put what the form asks for into the address, and search for it. */
async function begin() {
  const state = formState();
  if (!state.q) {
    showChips(by("chips"), state, changeFilter);
    return false;
  }
  if (addressOf(state) !== location.pathname + location.search) history.pushState(null, "", addressOf(state));
  closeAnswer();
  return search(state);
}

/** Search, and show the hits; return whether there was an answer. */
async function search(state) {
  document.title = state.q ? `${state.q} – tp-retrieval` : "Search – tp-retrieval";
  showChips(by("chips"), state, changeFilter);
  if (running) running.abort();
  const mine = (running = new AbortController());
  say("Searching …");
  by("hits").setAttribute("aria-busy", "true");
  try {
    const found = await call("v1/search", { method: "POST", json: requestOf(state), signal: mine.signal });
    show(state, found);
    return true;
  } catch (error) {
    if (running === mine) fail(error);
    return false;
  } finally {
    by("hits").removeAttribute("aria-busy");
  }
}

function show(state, { hits, milliseconds }) {
  const words = wordsOf(state.q);
  shown = { state, words, hits, say, fail, visit, remove: access.write ? remove : null };
  by("hits").replaceChildren();
  hits.forEach((hit) => showHit(by("hits"), hit, shown));
  by("results").hidden = !hits.length;
  by("facets").hidden = !showFacets(by("facet-list"), state, hits, changeFilter);
  const count = hits.length;
  const empty = state.where ? "No hits. Remove a filter, or ask in other words." : "No hits.";
  say(count ? `${count} hit${count > 1 ? "s" : ""} in ${(milliseconds / 1000).toFixed(2)} seconds` : empty);
}

/** Lead to a hit that an answer cites, which is added to the list where it is not in it. */
function visit(hit) {
  const find = () => [...by("hits").children].find((node) => node.dataset.id === hit.id);
  if (!find()) {
    showHit(by("hits"), hit, { ...shown, hits: [...shown.hits, hit] });
    by("results").hidden = false;
  }
  for (const node of by("hits").children) node.classList.toggle("cited", node === find());
  find().focus({ preventScroll: true });
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  find().scrollIntoView({ block: "center", behavior: still ? "auto" : "smooth" });
}

async function remove(hit, node) {
  try {
    if (await removeDocument(shown.state, hit, { say, changed })) {
      const next = node.nextElementSibling || node.previousElementSibling;
      node.remove();
      (next?.querySelector(".title") || by("query")).focus();
      await refreshCounts();
    }
  } catch (error) {
    fail(error);
  }
}

/** Count the documents anew, and search again. */
async function changed() {
  await refreshCounts();
  if (shown) await search(shown.state);
}

async function refreshCounts() {
  indexes = (await call("v1/indexes")).data;
  for (const option of by("index").options) {
    const found = indexes.find(({ name }) => name === option.value);
    if (found) option.textContent = `${found.name} (${found.documents.toLocaleString("en")})`;
  }
}

function askForKey(wrong = false) {
  by("change-key").hidden = false;
  by("key").value = "";
  by("key-note").textContent = wrong
    ? "The server does not accept this key. Give another one; it is kept until this tab is closed, and nowhere else."
    : "This server asks for a key. It is kept until this tab is closed, and nowhere else.";
  if (!by("key-dialog").open) by("key-dialog").showModal();
}

/** Ask the server what may be done and what there is, and show what the address asks for. */
async function start() {
  try {
    access = await call("v1/access");
    indexes = (await call("v1/indexes")).data;
    const state = fromAddress();
    by("reranking").hidden = !access.reranks;
    by("answer-button").hidden = !access.answers || !indexes.length;
    by("add-files").hidden = !access.write || !indexes.length;
    by("change-key").hidden = !storedKey();
    by("facets").querySelector("details").open = WIDE.matches;
    await fillForm(state);
    if (!indexes.length) say("There is no index here yet: start the server with `tp-retrieval serve INDEX`.", true);
    else if (state.q) await search(formState());
    else say("");
  } catch (error) {
    fail(error);
  }
}

by("form").addEventListener("submit", (event) => {
  event.preventDefault();
  begin();
});
by("answer-button").addEventListener("click", async () => {
  if (!by("form").reportValidity()) return;
  const state = formState();
  const seen = shown && addressOf(shown.state) === addressOf(state) && !by("results").hidden;
  if (seen || (await begin())) writeAnswer(state, shown);
});
by("answer-stop").addEventListener("click", stopAnswer);
by("index").addEventListener("change", () => {
  fillNamespaces("");
  fillGroups("").then(begin, fail);
});
for (const id of ["namespace", "mode", "group", "rerank"]) by(id).addEventListener("change", begin);
by("change-key").addEventListener("click", () => askForKey());
by("key-dialog").addEventListener("close", () => {
  if (by("key-dialog").returnValue !== "use") return;
  storeKey(by("key").value);
  by("key").value = "";
  by("key-dialog").returnValue = "";
  start();
});
connectUpload(formState, () => changed().catch(fail));
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, select, textarea, dialog");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  by("query").focus();
  by("query").select();
});
addEventListener("popstate", async () => {
  const state = fromAddress();
  closeAnswer();
  try {
    await fillForm(state);
    if (state.q) await search(formState());
    else {
      if (running) running.abort();
      shown = null;
      by("results").hidden = by("facets").hidden = true;
      say("");
    }
  } catch (error) {
    fail(error);
  }
});
start();
