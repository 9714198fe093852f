// A native modal dialog: the browser keeps the focus inside and gives it back.

import { html, useEffect, useRef } from "../vendor/preact.js";

/** `open` is a signal; Escape and the buttons of `children` set it to false. */
export function Dialog({ open, title, children }) {
  const element = useRef(null);
  useEffect(() => {
    if (open.value && !element.current.open) element.current.showModal();
    if (!open.value && element.current.open) element.current.close();
  }, [open.value]);
  return html`
    <dialog ref=${element} aria-label=${title} onClose=${() => { open.value = false; }}>
      ${open.value && html`<h2>${title}</h2>${children}`}
    </dialog>`;
}
