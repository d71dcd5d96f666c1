// Filters to click: the folders, files and metadata of the hits shown, and a chip for each condition that is active.

import { conditions, whereText } from "./state.js";

const MOST = 8; // values of a key that are offered
const OF_CHUNKS = new Set("path chunk chunks digest start end line page row cell record chapter headings title".split(" "));
const DATE = /^\d{4}-\d\d-\d\d/; // dates and times are no strings for the index

const folderOf = (path) => path.slice(0, path.lastIndexOf("/") + 1);
const inFolder = (folder) => ({ $gte: folder, $lt: `${folder.slice(0, -1)}0` }); // "0" is the character after "/"

/** Return what a condition says, for people. */
function described(key, wanted) {
  if (key === "path" && wanted && wanted.$gte && wanted.$lt === inFolder(wanted.$gte).$lt) return `folder: ${wanted.$gte}`;
  if (key === "path" && typeof wanted === "string") return `file: ${wanted}`;
  return `${key}: ${typeof wanted === "string" ? wanted : JSON.stringify(wanted)}`;
}

/** Show a chip for each condition of a state's filter; `change` is called with the filter without the one removed. */
export function showChips(list, state, change) {
  let where = {};
  try {
    where = conditions(state);
  } catch {
    // the search says what is wrong with it
  }
  list.replaceChildren();
  for (const [key, wanted] of Object.entries(where)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `${described(key, wanted)} ×`;
    button.setAttribute("aria-label", `Remove the filter ${described(key, wanted)}`);
    button.addEventListener("click", () => {
      const { [key]: _, ...left } = where;
      change(whereText(left));
    });
    const item = document.createElement("li");
    item.append(button);
    list.append(item);
  }
}

/** Show what the hits can be narrowed to; `change` is called with the filter that a click makes. */
export function showFacets(list, state, hits, change) {
  list.replaceChildren();
  const where = conditions(state);
  for (const [title, key, values] of facetsOf(hits)) {
    if (key in where || (values.size === 1 && [...values.values()][0].count === hits.length)) continue;
    const heading = document.createElement("h3");
    heading.textContent = title;
    const items = document.createElement("ul");
    const ordered = [...values].sort((a, b) => b[1].count - a[1].count).slice(0, MOST);
    for (const [label, { wanted, count }] of ordered) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "quiet";
      const number = document.createElement("span");
      number.className = "count";
      number.textContent = ` ${count}`;
      button.append(label, number);
      button.addEventListener("click", () => change(whereText({ ...where, [key]: wanted })));
      const item = document.createElement("li");
      item.append(button);
      items.append(item);
    }
    list.append(heading, items);
  }
  return list.childElementCount > 0;
}

/** Return the facets of hits: a title, the key, and for each label its condition and number of hits. */
function facetsOf(hits) {
  const folders = new Map();
  const files = new Map();
  const others = new Map();
  const count = (values, label, wanted) => values.set(label, { wanted, count: (values.get(label)?.count || 0) + 1 });
  for (const { metadata } of hits) {
    const { path } = metadata;
    if (typeof path === "string") {
      if (folderOf(path)) count(folders, folderOf(path), inFolder(folderOf(path)));
      count(files, path, path);
    }
    for (const [key, value] of Object.entries(metadata)) {
      if (OF_CHUNKS.has(key) || !["string", "number", "boolean"].includes(typeof value) || DATE.test(value)) continue;
      if (!others.has(key)) others.set(key, new Map());
      count(others.get(key), String(value), value);
    }
  }
  const few = [...others].filter(([, values]) => values.size <= MOST).map(([key, values]) => [key, key, values]);
  return [["Folder", "path", folders], ["File", "path", files], ...few].filter(([, , values]) => values.size);
}
