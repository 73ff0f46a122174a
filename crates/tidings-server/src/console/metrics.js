// Reads the text format of Prometheus, and makes figures of what changed between two readings.

const LINE = /^([a-z_]+)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-z_]+)="((?:[^"\\]|\\.)*)"/g;

/** The values of each metric: a list of labels and number, by name. */
export function readMetrics(text) {
  const metrics = new Map();
  for (const line of text.split("\n")) {
    const found = LINE.exec(line);
    if (found === null) continue;
    const [, name, labels = "", value] = found;
    const rows = metrics.get(name) ?? [];
    rows.push({ labels: Object.fromEntries([...labels.matchAll(LABEL)].map(([, key, text]) => [key, text])), value: Number(value) });
    metrics.set(name, rows);
  }
  return metrics;
}

/** The sum of a metric over all labels that `where` accepts; 0 if there is nothing to count yet. */
export function sum(metrics, name, where = () => true) {
  return (metrics.get(name) ?? []).filter(({ labels }) => where(labels)).reduce((sum, { value }) => sum + value, 0);
}

/** How much a counter has grown. A server that has restarted counts from 0. */
export const growth = (before, after) => (after >= before ? after - before : after);

/** The counts of a histogram by upper bound, over all other labels. */
function buckets(metrics, name) {
  const counts = new Map();
  for (const { labels, value } of metrics.get(`${name}_bucket`) ?? []) {
    const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
    counts.set(bound, (counts.get(bound) ?? 0) + value);
  }
  return [...counts].sort(([a], [b]) => a - b);
}

/**
 * The value below which a share of what was observed between two readings lies, as Prometheus estimates it: linear
 * within a bucket. `null` if nothing was observed.
 */
export function quantile(before, after, name, share) {
  const earlier = new Map(buckets(before, name));
  const now = buckets(after, name);
  const total = now.at(-1)?.[1] ?? 0;
  const wasReset = total < (earlier.get(Infinity) ?? 0);
  const grown = now.map(([bound, count]) => [bound, wasReset ? count : count - (earlier.get(bound) ?? 0)]);
  const rank = (grown.at(-1)?.[1] ?? 0) * share;
  if (rank <= 0) return null;
  let [lower, below] = [0, 0];
  for (const [bound, count] of grown) {
    if (count >= rank) return bound === Infinity ? lower : lower + ((bound - lower) * (rank - below)) / (count - below);
    [lower, below] = [bound, count];
  }
  return lower;
}
