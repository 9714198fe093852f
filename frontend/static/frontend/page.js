// The page: one file of code, one job, its logs and files. Whatever a job made is only ever put in
// as text.

const EXAMPLES = {
  bash: "echo 'Hello, Sandrun!'\n",
  c: '#include <stdio.h>\n\nint main(void) { puts("Hello, Sandrun!"); }\n',
  cpp: '#include <iostream>\n\nint main() { std::cout << "Hello, Sandrun!\\n"; }\n',
  node: "console.log('Hello, Sandrun!')\n",
  perl: 'print "Hello, Sandrun!\\n";\n',
  python3: "print('Hello, Sandrun!')\n",
  sh: "echo 'Hello, Sandrun!'\n",
};
const WHY = {
  timeout: "it ran longer than it may",
  memory: "it needed more memory than it may have",
  cpu: "it used more CPU time than it may",
  cpu_quota: "your CPU time of this minute is used up",
  cancelled: "it was cancelled",
};
const SHOWN = 100_000; // characters of a log: browsers are slow with megabytes of text
const PATIENCE_MS = 120_000; // with a server that took the request and does not answer

const $ = (id) => document.getElementById(id);
const say = (text) => { $("state").textContent = text; };
let languages;

// The JSON of the answer; an Error with a sentence when it is none, or not a good one.
async function ask(path, options) {
  let response, body;
  try {
    const signal = AbortSignal.timeout(PATIENCE_MS);
    response = await fetch(path, { headers: { Accept: "application/json" }, signal, ...options });
    body = await response.json();
  } catch {
    if (!response) throw new Error("The server cannot be reached.");
  }
  if (response.ok && body) return body;
  const what = body?.error ?? `The server answered with status ${response.status}`;
  const said = [what, body?.details, body?.retry_after && `Try again in ${body.retry_after} s`];
  throw new Error(said.filter(Boolean).map((one) => `${one.replace(/\.$/, "")}.`).join(" "));
}

async function start() {
  languages = (await ask("/")).interpreters;
  for (const [name, { version }] of Object.entries(languages)) {
    const short = version.replace(/ ?\(.*?\)\S*/g, ""); // without the distribution's own numbers
    $("language").append(new Option(short.startsWith(name) ? short : `${name}: ${short}`, name));
  }
  if ("python3" in languages) $("language").value = "python3";
  showExample();
  $("run").disabled = Object.keys(languages).length === 0;
  say($("run").disabled ? "No language works on this server." : "Ready");
}

function showExample() {
  const known = Object.values(EXAMPLES);
  if ($("code").value.trim() === "" || known.includes($("code").value)) {
    $("code").value = EXAMPLES[$("language").value] ?? "";
  }
}

async function submit() {
  const interpreter = $("language").value;
  const { entrypoint, extensions } = languages[interpreter];
  const name = entrypoint || `main${extensions[0] ?? ".txt"}`;
  const form = new FormData();
  form.append("files", new File([$("code").value], name));
  form.append("manifest", JSON.stringify({ entrypoint: name, interpreter }));
  return (await ask("/submit", { method: "POST", body: form })).job_id;
}

async function follow(id) {
  for (let wait = 1; ;) {
    const status = await ask(`/status/${id}?wait=${wait}`);
    const { logs } = status;
    for (const stream of ["stdout", "stderr"]) {
      const text = logs[stream].slice(-SHOWN);
      if ($(stream).textContent !== text) $(stream).textContent = text; // or a selection is lost
      $(`${stream}-all`).href = `/logs/${id}?stream=${stream}`;
      $(`${stream}-all`).hidden = logs[stream].length <= SHOWN;
    }
    say([sentence(status), ...remarks(status)].join(" · "));
    if (status.status === "completed" || status.status === "failed") return status;
    wait = Math.min(10, 1 + ((logs.stdout.length + logs.stderr.length) >> 20)); // long ones rarer
  }
}

function sentence({ status, reason, error, stage, signal, queue_position, execution_metadata }) {
  const { exit_code, wall_time_ms } = execution_metadata;
  if (status === "queued") return `Queued, number ${queue_position} in line`;
  if (status === "running") return `Running, ${Math.round(wall_time_ms / 1000)} s`;
  if (status === "completed") return `Finished in ${wall_time_ms} ms, exit code 0`;
  if (error) return error;
  if (reason === "exit" && stage === "compile") return `Did not compile, exit code ${exit_code}`;
  if (reason === "exit") return `Failed with exit code ${exit_code}`;
  return reason === "signal" ? `Ended by signal ${signal}` : `Stopped: ${WHY[reason] ?? reason}`;
}

function remarks({ limits_hit, reason, warnings }) {
  const tell = (limit) => `limit reached: ${limit === "log" ? "log, its middle is lost" : limit}`;
  return [...limits_hit.filter((limit) => limit !== reason).map(tell), ...warnings];
}

async function list(id) {
  const { outputs, truncated } = await ask(`/outputs/${id}`);
  $("files").replaceChildren(...outputs.map((output) => {
    const link = document.createElement("a");
    link.href = output.download_url;
    const name = output.name.replace(/[\p{C}\p{Z}]/gu, (char) => (char === " " ? char : "\uFFFD"));
    link.textContent = `${name} (${output.size_formatted})`; // nothing in it can turn its direction
    const item = document.createElement("li");
    item.append(link);
    return item;
  }));
  $("cut").hidden = !truncated;
}

$("language").addEventListener("change", showExample);
$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("run").disabled = $("result").hidden = true;
  say("Sending");
  try {
    const id = await submit();
    for (const part of ["stdout", "stderr", "files", "expiry"]) $(part).replaceChildren();
    for (const part of ["stdout-all", "stderr-all", "cut"]) $(part).hidden = true;
    $("result").hidden = false;
    const end = new Date((await follow(id)).expires_at);
    $("expiry").textContent = `Everything here is deleted at ${end.toLocaleTimeString()}.`;
    await list(id);
  } catch (error) {
    say(error.message);
  } finally {
    $("run").disabled = false;
  }
});

start().catch((error) => say(`${error.message} Reload the page to try again.`));
