// Where code is written: CodeMirror in a shadow root, where its styles need no nonce, or a plain text
// field. The field is there at once; CodeMirror takes its place when it has been loaded, and gives it
// back when the reader wants it plain. When it cannot be loaded, the field stays.

const MODES = {
  python3: "python", python: "python",
  node: "javascript", nodejs: "javascript", javascript: "javascript",
  bash: "shell", sh: "shell",
  c: "c", gcc: "c", cpp: "cpp", "c++": "cpp", "g++": "cpp",
  perl: "perl", ruby: "ruby", rb: "ruby", lua: "lua", Rscript: "r", R: "r", r: "r",
  go: "go", golang: "go", rust: "rust", java: "java", json: "json",
};
const FOUR = "    ";
const INDENTS = { python: FOUR, c: FOUR, cpp: FOUR, java: FOUR, rust: FOUR, perl: FOUR, go: "\t" };
// Of the characters that nobody sees, those that CodeMirror does not mark by itself.
const UNSEEN = /[\u202a-\u202c\u2060-\u2064\u2068\u206a-\u206f]/g;
const HINT = "Tab indents. Escape, then Tab, leaves the editor.";

const style = new CSSStyleSheet();
style.replaceSync(`
  :host {
    --_bg: var(--bg, Canvas);
    --_muted: var(--muted, light-dark(#59636e, #8b949e));
    --_line: var(--line, light-dark(#d1d9e0, #30363d));
    --_accent: var(--accent, light-dark(#0550ae, #58a6ff));
    --_bad: var(--bad, light-dark(#b3261e, #ff7b72));
    display: block; position: relative; height: 100%; min-height: 8rem;
    background: var(--_bg); color: var(--fg, CanvasText);
  }
  textarea, .cm-editor {
    box-sizing: border-box; width: 100%; height: 100%; min-height: inherit;
    background: inherit; color: inherit;
  }
  textarea {
    display: block; margin: 0; border: 0; border-radius: 0; padding: 4px 8px;
    resize: none; white-space: pre; overflow: auto;
  }
  textarea, .cm-editor .cm-scroller {
    font: 14px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; tab-size: 4;
  }
  @media (pointer: coarse) { textarea, .cm-editor .cm-scroller { font-size: 16px; } }
  textarea:focus-visible, .cm-editor.cm-focused {
    outline: 2px solid var(--_accent); outline-offset: -2px;
  }
  #hint {
    position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
    white-space: nowrap;
  }
  .cm-editor .cm-content { caret-color: currentcolor; }
  .cm-editor .cm-gutters {
    background: var(--_bg); color: var(--_muted); border-color: var(--_line);
  }
  .cm-editor .cm-activeLine, .cm-editor .cm-activeLineGutter {
    background: var(--code-line, light-dark(#f3f5f7, #161b22));
  }
  .cm-editor.cm-focused .cm-matchingBracket { background: none; outline: 1px solid var(--_accent); }
  .cm-editor.cm-focused .cm-nonmatchingBracket { background: none; outline: 1px solid var(--_bad); }
  .cm-editor .cm-specialChar { color: var(--_bad); }
  .cm-editor .cm-searchMatch, .cm-editor .cm-searchMatch-selected {
    background: light-dark(#fff2b3, #332b00);
  }
  .cm-editor .cm-searchMatch-selected { outline: 2px solid var(--_accent); }
  .cm-editor .cm-panels { background: var(--_bg); color: inherit; border-color: var(--_line); }
  .cm-editor .cm-panels :is(button, input) {
    background: var(--_bg); color: inherit; font: inherit;
    border: 1px solid var(--_muted); border-radius: 4px;
  }
  .tok-keyword { color: var(--code-keyword, light-dark(#6639ba, #bc8cff)); }
  .tok-string, .tok-string2 { color: var(--code-string, light-dark(#116329, #3fb950)); }
  .tok-number, .tok-atom, .tok-bool { color: var(--code-number, light-dark(#0550ae, #58a6ff)); }
  .tok-comment { color: var(--code-comment, light-dark(#59636e, #8b949e)); }
  .tok-definition, .tok-macroName { color: var(--code-name, light-dark(#7d4e00, #d29922)); }
  .tok-typeName, .tok-className, .tok-namespace, .tok-meta {
    color: var(--code-type, light-dark(#0b5f66, #39c5cf));
  }
  .tok-invalid { color: var(--_bad); }
`);

/**
 * @typedef {object} Editor
 * @property {() => string} text  what is written
 * @property {(text: string) => void} setText  another text, with a new history; onChange is not told
 * @property {(name: string) => void} setLanguage  an interpreter's name or alias; others are plain
 * @property {(n: number) => void} showLine  puts the cursor into line n, counted from 1, and the line
 *   into the middle
 * @property {() => void} focus
 * @property {(plain: boolean) => void} setPlain  a text field instead of CodeMirror
 * @property {() => void} destroy
 */

/**
 * Makes an editor as the last child of `parent`, and as large.
 * @param {object} options
 * @param {HTMLElement} options.parent
 * @param {string} [options.text]
 * @param {string} [options.language]
 * @param {string} [options.label]  what screen readers call it
 * @param {(text: string) => void} [options.onChange]  hears of every change by the reader
 * @param {() => void} [options.onRun]  Ctrl-Enter, Cmd-Enter
 * @returns {Editor}
 */
export function createEditor({
  parent, text = "", language = "", label = "Code", onChange = () => {}, onRun = () => {},
}) {
  const host = document.createElement("div");
  const shadow = host.attachShadow({ mode: "open" });
  shadow.adoptedStyleSheets = [style];
  parent.append(host);

  let crlf = false; // both kinds of field know only \n
  let plain = false;
  let gone = false;
  const read = () => (crlf ? inner.text().replaceAll("\n", "\r\n") : inner.text());
  const unix = (given) => {
    crlf = given.includes("\r\n") && !/(^|[^\r])\n|\r(?!\n)/.test(given);
    return given.replace(/\r\n?/g, "\n");
  };
  const options = { shadow, label, onRun, onChange: () => onChange(read()) };
  let inner = textField(options, { text: unix(text) });

  function swap(make) {
    const state = inner.state();
    inner.destroy();
    inner = make(options, state);
    inner.setLanguage(language);
    if (state.focused) inner.focus();
  }

  async function upgrade() {
    await painted();
    let library;
    try {
      library = await import("./vendor/codemirror.js");
    } catch {
      return;
    }
    await inner.settled();
    if (!plain && !gone && inner.plain) swap((...given) => codeField(library, ...given));
  }
  upgrade();

  return {
    text: read,
    setText: (given) => inner.setText(unix(given)),
    setLanguage: (name) => inner.setLanguage((language = name)),
    showLine: (n) => inner.showLine(n),
    focus: () => inner.focus(),
    setPlain(wanted) {
      plain = wanted;
      if (plain && !inner.plain) swap(textField);
      if (!plain && inner.plain) upgrade();
    },
    destroy() {
      gone = true;
      inner.destroy();
      host.remove();
    },
  };
}

/** Until what is there has been shown once. */
const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));

const runs = (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && !event.altKey;

/** Where line n of the text begins. */
function startOf(text, n) {
  let at = 0;
  while (--n > 0) {
    const end = text.indexOf("\n", at);
    if (end < 0) break;
    at = end + 1;
  }
  return at;
}

function textField({ shadow, label, onChange, onRun }, { text, from = 0, to = from }) {
  const field = document.createElement("textarea");
  field.setAttribute("aria-label", label);
  field.spellcheck = false;
  field.autocapitalize = "off";
  field.autocomplete = "off";
  field.wrap = "off";
  field.value = text;
  field.setSelectionRange(from, to);
  let composing = false; // what an input method has begun, a new field could not go on with
  field.addEventListener("compositionstart", () => (composing = true));
  field.addEventListener("compositionend", () => (composing = false));
  field.addEventListener("input", onChange);
  field.addEventListener("keydown", (event) => {
    if (!runs(event)) return;
    event.preventDefault();
    event.stopPropagation(); // the page has the same keys
    onRun();
  });
  shadow.append(field);
  return {
    plain: true,
    text: () => field.value,
    setText(given) {
      field.value = given;
      field.setSelectionRange(0, 0);
      field.scrollTo(0, 0);
    },
    setLanguage() {},
    showLine(n) {
      const at = startOf(field.value, n);
      field.focus();
      field.setSelectionRange(at, at);
      const height = parseFloat(getComputedStyle(field).lineHeight);
      const line = field.value.slice(0, at).split("\n").length - 1;
      field.scrollTo(0, line * height - field.clientHeight / 2);
    },
    focus: () => field.focus(),
    state: () => ({
      text: field.value,
      from: field.selectionStart,
      to: field.selectionEnd,
      focused: shadow.activeElement === field,
    }),
    settled: () =>
      new Promise((done) => {
        if (composing) field.addEventListener("compositionend", () => setTimeout(done), { once: true });
        else done();
      }),
    destroy: () => field.remove(),
  };
}

function codeField(cm, { shadow, label, onChange, onRun }, { text, from, to }) {
  const { EditorState, EditorView } = cm;
  const languages = new cm.Compartment();
  let extension = [];

  const hint = document.createElement("div");
  hint.id = "hint";
  hint.textContent = HINT;
  shadow.append(hint);

  const make = (doc, selection) =>
    EditorState.create({
      doc,
      selection,
      extensions: [
        cm.Prec.highest(
          EditorView.domEventHandlers({
            keydown(event) {
              if (!runs(event)) return false;
              event.stopPropagation();
              onRun();
              return true;
            },
            // What is typed over a selection: a browser that does it by itself keeps the colours of what
            // it takes away as an inline style, which the policy forbids.
            beforeinput(event, view) {
              const { inputType, data } = event;
              if (inputType !== "insertText" || !data || view.composing || view.state.readOnly) return false;
              const { from, to } = view.state.selection.main;
              if (from === to) return false;
              const typed = view.state.replaceSelection(data);
              const isHandled = view.state.facet(EditorView.inputHandler)
                .some((handler) => handler(view, from, to, data, () => view.state.update(typed)));
              if (!isHandled) view.dispatch(typed, { userEvent: "input.type", scrollIntoView: true });
              return true;
            },
          }),
        ),
        EditorView.domEventObservers({ keydown: leavable, blur: (_, view) => view.setTabFocusMode(false) }),
        EditorView.contentAttributes.of({ "aria-label": label, "aria-describedby": "hint", tabindex: "0" }),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) onChange();
        }),
        languages.of(extension),
        EditorState.tabSize.of(4),
        cm.syntaxHighlighting(cm.classHighlighter),
        cm.highlightSpecialChars({ addSpecialChars: UNSEEN }),
        cm.lineNumbers(),
        cm.highlightActiveLine(),
        cm.highlightActiveLineGutter(),
        cm.history(),
        cm.indentOnInput(),
        cm.bracketMatching(),
        cm.closeBrackets(),
        cm.search({ top: true }),
        cm.keymap.of([
          ...cm.closeBracketsKeymap, ...cm.searchKeymap, ...cm.historyKeymap, cm.indentWithTab,
          ...cm.defaultKeymap,
        ]),
      ],
    });
  const view = new EditorView({
    state: make(text, { anchor: from, head: to }),
    scrollTo: EditorView.scrollIntoView(to),
    parent: shadow,
    root: shadow,
  });

  return {
    plain: false,
    text: () => view.state.doc.toString(),
    setText: (given) => view.setState(make(given)),
    setLanguage(name) {
      const mode = Object.hasOwn(MODES, name) ? MODES[name] : null;
      extension = mode
        ? [cm.StreamLanguage.define(cm[mode]), cm.indentUnit.of(INDENTS[mode] ?? "  ")]
        : [];
      view.dispatch({ effects: languages.reconfigure(extension) });
    },
    showLine(n) {
      const { doc } = view.state;
      const { from: at } = doc.line(Math.min(Math.max(n, 1), doc.lines));
      view.focus();
      view.dispatch({ selection: { anchor: at }, effects: EditorView.scrollIntoView(at, { y: "center" }) });
    },
    focus: () => view.focus(),
    state: () => ({
      text: view.state.doc.toString(),
      from: view.state.selection.main.from,
      to: view.state.selection.main.to,
      focused: view.hasFocus,
    }),
    settled: async () => {},
    destroy() {
      view.destroy();
      hint.remove();
    },
  };
}

/** Escape, then Tab, leaves: for as long as no other key comes. CodeMirror's own wait is two seconds. */
function leavable(event, view) {
  if (event.key === "Escape") view.setTabFocusMode(true);
  else if (!["Tab", "Shift", "Control", "Alt", "Meta"].includes(event.key)) view.setTabFocusMode(false);
}
