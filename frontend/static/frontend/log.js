// The live log: frames in, lines out, as many at a time as the browser can draw. A line is a line of one
// stream. Both streams stand in the order in which their lines began; an unfinished line goes on where it
// began even when the other stream has spoken meanwhile, so that a line is whole, words in it are found,
// and a progress bar stays in one place. No longer than a part of a line: the next part comes at the end.

import { createTerminal, PLAIN, visible } from "./ansi.js";
import { draw, spansOf } from "./log-line.js";
import { createSearch, whole } from "./log-search.js";

const BUDGET_MS = 8; // of a frame, for reading and drawing; laying out comes on top
const PIECE = 2048; // characters that are read between two looks at the clock
const CHUNK = { lines: 200, chars: 1 << 16 }; // what the browser skips as a whole
const KEPT = { lines: 50_000, spans: 300_000, chars: 32 << 20 };
const COLUMNS = 100; // for the guess how high lines are that are not laid out yet
const NEAR = 8; // pixels from the end that count as the end

/**
 * @typedef {{
 *   type: string, t?: number, data?: string, base64?: string, stream?: string, bytes?: number,
 * }} Frame
 * @param {HTMLElement} element becomes the log: its role, its label, its scrolling
 * @param {{
 *   onFollow?: (state: {follow: boolean, unseen: number}) => void,
 *   onCount?: (state: {lines: number, kept: number, stdout: number, stderr: number}) => void,
 * }} [listeners] called at most once in a frame. unseen: lines that came while it did not follow; lines:
 *   all there were, by stream too; kept: those that are here.
 */
export function createLog(element, { onFollow = () => {}, onCount = () => {} } = {}) {
  const { ownerDocument: document } = element;
  const window = document.defaultView;
  const finding = createSearch(window);
  const earlier = document.createElement("div");
  const body = document.createElement("div");
  const sizes = new window.ResizeObserver(() => follow && toEnd());
  let streams, queue, chunks, dirty, totals, counts, serial, unseen;
  let shown = "all";
  let follow = true;
  let top = 0; // where we or the reader last scrolled to
  let told = "";
  let frame = 0;

  element.classList.add("log", "follow");
  element.setAttribute("role", "log");
  element.setAttribute("aria-live", "off"); // the page says in a status line what matters
  element.tabIndex = 0;
  if (!element.hasAttribute("aria-labelledby") && !element.hasAttribute("aria-label")) {
    element.setAttribute("aria-label", "Output");
  }
  earlier.className = "line note";
  earlier.hidden = true;
  element.replaceChildren(earlier, body);
  element.addEventListener("scroll", scrolled, { passive: true });
  sizes.observe(body);
  empty();

  function empty() {
    const stream = () => ({
      terminal: createTerminal(), decoder: new TextDecoder(),
      entry: null, last: null, // the unfinished line, and the part before it
    });
    streams = { stdout: stream(), stderr: stream() };
    queue = { items: [], head: 0 };
    chunks = [];
    dirty = new Set();
    totals = { lines: 0, stdout: 0, stderr: 0 };
    counts = { lines: 0, spans: 0, chars: 0 };
    serial = unseen = 0;
    earlier.hidden = true;
    body.replaceChildren();
  }

  // In: frames, as text, in a queue.

  function textOf({ data, base64 }, { decoder }) {
    if (typeof data === "string") return decoder.decode() + data; // text begins with a whole letter
    let bytes;
    try {
      bytes = Uint8Array.from(window.atob(String(base64)), (letter) => letter.charCodeAt(0));
    } catch {
      return `${decoder.decode()}\ufffd`;
    }
    return decoder.decode(bytes, { stream: true });
  }

  function push(item) {
    queue.items.push(item);
    frame ||= window.requestAnimationFrame(paint);
  }

  function add({ type, t, stream, bytes, ...said }) {
    const seconds = Number.isFinite(t) ? t : undefined;
    if (Object.hasOwn(streams, type)) {
      push({ stream: type, t: seconds, text: textOf(said, streams[type]), at: 0 });
    } else if (type === "gap" && Object.hasOwn(streams, stream)) {
      push({ stream, t: seconds, text: streams[stream].decoder.decode(), at: 0 });
      push({ stream, t: seconds, gap: Number(bytes) || 0 });
    }
  }

  // From the queue to entries.

  function step() {
    const item = queue.items[queue.head];
    if (item.note !== undefined) begin({ stream: "note", text: item.note, runs: [] });
    else if (item.gap !== undefined) gap(item);
    else read(item);
    if (item.at < item.text?.length) return;
    queue.items[queue.head++] = undefined;
    if (queue.head === queue.items.length) queue = { items: [], head: 0 };
  }

  function read(item) {
    const of = streams[item.stream];
    for (const line of of.terminal.write(item.text.slice(item.at, (item.at += PIECE)))) {
      put(of, line, item);
      [of.last, of.entry] = [of.entry, null];
    }
    const open = of.terminal.open();
    if (open) put(of, open, item);
  }

  function gap({ stream, t, gap: bytes }) {
    const of = streams[stream];
    const cut = of.terminal.cut();
    if (cut) put(of, cut, { stream, t });
    of.entry = of.last = null;
    const text = `${bytes.toLocaleString("en")} bytes of ${stream} are not kept`;
    begin({ stream, t, text, runs: [{ end: text.length, style: PLAIN }], gap: true });
  }

  /** What a stream's present line is now. */
  function put(of, { text, runs, continued }, { stream, t }) {
    if (of.entry && !of.entry.gone) {
      counts.chars += text.length - of.entry.text.length;
      counts.spans -= spansOf(of.entry);
      Object.assign(of.entry, { text, runs });
      counts.spans += spansOf(of.entry);
      dirty.add(of.entry);
      return;
    }
    const before = continued && of.last && !of.last.gone ? of.last : undefined;
    of.entry = begin({ stream, t, text, runs, before });
    if (before) before.next = of.entry;
  }

  function begin(entry) {
    entry.serial = serial++;
    let chunk = chunks.at(-1);
    if (!chunk || chunk.entries.length >= CHUNK.lines || chunk.chars >= CHUNK.chars) {
      if (chunk) close(chunk);
      chunk = { element: document.createElement("div"), entries: [], chars: 0 };
      chunk.element.className = "chunk";
      chunks.push(chunk);
      body.append(chunk.element);
    }
    draw(entry, document);
    chunk.entries.push(entry);
    chunk.chars += entry.text.length;
    chunk.element.append(entry.element);
    counts.lines++;
    counts.chars += entry.text.length;
    counts.spans += spansOf(entry);
    if (entry.stream === "note" || entry.gap || entry.before) return entry;
    totals[entry.stream]++;
    totals.lines++;
    if (!follow) unseen++;
    return entry;
  }

  // From entries to what is seen.

  const isShown = ({ stream }) => shown === "all" || stream === shown || stream === "note";

  /** The chunk gets no more lines: from now on it is laid out only near the reader's eyes. */
  function close(chunk) {
    const height = ({ text }) => 1 + Math.floor(text.length / COLUMNS);
    const lines = chunk.entries.reduce((sum, entry) => sum + (isShown(entry) ? height(entry) : 0), 0);
    chunk.element.style.setProperty("--lines", lines);
    chunk.element.classList.add("full");
  }

  function redraw() {
    for (const entry of dirty) if (!entry.gone) draw(entry, document);
    dirty.clear();
  }

  function trim() {
    while (chunks.length > 1 && Object.keys(KEPT).some((name) => counts[name] > KEPT[name])) {
      const { element: old, entries } = chunks.shift();
      for (const entry of entries) {
        entry.gone = true;
        if (entry.next) entry.next.before = undefined;
        entry.before = entry.next = undefined;
        counts.lines--;
        counts.chars -= entry.text.length;
        counts.spans -= spansOf(entry);
      }
      old.remove();
      earlier.hidden = false;
      earlier.textContent = `${(serial - counts.lines).toLocaleString("en")} earlier lines are not shown: ` +
        "they are in the download";
    }
  }

  function paint() {
    frame = 0;
    const end = window.performance.now() + BUDGET_MS;
    while (queue.items.length && window.performance.now() < end) {
      step();
      trim();
    }
    redraw();
    if (follow) toEnd();
    tell();
    if (queue.items.length) frame = window.requestAnimationFrame(paint);
  }

  /** All that came is here, at once: who searches does not wait for frames. */
  function finish() {
    while (queue.items.length) {
      step();
      trim();
    }
    redraw();
  }

  function tell() {
    const now = [{ follow, unseen }, { ...totals, kept: counts.lines }];
    if (JSON.stringify(now) === told) return;
    told = JSON.stringify(now);
    onFollow(now[0]);
    onCount(now[1]);
  }

  // Following.

  function toEnd() {
    element.scrollTop = element.scrollHeight;
    top = element.scrollTop;
  }

  function scrolled() {
    if (element.scrollTop === top) return; // that was us
    const up = element.scrollTop < top;
    top = element.scrollTop;
    const atEnd = element.scrollHeight - top - element.clientHeight < NEAR;
    if (atEnd !== follow && (atEnd || up)) setFollow(atEnd);
  }

  function setFollow(value) {
    follow = value;
    unseen = 0;
    element.classList.toggle("follow", follow);
    if (follow) toEnd();
    tell();
  }

  /** Brings a place to the middle; again when the lines around it have got their real heights. */
  function reveal(range, again = 2) {
    const { top: at, height } = range.getBoundingClientRect();
    const box = element.getBoundingClientRect();
    element.scrollTop += at + height / 2 - box.top - element.clientHeight / 2;
    top = element.scrollTop;
    if (again) window.requestAnimationFrame(() => !follow && reveal(range, again - 1));
  }

  function* lines() {
    for (const { entries } of chunks) yield* entries.filter(isShown);
  }

  return {
    /** @param {Frame} frame of docs/api.md; those that say nothing of the streams are left alone */
    add,
    /** A line of the page's own, between the job's. @param {string} text */
    note: (text) => push({ note: visible(text) }),
    setFollow,
    /** @param {boolean} value */
    setTimes: (value) => {
      element.classList.toggle("times", value);
      if (follow) toEnd();
    },
    /** @param {"all" | "stdout" | "stderr"} value */
    setStreams(value) {
      shown = value;
      for (const stream of ["stdout", "stderr"]) element.classList.toggle(`only-${stream}`, shown === stream);
      chunks.slice(0, -1).forEach(close);
      if (follow) toEnd();
    },
    /**
     * Marks `words` wherever they are in the lines shown, and scrolls to one place: the next one, when
     * the words are the same as before.
     * @param {string} words
     * @param {{backwards?: boolean}} [options]
     * @returns {{count: number, index: number}} index: of that place, from 0; -1: there is none
     */
    search(words, { backwards = false } = {}) {
      finish();
      const { count, index, range } = finding.find(whole(lines()), words, backwards);
      if (range) {
        setFollow(false);
        reveal(range);
      } else tell();
      return { count, index };
    },
    /** The lines shown, as text; a line without an end is whole. */
    text() {
      finish();
      let text = "";
      for (const [entry, line] of whole(lines())) if (entry.stream !== "note") text += `${line}\n`;
      return text;
    },
    clear() {
      finding.forget();
      empty();
      toEnd();
      tell();
    },
    destroy() {
      window.cancelAnimationFrame(frame);
      frame = 0;
      finding.forget();
      sizes.disconnect();
      element.removeEventListener("scroll", scrolled);
      element.replaceChildren();
    },
  };
}
