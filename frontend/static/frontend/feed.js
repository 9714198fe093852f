// The frames of a job while they come: over a WebSocket, or, where none can be opened, as events over
// HTTP. A connection that breaks off is made again where the last frame was: none is lost, none comes twice.

const QUIET_MS = 40_000; // the server pings every 15 s: whoever is silent for so long is gone
const LONGEST_WAIT_MS = 10_000;
const SOCKET_TRIES = 2; // before it is believed that something on the way lets no WebSocket through
const KINDS = ["stdout", "stderr", "gap", "status", "metrics", "files", "end", "gone"];
const LOG = new Set(["stdout", "stderr", "gap"]);

/**
 * Follows the job `id` until its end. `onFrame(frame)` hears each frame once (docs/api.md, Frame);
 * `onConnection({broken, tries})` how the connection is; `onGone()` that the server knows no such job.
 * @returns {() => void} what ends it
 */
export function follow(server, id, { onFrame, onConnection, onGone, since = 0 }) {
  let position = since;
  let tries = 0;
  let deaf = 0; // WebSockets in a row that never said anything
  let over = false;
  let hangUp = () => {};
  let alarm, quiet;

  const stop = () => {
    over = true;
    clearTimeout(alarm);
    clearTimeout(quiet);
    hangUp();
  };
  const isAlive = () => {
    clearTimeout(quiet);
    quiet = setTimeout(lost, QUIET_MS);
  };
  const hear = (frame) => {
    if (over) return;
    isAlive();
    if (tries) onConnection({ broken: false, tries: 0 });
    tries = deaf = 0;
    if (LOG.has(frame.type) && frame.seq <= position) return; // it has been here
    position = Math.max(position, frame.seq ?? 0);
    if (frame.type === "end" || frame.type === "gone") stop();
    if (frame.type === "gone") onGone();
    else if (frame.type !== "ping") onFrame(frame);
  };

  const lost = async () => {
    if (over) return;
    hangUp();
    hangUp = () => {};
    clearTimeout(quiet);
    tries += 1;
    if (tries > 1) onConnection({ broken: true, tries: tries - 1 }); // the first is made at once, unseen
    try {
      await server.ask(`/status/${id}`); // a refused handshake has no words in a browser; this has
    } catch (problem) {
      if (over) return;
      if (problem.reason === "unknown_job") {
        stop();
        onGone();
        return;
      }
      onConnection({ broken: true, tries });
    }
    const wait = Math.min(LONGEST_WAIT_MS, 100 * 2 ** tries) * (0.5 + Math.random() / 2);
    if (!over) alarm = setTimeout(connect, wait);
  };

  const connect = () => {
    isAlive();
    hangUp = deaf < SOCKET_TRIES ? overSocket() : overEvents();
  };

  const overSocket = () => {
    deaf += 1;
    const socket = new WebSocket(server.socketUrl(`/stream/${id}?since=${position}`), ["sandrun.v1"]);
    let open = true;
    socket.onmessage = ({ data }) => open && hear(JSON.parse(data));
    socket.onclose = () => open && lost();
    return () => {
      open = false;
      socket.close();
    };
  };

  const overEvents = () => {
    const events = new EventSource(server.url(`/logs/${id}?follow=1&format=sse&since=${position}`));
    for (const kind of KINDS) events.addEventListener(kind, ({ data }) => hear(JSON.parse(data)));
    events.onopen = isAlive;
    events.onerror = lost; // its own way of coming back knows no patience
    return () => events.close();
  };

  connect();
  return stop;
}
