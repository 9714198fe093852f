// The line above all: how busy the server is and what is left for us, the theme, help.

import { html, useSignal } from "../vendor/preact.js";
import { count } from "../words.js";

const THEMES = { "": ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };

export function Bar({ page, onHelp }) {
  return html`
    <div class="bar">
      ${page.server.isElsewhere && html`<span class="elsewhere">Jobs go to <strong>${page.server.base}</strong></span>`}
      <${Left} stats=${page.stats.value} />
      <span class="spring"></span>
      <${Theme} />
      <button type="button" onClick=${onHelp}>Help</button>
    </div>`;
}

/** Queue and quota, before anything is run. */
function Left({ stats }) {
  if (!stats) return html`<span class="left"></span>`;
  const { quota, system } = stats;
  const queue = system.queue_length ? count(system.queue_length, "job") : "empty";
  const ours = quota.enforced && html`
    <span>${quota.available.toFixed(1)} of ${quota.limit} CPU-seconds left this minute</span>
    <span>${quota.jobs_left_this_hour} of ${quota.jobs_per_hour} jobs left this hour</span>`;
  return html`<span class="left"><span>Queue: ${queue}</span>${ours}</span>`;
}

function Theme() {
  const theme = useSignal(document.documentElement.dataset.theme ?? "");
  const next = () => {
    const names = Object.keys(THEMES);
    const name = names[(names.indexOf(theme.value) + 1) % names.length];
    theme.value = name;
    if (name) document.documentElement.dataset.theme = name;
    else delete document.documentElement.dataset.theme;
    try {
      if (name) localStorage.setItem("theme", name);
      else localStorage.removeItem("theme");
    } catch { /* until the tab is closed, then */ }
  };
  const [icon, said] = THEMES[theme.value];
  return html`<button type="button" aria-label=${`Theme: ${said}`} title=${`Theme: ${said}`} onClick=${next}>
    <span aria-hidden="true">${icon}</span></button>`;
}
