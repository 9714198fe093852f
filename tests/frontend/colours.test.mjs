// Colours that a job chose, readable in both themes.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";

import { FLAGS, PLAIN } from "../../frontend/static/frontend/ansi.js";
import { contrast, paint, THEMES } from "../../frontend/static/frontend/colours.js";

const LEAST = 4.5;
const css = await readFile(new URL("../../frontend/static/frontend/log.css", import.meta.url), "utf8");

test("contrast is counted as WCAG counts it", () => {
  assert.equal(contrast("#000000", "#ffffff"), 21);
  assert.equal(contrast("#777777", "#ffffff").toFixed(2), "4.48");
});

for (const [name, theme] of Object.entries(THEMES)) {
  const all = [
    ...Array(256).keys(),
    ...[0, 51, 102, 153, 204, 255].flatMap((r) => [0, 128, 255].flatMap((g) => [0, 99, 255].map((b) =>
      `#${[r, g, b].map((value) => value.toString(16).padStart(2, "0")).join("")}`))),
  ];

  test(`the sixteen colours can be read, ${name}, and log.css has the same`, () => {
    theme.sixteen.forEach((colour, number) => {
      for (const ground of [theme.ground, theme.stderr]) {
        assert.ok(contrast(colour, ground) >= LEAST, `${number} on ${ground}: ${contrast(colour, ground)}`);
      }
      const rule = css.match(new RegExp(`\\.f${number} \\{ color: light-dark\\((#\\w{6}), (#\\w{6})\\)`));
      assert.equal(rule?.[name === "light" ? 1 : 2], colour, `f${number}`);
    });
  });

  test(`every colour of 256 and of many true ones can be read on every line, ${name}`, () => {
    for (const fg of all) {
      const { text, ground } = paint({ ...PLAIN, fg }, name);
      assert.equal(ground, null);
      for (const of of [theme.ground, theme.stderr]) assert.ok(contrast(text, of) >= LEAST, `${fg} on ${of}`);
    }
  });

  test(`every text can be read on every ground, also inverse, ${name}`, () => {
    for (const bg of all) {
      for (const fg of [null, bg, 0, 1, 7, 15, 196, 232, "#ffffff", "#000000", "#808080"]) {
        for (const flags of [0, FLAGS.INVERSE]) {
          const { text, ground } = paint({ fg, bg, flags }, name);
          assert.ok(contrast(text, ground) >= LEAST, `${fg} on ${bg}, ${flags}: ${text} on ${ground}`);
        }
      }
    }
    const { text, ground } = paint({ ...PLAIN, flags: FLAGS.INVERSE }, name);
    assert.ok(contrast(text, ground) >= LEAST);
  });
}

test("a colour that can be read stays what it is", () => {
  assert.equal(paint({ ...PLAIN, fg: "#ffd700" }, "dark").text, "#ffd700");
  assert.equal(paint({ ...PLAIN, fg: "#000080" }, "light").text, "#000080");
});
