// The answer box: an answer that appears while it is written, with citations that lead to their hits.

import { ApiError, events } from "./api.js";
import { requestOf } from "./state.js";
import { titleOf } from "./hits.js";

const MOST_READ = 5; // hits that the answer is written from
const LONGEST = 128; // tokens of the answer
const by = (id) => document.getElementById(id);

let running = null;

/** End the answer that is being written, and hide the box. */
export function closeAnswer() {
  stopAnswer();
  by("answer").hidden = true;
}

/** End the answer that is being written. */
export function stopAnswer() {
  if (running) running.abort();
  running = null;
}

/** Write an answer to a state's query; `shown.visit` leads to a hit, `shown.fail` tells errors. */
export async function writeAnswer(state, shown) {
  stopAnswer();
  const mine = (running = new AbortController());
  let hits = [];
  let text = "";
  begin();
  try {
    const asked = { ...requestOf(state), k: Math.min(state.k, MOST_READ), max_tokens: LONGEST, stream: true };
    for await (const [name, data] of events("v1/answers", { method: "POST", json: asked, signal: mine.signal })) {
      if (name === "hits") {
        hits = data.hits;
        by("answer-note").textContent = `Reading ${hits.length} hit${hits.length === 1 ? "" : "s"} …`;
      } else if (name === "text") {
        text += data.text;
        by("answer-note").textContent = "Writing …";
        fill(by("answer-text"), text, hits, shown.visit);
      } else if (name === "answer") finish(data, shown.visit);
    }
  } catch (error) {
    if (running === mine || running === null) tellFailure(error, shown.fail);
  } finally {
    if (running === mine) running = null;
    if (running === null) {
      by("answer-stop").hidden = true;
      by("answer-text").removeAttribute("aria-busy");
    }
  }
}

function tellFailure(error, fail) {
  if (error.name === "AbortError") by("answer-note").textContent = "Stopped.";
  else if (error instanceof ApiError && error.status === 404) by("answer-note").textContent = `No answer: ${error.message}.`;
  else {
    by("answer").hidden = true;
    fail(error);
  }
}

function begin() {
  by("answer").hidden = false;
  by("answer").classList.remove("refused");
  by("answer-text").replaceChildren();
  by("answer-text").setAttribute("aria-busy", "true"); // it is read out when it is whole
  by("answer-note").textContent = "Searching …";
  by("answer-stop").hidden = false;
}

function finish(answer, visit) {
  by("answer").classList.toggle("refused", answer.refused);
  if (answer.refused) {
    by("answer-text").textContent = "No answer: the hits do not hold one.";
    by("answer-note").textContent = "The model would have had to guess. Ask in other words, or read the hits below.";
    return;
  }
  fill(by("answer-text"), answer.answer, answer.hits, visit);
  const bare = answer.sentences.filter((sentence) => !sentence.sources.length).length;
  const note = by("answer-note");
  if (!bare) note.textContent = "Each sentence has its source: a hit with its words.";
  else if (bare === answer.sentences.length) note.textContent = "No hit has the words of this answer. Do not rely on it.";
  else note.textContent = `No hit has the words of ${bare} of the ${answer.sentences.length} sentences.`;
}

/** Fill a node with an answer, its citations as links. */
function fill(node, text, hits, visit) {
  node.replaceChildren();
  let end = 0;
  for (const found of text.matchAll(/\[(\d+)\]/g)) {
    const hit = hits[Number(found[1]) - 1];
    if (!hit) continue;
    const link = document.createElement("a");
    link.href = `#hit-${found[1]}`;
    link.textContent = found[0];
    link.title = titleOf(hit);
    link.setAttribute("aria-label", `Source ${found[1]}: ${titleOf(hit)}`);
    link.addEventListener("click", (event) => {
      event.preventDefault();
      visit(hit);
    });
    node.append(text.slice(end, found.index), link);
    end = found.index + found[0].length;
  }
  node.append(text.slice(end));
}
