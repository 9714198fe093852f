// The left half: language, files, the editor, what the program is given.

import { createEditor } from "../editor.js";
import { examples } from "../examples.js";
import { fromDrop, fromInput } from "../project.js";
import { sizeOf } from "../source.js";
import { html, useEffect, useRef, useSignal, useSignalEffect } from "../vendor/preact.js";
import { count, size } from "../words.js";
import { shownName } from "../preview.js";
import { Given } from "./given.js";

export function Source({ page, running }) {
  const { source } = page;
  const told = useSignal(""); // of what was dropped or chosen
  const isOver = useSignal(false);

  const take = async (finding) => {
    try {
      const { files, skipped } = await finding;
      if (files.length === 1 && !files[0].path.includes("/")) {
        await source.addFile(files[0].path, files[0].data);
      } else if (files.length) {
        await source.setFiles(files);
      }
      told.value = summary(files, skipped);
    } catch (error) {
      told.value = error.message;
    }
  };
  const onDrop = (event) => {
    event.preventDefault();
    isOver.value = false;
    take(fromDrop(event.dataTransfer)); // read at once: later the browser has taken it away
  };

  return html`
    <section class="source" aria-label="Code" data-over=${isOver.value}
      onDragOver=${(event) => { event.preventDefault(); isOver.value = true; }}
      onDragLeave=${() => { isOver.value = false; }} onDrop=${onDrop}>
      <${Choices} page=${page} take=${take} />
      <${Files} source=${source} />
      <${Editor} source=${source} running=${running} page=${page} />
      <${Given} page=${page} />
      ${told.value && html`<p class="told" role="status">${told.value}</p>`}
    </section>`;
}

/** What was taken of a folder, and what was not, and why. */
function summary(files, skipped) {
  const names = (why) => skipped.filter((one) => one.why === why).map(({ path }) => shownName(path));
  const ignored = names("ignored").length;
  const secrets = names("secret");
  const faults = skipped.filter(({ why }) => why === "name" || why === "unreadable").map(({ detail }) => detail);
  return [
    files.length ? `${count(files.length, "file")} taken.` : "There is no file in it that would be sent.",
    ignored && `${count(ignored, "file or folder", "files and folders")} ignored.`,
    secrets.length && `Withheld, as they look like secrets: ${secrets.slice(0, 5).join(", ")}${
      secrets.length > 5 ? ` and ${secrets.length - 5} more` : ""}.`,
    ...faults.slice(0, 3),
  ].filter(Boolean).join(" ");
}

function Choices({ page, take }) {
  const { source, info } = page;
  const languages = Object.entries(info.interpreters);
  const chooseFolder = useRef(null);
  const chooseFiles = useRef(null);
  const onChosen = async ({ target }) => {
    await take(fromInput([...target.files]));
    target.value = "";
  };
  return html`
    <div class="choices">
      <label>Language
        <select value=${source.language.value} onChange=${(event) => source.setLanguage(event.target.value)}>
          ${languages.map(([name, { version }]) => html`
            <option key=${name} value=${name}>${titleOf(name, version)}</option>`)}
        </select>
      </label>
      <label>Example
        <select value="" onChange=${(event) => source.showExample(event.target.value)}>
          <option value="" disabled>choose</option>
          ${Object.entries(examples).filter(([, { language }]) => language in info.interpreters).map(
            ([name, { title }]) => html`<option key=${name} value=${name}>${title}</option>`)}
        </select>
      </label>
      <button type="button" onClick=${() => chooseFolder.current.click()}>Open folder</button>
      <button type="button" onClick=${() => chooseFiles.current.click()}>Add files</button>
      <input ref=${chooseFolder} type="file" webkitdirectory hidden aria-label="Folder" onChange=${onChosen} />
      <input ref=${chooseFiles} type="file" multiple hidden aria-label="Files" onChange=${onChosen} />
    </div>`;
}

function titleOf(name, version) {
  const short = version.replace(/ ?\(.*?\)\S*/g, ""); // without the distribution's own numbers
  const bare = (text) => text.toLowerCase().replace(/[\s\d.]+$/, "");
  return bare(short).startsWith(bare(name)) ? short : `${name}: ${short}`;
}

/** The files, when there are several, and which of them starts. */
function Files({ source }) {
  const { files, active, entrypoint } = source;
  const add = () => {
    for (let n = 1; ; n++) {
      const path = `file${n}.txt`;
      if (!files.value.some((file) => file.path === path)) return source.addFile(path, "");
    }
  };
  const shown = files.value.slice(0, 200); // a select holds more, a row of tabs does not
  return html`
    <div class="files">
      <ul aria-label="Files">
        ${shown.map((file, index) => html`
          <li key=${file.path} data-chosen=${index === active.value}>
            <button type="button" aria-pressed=${String(index === active.value)}
              onClick=${() => { active.value = index; }}>${shownName(file.path)}</button>
            ${files.value.length > 1 && html`
              <button type="button" class="slight" aria-label=${`Remove ${shownName(file.path)}`}
                onClick=${() => source.removeFile(index)}>×</button>`}
          </li>`)}
        ${files.value.length > shown.length && html`<li>and ${files.value.length - shown.length} more</li>`}
        <li><button type="button" class="slight" aria-label="Add an empty file" onClick=${add}>+</button></li>
      </ul>
      ${files.value.length > 1 && html`
        <label>Starts
          <select value=${entrypoint.value} onChange=${(event) => { entrypoint.value = event.target.value; }}>
            <option value="">as the server guesses</option>
            ${files.value.map(({ path }) => html`<option key=${path} value=${path}>${shownName(path)}</option>`)}
          </select>
        </label>
        <${Name} source=${source} />`}
    </div>`;
}

function Name({ source }) {
  const { current, active, files } = source;
  const onChange = (event) => {
    const path = event.target.value.trim();
    const isTaken = files.value.some((file, index) => file.path === path && index !== active.value);
    if (path && !isTaken) source.renameFile(active.value, path);
    else event.target.value = current.value.path;
  };
  return html`<label>Name <input type="text" value=${current.value?.path} spellcheck=${false}
    onChange=${onChange} /></label>`;
}

/** The island of the editor. Text goes in when another file is shown, and comes out as it is typed. */
function Editor({ source, running, page }) {
  const place = useRef(null);
  const editor = useRef(null);
  const isPlain = useSignal(false);
  const { current, active, language, files, shownLine } = source;

  useEffect(() => {
    editor.current = createEditor({
      parent: place.current, text: current.value?.text ?? "", language: language.value, label: "Code",
      onChange: (text) => source.setText(active.value, text), onRun: running.run,
    });
    page.editor = editor.current;
    return () => editor.current.destroy();
  }, []);
  useSignalEffect(() => {
    const text = current.value?.text;
    if (text !== undefined && editor.current && editor.current.text() !== text) editor.current.setText(text);
  });
  useSignalEffect(() => {
    const name = files.value.length > 1 ? source.languageOf(current.value?.path ?? "") : language.value;
    editor.current?.setLanguage(name ?? "");
  });
  useSignalEffect(() => {
    if (!shownLine.value || !editor.current) return;
    editor.current.showLine(shownLine.value.line);
    editor.current.focus();
  });

  const isText = current.value?.text !== undefined;
  return html`
    <div class="code">
      <div class="editor" ref=${place} hidden=${!isText}></div>
      ${!isText && current.value && html`
        <p class="binary">${shownName(current.value.path)}: ${size(sizeOf(current.value))}, sent as it is.</p>`}
      <p class="under">
        <span>Esc, then Tab leaves the editor.</span>
        <label><input type="checkbox" checked=${isPlain.value} onChange=${(event) => {
          isPlain.value = event.target.checked;
          editor.current.setPlain(isPlain.value);
        }} /> Plain editor</label>
      </p>
    </div>`;
}
