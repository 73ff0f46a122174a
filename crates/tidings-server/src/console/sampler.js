// Reads the metrics every two seconds while the page is visible, and keeps five minutes of figures, whatever view is
// shown.

import { callForText, isFinal } from "./api.js";
import { growth, quantile, readMetrics, sum } from "./metrics.js";
import { poll } from "./poll.js";
import { session } from "./session.js";

const PAUSE_MS = 2000;
export const SPAN_MS = 5 * 60_000;
/** A quantile needs more observations than two seconds have. */
const QUANTILE_MS = 20_000;
/** Older readings are not compared with: the page was hidden, or the instance was away. */
const MAX_GAP_MS = 5 * PAUSE_MS;

/** Whether the metrics are not for this caller. A proxy may keep them for itself. */
export const isRefused = (error) => isFinal(error) || error.status === 403 || error.status === 404;

const failed = ({ error_type: error }) => error !== undefined && error !== "";

/** What is drawn, of two readings that follow one another, and of one some seconds before. */
const FIGURES = {
  accepted: (rate) => rate("tidings_notification_accepted_total"),
  live: (rate) => rate("tidings_notification_delivered_total"),
  attempts: (rate) => rate("tidings_attempt_duration_seconds_count", (labels) => !failed(labels)),
  failures: (rate) => rate("tidings_attempt_duration_seconds_count", failed),
  acceptP50: (_, quantile) => quantile("tidings_accept_duration_seconds", 0.5),
  acceptP99: (_, quantile) => quantile("tidings_accept_duration_seconds", 0.99),
  attemptP50: (_, quantile) => quantile("tidings_attempt_duration_seconds", 0.5),
  attemptP99: (_, quantile) => quantile("tidings_attempt_duration_seconds", 0.99),
  streams: (_, __, now) => now("tidings_subscription_active"),
  connections: (_, __, now) => now("tidings_server_connections"),
  pending: (_, __, now) => now("tidings_webhooks_deliveries_pending"),
  inFlight: (_, __, now) => now("tidings_delivery_in_flight"),
  lag: (_, __, now) => now("tidings_webhooks_fan_out_lag"),
  lagAge: (_, __, now) => now("tidings_webhooks_fan_out_lag_duration_seconds"),
};

const readings = [];
const samples = [];
const listeners = new Set();
let running;
let problem;

async function read() {
  const at = performance.now();
  // It goes on while the machine sleeps.
  const clock = Date.now();
  const { entry } = session;
  const metrics = readMetrics(await callForText("GET", "/metrics"));
  if (session.entry !== entry) return;
  const instance = metrics.get("tidings_server_info")?.[0].labels.tidings_instance;
  // Behind a load balancer another instance may reply each time. Its counters are its own.
  const isSame = (reading) => reading.instance === instance;
  const before = readings.findLast(isSame);
  readings.push({ at, clock, instance, metrics });
  while (readings[0].at < at - QUANTILE_MS) readings.shift();
  const isGap = before === undefined || Math.max(at - before.at, clock - before.clock) > MAX_GAP_MS;
  const seconds = isGap ? 1 : (at - before.at) / 1000;
  const rate = (name, where) => (isGap ? null : growth(sum(before.metrics, name, where), sum(metrics, name, where)) / seconds);
  const past = (name, share) => (isGap ? null : quantile(readings.find(isSame).metrics, metrics, name, share));
  const now = (name) => sum(metrics, name);
  const sample = { at };
  for (const [name, figure] of Object.entries(FIGURES)) sample[name] = figure(rate, past, now);
  samples.push(sample);
  while (samples[0].at < at - SPAN_MS) samples.shift();
}

/** The names of the instances that have replied lately. */
const instances = () => [...new Set(readings.map(({ instance }) => instance))];

const tell = () => listeners.forEach((listener) => listener(samples, readings.at(-1)?.metrics, problem, instances()));

/**
 * Calls the listener with the samples, the last reading, the last error and the instances that have replied, now and
 * after each reading.
 */
export function follow(listener) {
  listeners.add(listener);
  running ??= poll(PAUSE_MS, read, (error) => {
    problem = error;
    tell();
    // A caller who may not read the metrics is not asked again and again.
    if (error !== undefined && isRefused(error)) stopSampling();
  });
  listener(samples, readings.at(-1)?.metrics, problem, instances());
  return () => listeners.delete(listener);
}

function stopSampling() {
  running?.stop();
  running = undefined;
  readings.length = samples.length = 0;
}

/** Forgets everything, for another caller. */
export function forget() {
  stopSampling();
  problem = undefined;
}
