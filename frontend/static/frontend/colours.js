// The colours of a log, so that they can be read: a job chooses them for a terminal that it does not know.
// The 16 are classes in log.css; all others are mixed with black or white until they stand out from their
// ground, once for light and once for dark.

import { FLAGS } from "./ansi.js";

const ENOUGH = 4.6; // WCAG asks for 4.5

/** Text, ground, ground of stderr, and the 16 colours as text; as a ground black and white are themselves. */
export const THEMES = {
  light: {
    text: "#1f2328", ground: "#ffffff", stderr: "#fff1f0", mix: "#000000",
    sixteen: [
      "#24292f", "#b3261e", "#116329", "#7d4e00", "#0550ae", "#6639ba", "#0b5f66", "#59636e",
      "#57606a", "#a40e26", "#1a6f37", "#755000", "#0a58b5", "#7345c4", "#14666d", "#4a525b",
    ],
  },
  dark: {
    text: "#e6edf3", ground: "#0d1117", stderr: "#2a1215", mix: "#ffffff",
    sixteen: [
      "#8b949e", "#ff7b72", "#3fb950", "#d29922", "#58a6ff", "#bc8cff", "#39c5cf", "#b1bac4",
      "#959da7", "#ffa198", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#ffffff",
    ],
  },
};
const GROUNDS = { 0: "#000000", 7: "#d0d7de", 8: "#59636e", 15: "#ffffff" };

const numbers = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
const hex = (rgb) => `#${rgb.map((value) => value.toString(16).padStart(2, "0")).join("")}`;

// Of one channel, 0 to 255: a rainbow asks for it a hundred thousand times.
const LINEAR = Float64Array.from({ length: 256 }, (_, value) =>
  value <= 10 ? value / 3294.6 : ((value / 255 + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * LINEAR[r] + 0.7152 * LINEAR[g] + 0.0722 * LINEAR[b];
const ratio = (one, other) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);

/** As WCAG 2 counts it: 1 to 21. @param {string} one "#rrggbb" @param {string} other */
export const contrast = (one, other) => ratio(luminance(numbers(one)), luminance(numbers(other)));

/** `colour`, mixed with `mix` as little as makes it readable on all `grounds`. */
function readable(colour, grounds, mix) {
  const [from, to] = [numbers(colour), numbers(mix)];
  const against = grounds.map((ground) => luminance(numbers(ground)));
  const mixed = (part) => from.map((value, at) => Math.round(value + (to[at] - value) * part));
  const fits = (part) => against.every((ground) => ratio(luminance(mixed(part)), ground) >= ENOUGH);
  if (fits(0)) return colour;
  let [low, high] = [0, 1];
  while (high - low > 0.02) {
    const middle = (low + high) / 2;
    if (fits(middle)) high = middle;
    else low = middle;
  }
  return hex(mixed(high));
}

/** 16 to 255 of the palette of terminals. */
function ofPalette(number) {
  if (number >= 232) return hex(Array(3).fill(8 + (number - 232) * 10));
  const level = (value) => (value ? 55 + value * 40 : 0);
  const cube = number - 16;
  return hex([Math.floor(cube / 36), Math.floor(cube / 6) % 6, cube % 6].map(level));
}

function colourIn(theme, colour, isGround) {
  if (typeof colour === "string") return colour;
  if (colour >= 16) return ofPalette(colour);
  return (isGround && GROUNDS[colour]) || theme.sixteen[colour];
}

/**
 * Text and ground in one theme; null: as the line has it.
 * @param {import("./ansi.js").Style} style
 * @param {"light" | "dark"} name
 */
export function paint({ fg, bg, flags }, name) {
  const theme = THEMES[name];
  const inverse = Boolean(flags & FLAGS.INVERSE);
  const [front, back] = inverse ? [bg, fg] : [fg, bg];
  if (back === null && !inverse) {
    if (front === null) return { text: null, ground: null };
    return { text: readable(colourIn(theme, front), [theme.ground, theme.stderr], theme.mix), ground: null };
  }
  const ground = back === null ? theme.text : colourIn(theme, back, true);
  const text = front === null ? (inverse ? theme.ground : theme.text) : colourIn(theme, front);
  const mix = contrast("#000000", ground) > contrast("#ffffff", ground) ? "#000000" : "#ffffff";
  return { text: readable(text, [ground], mix), ground };
}
