// An output, shown: an image or a sound as a blob, a table, text, a page of HTML in a frame without rights.
// Names and bytes are a job's and so hostile: they become text nodes, blobs of types chosen here, or are
// shown by the server's /preview, which lets nothing out.

import { visible } from "./ansi.js";
import { parse } from "./csv.js";

const BY_ITSELF = 10_000_000; // bytes of an image that are fetched without being asked for
const MOST = 100_000_000; // bytes that are fetched at all: they lie in memory
const MOST_HTML = 10_000_000; // as the server has it
const MOST_PIXELS = 100_000_000; // a small file can be an image that takes all memory
const TEXT = 100_000; // bytes of a text that are shown
const READ = 1_000_000; // bytes of a table or of JSON that are read
const ROWS = 200, COLUMNS = 50, CELL = 500;

const TYPES = {
  image: {
    png: "image/png", jpg: "image/jpeg", jpeg: "image/jpeg", gif: "image/gif", webp: "image/webp",
    bmp: "image/bmp", svg: "image/svg+xml",
  },
  audio: {
    mp3: "audio/mpeg", wav: "audio/wav", ogg: "audio/ogg", oga: "audio/ogg", opus: "audio/ogg",
    flac: "audio/flac", m4a: "audio/mp4",
  },
  video: { mp4: "video/mp4", m4v: "video/mp4", webm: "video/webm", ogv: "video/ogg" },
  table: { csv: "text/csv", tsv: "text/tab-separated-values" },
  json: { json: "application/json", geojson: "application/geo+json", ipynb: "application/x-ipynb+json" },
  html: { html: "text/html", htm: "text/html" },
};

/**
 * @typedef {object} Output  As docs/api.md has it.
 * @property {string} name @property {string} path @property {number} size @property {string} mime_type
 * @property {string} type @property {string} sha256 @property {string} download_url
 */

/** A name in which every letter is seen. @param {string} name */
export const shownName = (name) => visible(name);

/** @param {number} bytes */
export function shownSize(bytes) {
  if (bytes < 1000) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  const [unit, size] = bytes < 1e6 ? ["kB", 1e3] : bytes < 1e9 ? ["MB", 1e6] : ["GB", 1e9];
  return `${(bytes / size).toPrecision(3).replace(/\.0+$|(\.\d*?)0+$/, "$1")} ${unit}`;
}

/** How an output is shown, by the end of its name; if that says nothing, by what the server says. */
export function kindOf({ name, mime_type: mime = "", type = "" }) {
  const extension = /\.([^./]+)$/.exec(name)?.[1].toLowerCase() ?? "";
  for (const [kind, types] of Object.entries(TYPES)) {
    if (Object.hasOwn(types, extension)) return { kind, mime: types[extension] };
  }
  if (mime.startsWith("text/") || type === "text" || type === "code") return { kind: "text", mime: "" };
  return { kind: "other", mime: "" };
}

/**
 * JSON with one value in a line, its words left as they are (numbers of twenty digits too).
 * @param {string} text
 * @returns {string | null} null: it is no JSON. No longer than about `most` characters.
 */
export function pretty(text, most = TEXT) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  const words = /"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{},:]|[^\s[\]{},:"]+/g;
  let depth = 0;
  let made = "";
  let last = "";
  const line = () => `\n${"  ".repeat(depth)}`;
  for (let found; made.length < most && (found = words.exec(text));) {
    const [word] = found;
    const opened = last === "[" || last === "{";
    if (word === "]" || word === "}") {
      depth--;
      made += opened ? word : line() + word;
    } else {
      if (opened || last === ",") made += line();
      made += word === ":" ? ": " : word;
      if (word === "[" || word === "{") depth++;
    }
    last = word;
  }
  return made;
}

/**
 * @param {Output} output
 * @param {{
 *   fetchBytes: (output: Output, range?: {first: number}) => Promise<Uint8Array>,
 *   previewUrl: (output: Output) => string,
 *   document: Document,
 * }} from first: so many bytes are enough; more do no harm
 * @returns {Promise<HTMLElement>}
 */
export async function preview(output, { fetchBytes, previewUrl, document }) {
  const name = shownName(output.name);
  const { kind, mime } = kindOf(output);
  const box = make("div", "preview");
  if (output.size === 0) box.append(make("p", "facts", "An empty file."));
  else if (kind === "image" || kind === "audio" || kind === "video") {
    const show = kind === "image" ? image : player;
    if (output.size <= BY_ITSELF) await fill(show);
    else if (output.size <= MOST) ask(`Show (${shownSize(output.size)})`, show);
    else facts();
  } else if (kind === "html" && output.size <= MOST_HTML) {
    ask("Show the page", frame);
    box.append(make("p", "facts", "It runs in a frame that reaches neither this page nor the network."));
  } else if (kind === "table") await fill(table);
  else if (kind === "json") await fill(json);
  else if (kind === "text" || kind === "html") await fill(text);
  else {
    facts();
    ask("Show as text", text);
  }
  return box;

  function make(tag, className, said = "") {
    const element = document.createElement(tag);
    if (className) element.className = className;
    element.textContent = said;
    return element;
  }

  function facts() {
    box.append(make("p", "facts", `${shownSize(output.size)}, SHA-256 ${visible(output.sha256)}`));
  }

  function ask(label, show) {
    const button = make("button", "", label);
    button.type = "button";
    button.addEventListener("click", () => {
      button.disabled = true;
      return fill(show);
    });
    box.append(button);
  }

  async function fill(show) {
    let parts;
    try {
      parts = await show();
    } catch (error) {
      parts = [make("p", "facts", `It could not be loaded: ${visible(error.message)}`)];
    }
    box.replaceChildren(...parts);
  }

  /** What can scroll can be reached by keyboard. */
  function scrolling(element) {
    element.tabIndex = 0;
    element.setAttribute("role", "region");
    element.setAttribute("aria-label", name);
    return element;
  }

  async function image() {
    const url = URL.createObjectURL(new Blob([await fetchBytes(output)], { type: mime }));
    const img = make("img");
    const loaded = await new Promise((done) => {
      img.onload = () => done(true);
      img.onerror = () => done(false);
      img.src = url;
    });
    URL.revokeObjectURL(url); // an image that is loaded keeps what it has
    if (!loaded) return [make("p", "facts", "This is not an image that the browser can show.")];
    const { naturalWidth: width, naturalHeight: height } = img;
    const size = width && height ? `, ${width} × ${height} pixels` : "";
    if (width * height > MOST_PIXELS) return [make("p", "facts", `Too large to be shown here${size}.`)];
    img.alt = name + size;
    return [img];
  }

  async function player() {
    const media = make(kind);
    media.controls = true;
    media.setAttribute("aria-label", name);
    const holder = document.createElement(defined(document.defaultView));
    holder.hold(media, new Blob([await fetchBytes(output)], { type: mime }));
    return [holder];
  }

  function frame() {
    const iframe = make("iframe");
    iframe.setAttribute("sandbox", "allow-scripts");
    iframe.referrerPolicy = "no-referrer";
    iframe.title = name;
    iframe.src = previewUrl(output);
    return [iframe];
  }

  async function read(most) {
    const bytes = (await fetchBytes(output, { first: most })).subarray(0, most);
    const complete = bytes.length >= output.size;
    return { text: new TextDecoder().decode(bytes, { stream: !complete }), complete };
  }

  async function table() {
    const { text: whole, complete } = await read(READ);
    const { rows, more } = parse(whole, {
      rows: ROWS, columns: COLUMNS, ...(mime === TYPES.table.tsv && { delimiter: "\t" }),
    });
    if (!complete && !more) rows.pop(); // the last one may be cut
    const element = make("table");
    for (const [at, row] of rows.entries()) {
      const tr = element.insertRow();
      for (const field of row) {
        const said = field.length > CELL ? `${field.slice(0, CELL)}…` : field;
        const cell = make(at ? "td" : "th", "", visible(said));
        if (!at) cell.scope = "col";
        tr.append(cell);
      }
    }
    const holder = scrolling(make("div", "table"));
    holder.append(element);
    const said = `At most ${ROWS} rows and ${COLUMNS} columns are shown; there is more in the file.`;
    return more || !complete ? [holder, make("p", "facts", said)] : [holder];
  }

  async function json() {
    if (output.size > READ) return text();
    const { text: said } = await read(READ);
    const made = pretty(said);
    return made === null ? shownText(said, true) : shownText(made, made.length < TEXT);
  }

  async function text() {
    const { text: said, complete } = await read(TEXT);
    return shownText(said, complete);
  }

  function shownText(said, complete) {
    const pre = scrolling(make("pre", "", visible(said.slice(0, TEXT), { lines: true })));
    if (complete && said.length <= TEXT) return [pre];
    return [pre, make("p", "facts", `The first ${shownSize(TEXT)} are shown; there is more in the file.`)];
  }
}

/** The name of an element whose blob has an address exactly as long as it stands in the page. */
function defined(window) {
  const tag = "job-media";
  if (window.customElements.get(tag)) return tag;
  window.customElements.define(tag, class extends window.HTMLElement {
    #media;
    #blob;

    hold(media, blob) {
      [this.#media, this.#blob] = [media, blob];
      this.append(media);
    }

    connectedCallback() {
      this.#media.src = URL.createObjectURL(this.#blob);
    }

    disconnectedCallback() {
      URL.revokeObjectURL(this.#media.src);
      this.#media.removeAttribute("src");
      this.#media.load();
    }
  });
  return tag;
}
