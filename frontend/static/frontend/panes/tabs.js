// Tabs as the ARIA pattern has them: one stop for Tab, arrows, Home and End move and choose.

import { html } from "../vendor/preact.js";

const MOVES = { ArrowRight: 1, ArrowLeft: -1 };

/**
 * `tabs` is a list of [name, label]; `chosen` the signal of a name. With `panels` each tab controls the
 * element "NAME-panel".
 */
export function Tabs({ label, tabs, chosen, panels = true, class: kind = "", prefix = "" }) {
  const onKey = (event) => {
    const at = tabs.findIndex(([name]) => name === chosen.value);
    const last = tabs.length - 1;
    const to = { Home: 0, End: last }[event.key]
      ?? (event.key in MOVES ? (at + MOVES[event.key] + tabs.length) % tabs.length : -1);
    if (to < 0) return;
    event.preventDefault();
    [chosen.value] = tabs[to];
    event.currentTarget.children[to].focus();
  };
  return html`
    <div role="tablist" aria-label=${label} class=${`tabs ${kind}`} onKeyDown=${onKey}>
      ${tabs.map(([name, said]) => html`
        <button type="button" role="tab" key=${name} id=${`${prefix}${name}-tab`}
          aria-selected=${String(chosen.value === name)} tabindex=${chosen.value === name ? 0 : -1}
          aria-controls=${panels ? `${prefix}${name}-panel` : undefined}
          onClick=${() => { chosen.value = name; }}>${said}</button>`)}
    </div>`;
}
