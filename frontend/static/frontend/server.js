// The API of a Sandrun server: one way to ask it, and everything that goes wrong is a Problem with a
// sentence for people.

const PATIENCE_MS = 30_000; // with a server that took the request and does not answer
const SUBMIT_TRIES = 3;

/** What went wrong. `message` is a sentence or two; `reason` a word: the API's, or "unreachable". */
export class Problem extends Error {
  constructor(message, { status = 0, reason = "unreachable", retryAfter = 0, pointer = "" } = {}) {
    super(message);
    Object.assign(this, { status, reason, retryAfter, pointer });
  }
}

export class Server {
  /** @param {string} base an origin, or "" for the server that the page came from */
  constructor(base) {
    this.base = base || location.origin;
    this.isElsewhere = this.base !== location.origin;
    this.ahead = 0; // of our clock, in ms: when something expires is said in the server's time
  }

  url(path) {
    return new URL(path, this.base).href;
  }

  socketUrl(path) {
    return this.url(path).replace(/^http/, "ws");
  }

  /** When a time that the server told is, by our own clock. */
  moment(text) {
    return Date.parse(text) - this.ahead;
  }

  /** The JSON of a good answer. Throws Problem. */
  async ask(path, options = {}) {
    return (await this.#fetch(path, { accept: "application/json", ...options })).json();
  }

  /** The bytes of a good answer. Throws Problem. */
  async bytes(path, options = {}) {
    const response = await this.#fetch(path, { accept: "*/*", patience: 300_000, ...options });
    try {
      return new Uint8Array(await response.arrayBuffer());
    } catch {
      throw new Problem("The connection broke off in the middle of a file.");
    }
  }

  async #fetch(path, { accept, token, method = "GET", patience = PATIENCE_MS, signal } = {}) {
    const headers = { Accept: accept };
    if (token) headers.Authorization = `Bearer ${token}`;
    let response;
    try {
      const signals = [AbortSignal.timeout(patience), ...(signal ? [signal] : [])];
      response = await fetch(this.url(path), { method, headers, signal: AbortSignal.any(signals) });
    } catch {
      throw new Problem(unreachable(this));
    }
    const date = Date.parse(response.headers.get("Date") ?? "");
    if (date) this.ahead = date - Date.now();
    if (response.ok) return response;
    throw problem(response.status, await response.text().catch(() => ""));
  }

  /**
   * Sends a form to /submit, telling `onProgress(sent, total)` bytes. A request that got no answer is
   * sent again under the same key, so it is the same job. Throws Problem; AbortError after `signal`.
   */
  async submit(form, { onProgress = () => {}, signal } = {}) {
    const key = hex(crypto.getRandomValues(new Uint8Array(16)));
    for (let tried = 1; ; tried++) {
      try {
        return await this.#send(form, key, onProgress, signal);
      } catch (error) {
        if (error.reason !== "unreachable" || tried === SUBMIT_TRIES) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 500 * tried));
      signal?.throwIfAborted();
    }
  }

  #send(form, key, onProgress, signal) {
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest(); // fetch cannot tell how much was sent
      request.open("POST", this.url("/submit"));
      request.setRequestHeader("Accept", "application/json");
      request.setRequestHeader("Idempotency-Key", key);
      request.upload.onprogress = ({ loaded, total }) => onProgress(loaded, total);
      request.onerror = () => reject(new Problem(unreachable(this)));
      request.onabort = () => reject(new DOMException("Called off", "AbortError"));
      request.onload = () => {
        const good = request.status === 200 && json(request.responseText);
        if (good) resolve(good);
        else reject(problem(request.status, request.responseText));
      };
      signal?.addEventListener("abort", () => request.abort());
      if (signal?.aborted) reject(new DOMException("Called off", "AbortError"));
      else request.send(form);
    });
  }
}

export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function problem(status, text) {
  const body = json(text);
  const said = [body?.error ?? `The server answered with status ${status}`, body?.details];
  const sentence = said.filter(Boolean).map((one) => (/[.!?]$/.test(one) ? one : `${one}.`)).join(" ");
  return new Problem(sentence, {
    status,
    reason: body?.reason ?? "not_understood",
    retryAfter: body?.retry_after ?? 0,
    pointer: body?.errors?.[0]?.pointer ?? "",
  });
}

function json(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function unreachable(server) {
  return server.isElsewhere
    ? `${server.base} cannot be reached, or does not let this page in (--allow-origin ${location.origin}).`
    : "The server cannot be reached.";
}
