// Requests to the server, with the API key that this tab keeps.

const KEY = "key";

/** An answer with an error: its message for people, and its status. */
export class ApiError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const storedKey = () => sessionStorage.getItem(KEY) || "";

export function storeKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/** Send a request and return the response; throw `ApiError` for an error. */
async function send(path, { method = "GET", json = null, form = null, signal = null } = {}) {
  const headers = {};
  if (storedKey()) headers.authorization = `Bearer ${storedKey()}`;
  if (json !== null) headers["content-type"] = "application/json";
  const body = json === null ? form : JSON.stringify(json);
  const response = await fetch(path, { method, headers, body, signal });
  if (response.ok) return response;
  const told = await response.json().catch(() => ({}));
  throw new ApiError(response.status, told.error ? told.error.message : `The server answered with status ${response.status}.`);
}

/** Return the JSON that a request is answered with. */
export async function call(path, options) {
  const response = await send(path, options);
  return response.status === 204 ? null : response.json();
}

/** Yield the server-sent events of a request: their names and data; throw `ApiError` for one that is an error. */
export async function* events(path, options) {
  const reader = (await send(path, options)).body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const whole = (buffer + value).split("\n\n");
    buffer = whole.pop();
    for (const text of whole) {
      const lines = text.split("\n");
      const name = lines.find((line) => line.startsWith("event: ")).slice(7);
      const data = JSON.parse(lines.find((line) => line.startsWith("data: ")).slice(6));
      if (name === "error") throw new ApiError(data.error.code, data.error.message);
      yield [name, data];
    }
  }
}

/** Return the path of something of an index, with its namespace and further parameters. */
export function pathIn(state, what, parameters = {}) {
  const asked = new URLSearchParams({ namespace: state.namespace, ...parameters });
  return `v1/indexes/${encodeURIComponent(state.index)}/${what}?${asked}`;
}
