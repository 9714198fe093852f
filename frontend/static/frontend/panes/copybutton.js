// Copies a text, also on pages without a clipboard of their own: those over plain http.

import { html, useSignal } from "../vendor/preact.js";

export function CopyButton({ text, label = "Copy" }) {
  const said = useSignal("");
  const copy = async (event) => {
    const isCopied = await toClipboard(text, event.currentTarget);
    said.value = isCopied ? "Copied" : "Select the text and copy it";
    setTimeout(() => { said.value = ""; }, 2000);
  };
  return html`<button type="button" onClick=${copy}>${said.value || label}</button>`;
}

async function toClipboard(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    field.setAttribute("aria-hidden", "true");
    button.after(field); // inside a dialog nothing outside it can be selected
    field.select();
    const isCopied = document.execCommand("copy");
    field.remove();
    button.focus();
    return isCopied;
  }
}
