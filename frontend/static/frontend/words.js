// What every state of a job is called: an icon, a line that is also read aloud, and what to do about it.

const SIGNALS = {
  1: "SIGHUP", 2: "SIGINT", 3: "SIGQUIT", 4: "SIGILL", 5: "SIGTRAP", 6: "SIGABRT", 7: "SIGBUS",
  8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM", 24: "SIGXCPU",
  25: "SIGXFSZ", 31: "SIGSYS",
};
const CRASHES = new Set([4, 6, 7, 8, 11]);

/** "1.8 s", "02:05" */
export function duration(seconds) {
  return seconds < 60 ? `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s` : clock(seconds);
}

/** "5 minutes", "90 s" */
export function span(seconds) {
  return seconds >= 60 && seconds % 60 === 0 ? count(seconds / 60, "minute") : `${seconds} s`;
}

/** "05:00" */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const two = (number) => String(number).padStart(2, "0");
  return whole < 3600
    ? `${two(Math.floor(whole / 60))}:${two(whole % 60)}`
    : `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
}

/** "38 kB" */
export function size(bytes) {
  for (const [unit, factor] of [["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= factor) return `${(bytes / factor).toFixed(bytes < 10 * factor ? 1 : 0)} ${unit}`;
  }
  return `${bytes} ${bytes === 1 ? "byte" : "bytes"}`;
}

/** "512 MB": memory is counted in 1024s, as limits are. */
export function memory(bytes) {
  const megabytes = bytes / 1048576;
  return `${megabytes.toFixed(megabytes < 10 ? 1 : 0)} MB`;
}

export function count(number, one, many = `${one}s`) {
  return `${number} ${number === 1 ? one : many}`;
}

const ordinal = (number) => `${number}${{ one: "st", two: "nd", few: "rd", other: "th" }[
  new Intl.PluralRules("en", { type: "ordinal" }).select(number)]}`;

/**
 * How the job stands: `tone` is idle, busy, good, bad or ours; `line` a short sentence; `help` what it
 * means and what to do, or "".
 * @returns {{tone: string, icon: string, line: string, help: string}}
 */
export function stand(job) {
  const say = (tone, icon, line, help = "") => ({ tone, icon, line, help });
  switch (job.phase) {
    case "idle":
      return say("idle", "○", "Ready");
    case "packing":
      return say("busy", "◌", "Packing");
    case "uploading":
      return say("busy", "◌", `Uploading ${size(job.toSend)}`);
    case "queued":
      return say("busy", "◌", job.position ? `Queued, ${ordinal(job.position)} in line` : "Starting");
    case "running":
      return say("busy", "▶", job.isCancelling ? "Cancelling" : "Running");
    case "refused":
      return refused(job.problem, say);
    case "gone":
      return gone(job, say);
    default:
      return verdict(job.result, say);
  }
}

function refused(problem, say) {
  if (problem.reason === "unreachable") {
    return say("ours", "!", "Cannot reach the server", `${problem.message} Your code is still here in this tab.`);
  }
  if (problem.status === 429) {
    return say("bad", "!", "Not now", problem.message);
  }
  if (problem.status >= 500) {
    return say("ours", "!", "The server could not take it", `${problem.message} Nothing was counted against you.`);
  }
  return say("bad", "✕", "Not taken", problem.message);
}

function gone({ gone: why, proof, goneAt }, say) {
  const again = "Your code is still here in this tab.";
  if (why === "deleted") {
    const at = new Date(goneAt).toLocaleTimeString([], { hour12: false });
    return say("good", "✓", `Deleted at ${at}`, `We asked the server for it again: ${proof}`);
  }
  if (why === "expired") {
    return say("idle", "✓", "Deleted", `This job's files and logs are gone, as promised. ${again}`);
  }
  if (why === "lost") {
    return say("ours", "!", "The job is gone",
      `The server no longer knows it: it was restarted, or the job was deleted elsewhere. ${again}`);
  }
  return say("idle", "!", "No such job",
    "It was deleted, or never existed. Nothing is recorded, so nobody can tell which.");
}

function verdict(result, say) {
  const { exit_code: code, wall_time_ms: ms, memory_peak_bytes: peak } = result.execution_metadata;
  const took = duration(ms / 1000);
  if (result.status === "completed") return say("good", "✓", `Finished in ${took}, exit code 0`);
  switch (result.reason) {
    case "exit":
      return result.stage === "compile"
        ? say("bad", "✕", `Did not compile, exit code ${code}`, "What the compiler says is in the log.")
        : say("bad", "✕", `Failed with exit code ${code} after ${took}`);
    case "signal": {
      const name = SIGNALS[result.signal] ?? `signal ${result.signal}`;
      const crash = CRASHES.has(result.signal) ? "The program crashed." : "";
      return say("bad", "✕", `Stopped by ${name} after ${took}`, crash);
    }
    case "timeout":
      return say("bad", "✕", `Stopped at the time limit, after ${took}`,
        "What it printed and wrote until then is kept. Under Limits it may get more time, up to the server's limit.");
    case "memory":
      return say("bad", "✕", `Stopped: out of memory, at ${memory(peak)}`,
        "Files count as memory too. Read data in pieces, or give it more under Limits.");
    case "cpu":
      return say("bad", "✕", "Stopped at the CPU limit", "It used the CPU time that was asked for.");
    case "cpu_quota":
      return say("bad", "✕", "Stopped: your CPU time of this minute is used up",
        "It comes back within a minute; what was printed until then is kept.");
    case "cancelled":
      return say("idle", "■", `Cancelled after ${took}`);
    case "worker_lost":
      return say("ours", "!", "The worker stopped answering", "This is not your code's fault. Run it again.");
    default:
      return say("ours", "!", "The sandbox failed",
        `${result.error ?? ""} This is our fault, not your code's, and does not count against your quota.`.trim());
  }
}

const LIMITS = {
  log: "The log is larger than is kept: its middle is missing.",
  memory: "A process was ended because memory ran out.",
  tasks: "It reached the limit of processes.",
  disk: "It reached the limit of file space.",
  inodes: "It reached the limit of files.",
  cpu: "It reached the limit of CPU time.",
  outputs: "There were more output files than are kept.",
};

/** Sentences beside the verdict: limits that were touched, warnings of the server. */
export function remarks({ limits_hit: hit = [], reason, warnings = [], walls_missing: missing = [] }) {
  const told = hit.filter((limit) => limit !== reason).map((limit) => LIMITS[limit] ?? `Limit reached: ${limit}.`);
  const walls = missing.length ? [`This server runs without: ${missing.join(", ")}.`] : [];
  return [...told, ...warnings, ...walls];
}
