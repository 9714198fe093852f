// What the program is given beside its files: arguments, standard input, limits.

import { html } from "../vendor/preact.js";

export function Given({ page }) {
  const { source, info } = page;
  const { timeout_seconds: seconds, memory_mb: megabytes } = info.limits_detail;
  const { words, error } = source.words.value;
  const limit = (name, label, unit, most, least) => html`
    <label>${label}${" "}
      <input type="number" min=${least} max=${most} placeholder=${most} value=${source.limits.value[name]}
        onInput=${(event) => { source.limits.value = { ...source.limits.value, [name]: event.target.value }; }} />
      ${" "}${unit}, at most ${most}
    </label>`;
  return html`
    <div class="given">
      <details open=${source.args.peek() !== ""}>
        <summary>Arguments${words.length > 0 && html` <span class="sum">${words.length}</span>`}</summary>
        <label>As in a shell, quotes too
          <input type="text" value=${source.args.value} spellcheck=${false} autocapitalize="off"
            aria-invalid=${String(Boolean(error))} aria-describedby="words"
            onInput=${(event) => { source.args.value = event.target.value; }} /></label>
        <p id="words" class="words">${error
          ? html`<span class="trouble">${error}</span>`
          : words.map((word, index) => html`<code key=${index}>${word || "(empty)"}</code>`)}</p>
      </details>
      <details open=${source.stdin.peek() !== ""}>
        <summary>Standard input</summary>
        <label>What the program reads
          <textarea rows="4" spellcheck=${false} value=${source.stdin.value}
            onInput=${(event) => { source.stdin.value = event.target.value; }}></textarea></label>
      </details>
      <details>
        <summary>Limits</summary>
        <div class="limits">
          ${limit("timeout", "Time", "seconds", seconds, 1)}
          ${limit("memory_mb", "Memory", "MB", megabytes, 16)}
        </div>
      </details>
    </div>`;
}
