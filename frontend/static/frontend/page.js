// The page: one file of code, one job, its logs and files. Whatever a job made is only ever put in
// as text.

const EXAMPLES = {
  python3: "print('Hello, Sandrun!')\n",
  node: "console.log('Hello, Sandrun!')\n",
  bash: "echo 'Hello, Sandrun!'\n",
  sh: "echo 'Hello, Sandrun!'\n",
};

const $ = (id) => document.getElementById(id);
const say = (text) => { $("state").textContent = text; };
let languages = {};

async function ask(path, options) {
  const response = await fetch(path, { headers: { Accept: "application/json" }, ...options });
  const body = await response.json();
  if (!response.ok && body.error) {
    throw new Error([body.error, body.details].filter(Boolean).join(". "));
  }
  return body;
}

async function start() {
  languages = (await ask("/")).interpreters;
  for (const [name, { version }] of Object.entries(languages)) {
    $("language").append(new Option(version.startsWith(name) ? version : `${name}: ${version}`, name));
  }
  if ("python3" in languages) $("language").value = "python3";
  showExample();
  $("run").disabled = Object.keys(languages).length === 0;
  say($("run").disabled ? "No language works on this server" : "Ready");
}

function showExample() {
  const known = Object.values(EXAMPLES);
  if ($("code").value === "" || known.includes($("code").value)) {
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
  for (;;) {
    const status = await ask(`/status/${id}?wait=1`);
    const logs = await ask(`/logs/${id}`);
    $("stdout").textContent = logs.stdout;
    $("stderr").textContent = logs.stderr;
    say(sentence(status, logs));
    if (status.status === "completed" || status.status === "failed") return status;
  }
}

function sentence(status, logs) {
  const { exit_code: code, wall_time_ms: ms } = status.execution_metadata;
  const cut = logs.truncated ? "; the middle of a long log was dropped" : "";
  switch (status.status) {
    case "queued": return `Queued, number ${status.queue_position} in line`;
    case "running": return `Running, ${Math.round(ms / 1000)} s${cut}`;
    case "completed": return `Finished in ${ms} ms, exit code 0${cut}`;
  }
  if (status.error) return status.error;
  if (status.reason === "exit") return `Failed with exit code ${code}${cut}`;
  if (status.reason === "signal") return `Stopped by signal ${status.signal}${cut}`;
  return `Stopped: ${status.reason}${cut}`;
}

async function list(id) {
  const { outputs } = await ask(`/outputs/${id}`);
  $("files").replaceChildren(...outputs.map((output) => {
    const link = document.createElement("a");
    link.href = output.download_url;
    link.textContent = `${output.name} (${output.size_formatted})`;
    const item = document.createElement("li");
    item.append(link);
    return item;
  }));
}

$("language").addEventListener("change", showExample);
$("form").addEventListener("submit", async (event) => {
  event.preventDefault();
  $("run").disabled = true;
  say("Sending");
  try {
    const id = await submit();
    for (const part of ["stdout", "stderr", "expiry"]) $(part).textContent = "";
    $("files").replaceChildren();
    $("result").hidden = false;
    const status = await follow(id);
    await list(id);
    $("expiry").textContent = `Everything here is deleted at ${new Date(status.expires_at).toLocaleTimeString()}.`;
  } catch (error) {
    say(error.message);
  }
  $("run").disabled = false;
});

start().catch((error) => say(`The server cannot be reached: ${error.message}`));
