// Time, CPU and memory against their limits: in numbers, as bars, and as a line of the last two minutes.

import { html } from "../vendor/preact.js";
import { clock, duration, memory } from "../words.js";

const WIDTH = 120;
const HEIGHT = 24;

export function Meters({ page }) {
  const { job } = page.work;
  const { phase, metrics, samples, started, limits, result } = job.value;
  if (phase === "over") return html`<${Used} result=${result} samples=${samples} limits=${limits} />`;
  if (phase !== "running" || !metrics) return null;
  const elapsed = Math.min(limits.wall_seconds, (Math.max(page.now.value, Date.now()) - started) / 1000);
  return html`
    <dl class="meters">
      <div><dt>Time</dt><dd><${Against} value=${elapsed} most=${limits.wall_seconds} label="Time" />
        ${clock(elapsed)} of ${clock(limits.wall_seconds)}</dd></div>
      <div><dt>Memory</dt><dd><${Against} value=${metrics.memory_bytes} most=${limits.memory_bytes} label="Memory" />
        ${memory(metrics.memory_bytes)} of ${memory(limits.memory_bytes)}
        <${Line} points=${samples.map((sample) => sample.memory_bytes / limits.memory_bytes)} label="Memory over time" /></dd></div>
      <div><dt>CPU</dt><dd>${Math.round(100 * (rates(samples).at(-1) ?? 0))} %, ${duration(metrics.cpu_seconds)} in all
        <${Line} points=${rates(samples)} label="CPU over time" /></dd></div>
    </dl>`;
}

function Used({ result, limits }) {
  const { cpu_seconds: cpu, memory_peak_bytes: peak, wall_time_ms: ms } = result.execution_metadata;
  return html`
    <dl class="meters">
      <div><dt>Time</dt><dd>${duration(ms / 1000)}</dd></div>
      <div><dt>CPU</dt><dd>${cpu.toFixed(2)} s</dd></div>
      <div><dt>Memory</dt><dd>${memory(peak)} at most${limits ? ` of ${memory(limits.memory_bytes)}` : ""}</dd></div>
    </dl>`;
}

function Against({ value, most, label }) {
  const share = value / most;
  return html`<progress value=${Math.min(share, 1)} max="1" aria-label=${`${label} against its limit`}
    data-tone=${share >= 0.8 ? "high" : "low"}></progress>`;
}

/** CPU-seconds a second, from one sample to the next. */
function rates(samples) {
  return samples.slice(1).map((sample, index) => {
    const before = samples[index];
    const wall = sample.wall_seconds - before.wall_seconds;
    return wall > 0 ? Math.max(0, (sample.cpu_seconds - before.cpu_seconds) / wall) : 0;
  });
}

function Line({ points, label }) {
  if (points.length < 2) return null;
  const top = Math.max(1, ...points);
  const at = points.map((point, index) =>
    `${((index * WIDTH) / (points.length - 1)).toFixed(1)},${(HEIGHT - (point / top) * HEIGHT).toFixed(1)}`);
  return html`<svg class="spark" viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} width=${WIDTH} height=${HEIGHT}
    role="img" aria-label=${label}><polyline points=${at.join(" ")} /></svg>`;
}
