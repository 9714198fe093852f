// The keys, and what happens to what is sent.

import { html } from "../vendor/preact.js";
import { Dialog } from "./dialog.js";

const KEYS = [
  ["Ctrl Enter", "Run (⌘ Enter on a Mac)"],
  ["Ctrl .", "Cancel what runs"],
  ["Esc, then Tab", "Leave the editor"],
  ["← →", "Move between tabs, when one has the focus"],
  ["?", "This help"],
];

export function Help({ open }) {
  return html`
    <${Dialog} open=${open} title="Help">
      <table class="keys">
        <tbody>${KEYS.map(([keys, what]) => html`
          <tr key=${keys}><th scope="row"><kbd>${keys}</kbd></th><td>${what}</td></tr>`)}
        </tbody>
      </table>
      <p>Your code runs in a sandbox without a network. What it prints is shown as it comes; files that
        it writes into its folder are collected when it ends. Then everything is deleted: at the time
        that the page counts down to, or when you say so. There is no account, no cookie and no record.</p>
      <p class="buttons"><button type="button" onClick=${() => { open.value = false; }}>Close</button></p>
    <//>`;
}
