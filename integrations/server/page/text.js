// Texts of documents. They enter the page as text nodes, or as elements that are made here, one by one, from a list of
// harmless ones: nothing in a document can become markup of its own.

const PASSAGE = 320; // characters of a hit that are shown before it is opened
const BEFORE = 60; // of them before the first marked word
const WORD = /[\p{L}\p{N}]+/gu;
const ELEMENTS = new Set(
  "P H4 H5 H6 UL OL LI BLOCKQUOTE PRE CODE EM STRONG S A SPAN TABLE THEAD TBODY TR TH TD HR BR SECTION".split(" "),
);
const CLASSES = { SPAN: /^[a-z][a-z0-9]{0,2}$/, PRE: /^(code|plain)$/, SECTION: /^(own|around)$/ };
const LINK = /^(https?:\/\/|mailto:)/i;

/** Return the words of a query that are worth seeing, each with the letters that words of a text begin with. */
export function wordsOf(query) {
  const words = [...new Set(query.match(WORD) || [])];
  return words
    .filter((word) => word.length > 3 || /^\p{N}+$/u.test(word) || (word.length > 1 && word === word.toUpperCase()))
    .map((word) => ({ word, stem: word.toLowerCase().slice(0, Math.max(word.length - 2, 4)) }));
}

const beginsAs = (found, words) => words.some(({ stem }) => found.toLowerCase().startsWith(stem));

/** Return the words of a query that a text has. */
export function sharedWords(text, words) {
  const inside = [...new Set((text.toLowerCase().match(WORD) || []))];
  return words.filter(({ stem }) => inside.some((found) => found.startsWith(stem))).map(({ word }) => word);
}

/** Append a text to a node, with the words that begin as a word of the query marked. */
export function appendMarked(node, text, words) {
  let end = 0;
  for (const found of words.length ? text.matchAll(WORD) : []) {
    if (!beginsAs(found[0], words)) continue;
    const mark = document.createElement("mark");
    mark.textContent = found[0];
    node.append(text.slice(end, found.index), mark);
    end = found.index + found[0].length;
  }
  node.append(text.slice(end));
}

function unmarked(text) {
  const spoken = text.replace(/(:[a-z]+)+:`[~!]?([^`<]*)[^`]*`/g, "$2").replace(/`+_*|\*\*/g, "");
  return spoken.replace(/\s+/g, " ").trim();
}

/** Return the stretch of a text that holds most of the query's words, cut at words; without marks of Markdown and reST. */
export function passage(text, words) {
  const lines = text.split("\n").filter((line) => /[\p{L}\p{N}]/u.test(line));
  const flat = unmarked(lines.map((line) => line.replace(/^\s*(#+|>+|[-*+])\s+/, "")).join(" "));
  if (flat.length <= PASSAGE) return flat;
  const starts = [...flat.matchAll(WORD)].filter((found) => beginsAs(found[0], words)).map((found) => found.index);
  let best = 0;
  let most = 0;
  for (const start of starts) {
    const inside = starts.filter((other) => other >= start && other < start + PASSAGE - BEFORE).length;
    if (inside > most) [best, most] = [start, inside];
  }
  const begin = best < BEFORE ? 0 : flat.indexOf(" ", best - BEFORE) + 1;
  const stop = flat.lastIndexOf(" ", begin + PASSAGE);
  const end = stop > begin ? stop : begin + PASSAGE;
  return (begin ? "… " : "") + flat.slice(begin, end) + (end < flat.length ? " …" : "");
}

/** Fill a node with a hit's text: from its HTML, element by element, or as it stands where there is none. */
export function fillText(node, hit, words) {
  node.replaceChildren();
  if (typeof hit.html === "string") {
    // a parsed document of its own runs no script and loads nothing
    copySafe(new DOMParser().parseFromString(hit.html, "text/html").body, node, words);
    return;
  }
  const plain = document.createElement("pre");
  plain.className = "plain";
  appendMarked(plain, hit.passage || hit.text, words);
  node.append(plain);
}

function copySafe(from, to, words) {
  for (const child of from.childNodes) {
    if (child.nodeType === Node.TEXT_NODE) appendMarked(to, child.data, words);
    else if (child.nodeType !== Node.ELEMENT_NODE || ["SCRIPT", "STYLE", "TEMPLATE"].includes(child.tagName.toUpperCase())) continue;
    else if (!ELEMENTS.has(child.tagName)) copySafe(child, to, words);
    else {
      const made = safeElement(child);
      copySafe(child, made, words);
      to.append(made);
      if (made.tagName === "PRE") made.tabIndex = 0; // it may scroll
    }
  }
}

function safeElement(given) {
  const made = document.createElement(given.tagName);
  if (CLASSES[given.tagName]?.test(given.className)) made.className = given.className;
  if (given.tagName === "OL" && /^\d{1,9}$/.test(given.getAttribute("start"))) made.start = given.getAttribute("start");
  const href = given.getAttribute("href");
  if (given.tagName === "A" && LINK.test(href)) Object.assign(made, { href, rel: "noopener noreferrer", target: "_blank" });
  return made;
}
