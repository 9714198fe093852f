// Writing tar archives, for pack.js.
export { createTarPacker } from "modern-tar";
