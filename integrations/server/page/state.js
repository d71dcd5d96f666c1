// What is searched for, as the page's address has it: a search can be shared, and the back button works.

const DEFAULTS = { q: "", index: "", namespace: "", mode: "hybrid", where: "", k: 10, group: "", rerank: false };

/** Return what the address asks for. */
export function fromAddress() {
  const asked = new URLSearchParams(location.search);
  const state = { ...DEFAULTS };
  for (const name of Object.keys(DEFAULTS)) if (asked.has(name)) state[name] = asked.get(name);
  state.rerank = asked.get("rerank") === "1";
  state.k = Math.min(Math.max(Math.trunc(Number(state.k)) || DEFAULTS.k, 1), 100);
  if (!["hybrid", "dense", "lexical"].includes(state.mode)) state.mode = DEFAULTS.mode;
  return state;
}

/** Return the address of a state, without what is as usual. */
export function addressOf(state) {
  const asked = new URLSearchParams();
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    if (state[name] !== usual) asked.set(name, state[name] === true ? "1" : state[name]);
  }
  const text = asked.toString();
  return location.pathname + (text ? `?${text}` : "");
}

/** Return a state's filter as an object, empty where there is none. */
export function conditions(state) {
  if (!state.where.trim()) return {};
  let where;
  try {
    where = JSON.parse(state.where);
  } catch (error) {
    throw new Error(`The filter is no JSON: ${error.message}`);
  }
  if (where === null || typeof where !== "object" || Array.isArray(where)) {
    throw new Error("The filter must be a JSON object, such as {\"year\": 2020}.");
  }
  return where;
}

/** Return a filter as text, empty for one without conditions. */
export function whereText(where) {
  return Object.keys(where).length ? JSON.stringify(where) : "";
}

/** Return the request of a state's search. */
export function requestOf(state) {
  const where = conditions(state);
  return {
    query: state.q,
    index: state.index || null,
    namespace: state.namespace,
    mode: state.mode,
    where: Object.keys(where).length ? where : null,
    k: state.k,
    group_by: state.group || null,
    rerank: state.rerank,
    render: true,
  };
}
