// Files as one tar.gz, the form in which an upload keeps its folders, names and modes. The same files
// give the same bytes: nothing of this machine or moment is in them.

import { createTarPacker } from "./vendor/modern-tar.js";

/**
 * @param {{path: string, data: string | Blob | Uint8Array, executable?: boolean}[]} files
 * @param {{onProgress?: (done: number, total: number) => void}} [options]  bytes of the files so far
 * @returns {Promise<Blob>}  rejected with a sentence that names the file that cannot be read
 */
export async function pack(files, { onProgress = () => {} } = {}) {
  const entries = files
    .map(({ path, data, executable }) => ({
      path,
      // not a Blob of a Blob: of a file that was deleted, that is an empty one without an error
      blob: data instanceof Blob ? data : new Blob([data]),
      executable,
    }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
  const total = entries.reduce((sum, { blob }) => sum + blob.size, 0);
  let done = 0;
  const counted = () =>
    new TransformStream({
      transform(piece, out) {
        out.enqueue(piece);
        done += piece.length;
        onProgress(done, total);
      },
    });

  const { readable, controller } = createTarPacker();
  const packed = new Response(readable.pipeThrough(new CompressionStream("gzip")), {
    headers: { "Content-Type": "application/gzip" },
  }).blob();
  packed.catch(() => {}); // told below, by the entry that broke it
  for (const { path, blob, executable } of entries) {
    try {
      const body = controller.add({
        name: path,
        size: blob.size,
        mode: executable ? 0o755 : 0o644,
        mtime: new Date(0),
        uid: 0,
        gid: 0,
        // The old header has 100 bytes for a name, and does not say what they mean.
        pax: /^[ -~]{1,100}$/.test(path) ? undefined : { path },
      });
      await blob.stream().pipeThrough(counted()).pipeTo(body);
    } catch (error) {
      controller.error(error);
      throw new Error(`${path} cannot be read. Was it changed or deleted meanwhile?`, { cause: error });
    }
  }
  controller.finalize();
  return packed;
}
