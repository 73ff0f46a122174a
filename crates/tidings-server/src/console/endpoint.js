// One endpoint: its health, its settings, what was sent to it last, and what can be done with it.

import { call, endpointsOf, listDeliveries, part, postOnce } from "./api.js";
import { ask, confirm, field, line, showSecret } from "./dialog.js";
import { button, confirmDone, goTo, make, nameView, retire, showFacts } from "./dom.js";
import { changesOf, fieldsOf, numberOf, settingsOf } from "./endpoint-form.js";
import { rateText, stateChip, stateOf } from "./endpoints.js";
import { TIME_ZONE, count, counted, fullTime, time } from "./format.js";
import { errorOfFailure, rowsOf } from "./deliveries.js";
import { poll, problemIn } from "./poll.js";
import { now } from "./server-clock.js";
import { session } from "./session.js";

/** The server says it in milliseconds. */
const MAX_OVERLAP_HOURS = 720;

/** Hours as milliseconds. An empty field is no number: with an overlap of zero the old secret would end at once. */
function millisOf({ name, value }) {
  const hours = value.trim().replace(",", ".");
  if (!/^\d+(\.\d+)?$/.test(hours)) {
    throw Object.assign(new Error("expected a number of hours, such as 24 or 0.5"), { field: name });
  }
  if (Number(hours) > MAX_OVERLAP_HOURS) throw Object.assign(new Error(`expected at most ${MAX_OVERLAP_HOURS} (30 days)`), { field: name });
  return Math.round(Number(hours) * 3_600_000);
}

const PAUSE_MS = 2000;
/** The last failure is sought among so many deliveries, the newest. */
const MAX_SEARCHED = "500";

export function open(root, id, query) {
  const user = session.user ?? query.get("user") ?? "";
  const path = `${endpointsOf(user)}/${part(id)}`;
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const heading = make("h1", {}, "Endpoint");
  const state = make("span");
  const why = make("p", { class: "soft", hidden: true });
  const facts = make("dl", { class: "facts" });
  const settings = make("dl", { class: "settings" });
  const progress = make("progress");
  const progressText = make("span");
  const stop = button("Stop", () => after(call("DELETE", `${path}/replay`), "No replay is under way any more"), { id: "stop-replay" });
  const replaying = make("p", { id: "replay", class: "replay", hidden: true }, progress, progressText, stop);
  const deliveries = make("tbody");
  const none = make("p", { class: "empty" }, "Loading …");
  const table = make("div", { class: "scroll" }, make("table", {}, deliveries));
  let endpoint;
  /** The error of the last failure, if it is found, and the time of that failure. */
  let error;
  let errorAt = null;
  /** What a replay had to look at when this page first saw it. */
  let replayLength = 0;

  const after = async (request, done) => {
    await request;
    // The person may be in another view by now.
    if (done !== undefined && root.isConnected) confirmDone(done);
    polled.refresh();
  };

  async function sendTest() {
    const { delivery_id: delivery } = await postOnce(`${path}/test`);
    if (root.isConnected) location.hash = `#/deliveries/${delivery}`;
  }

  async function rotate() {
    let secret;
    const fields = [
      make("p", {}, "The endpoint gets a new secret. The old one signs too, until the overlap ends."),
      field("Overlap in hours", line("overlap_ms", { value: "24", inputmode: "numeric" })),
    ];
    const submit = async ({ overlap_ms: hours }) => {
      ({ secret } = await postOnce(`${path}/secret/rotate`, { overlap_ms: millisOf(hours) }));
    };
    if (await ask("Rotate the secret", fields, "Rotate", submit)) {
      await showSecret("The new secret", "The receiver verifies requests with it. The server does not show it again.", secret);
    }
  }

  async function replay() {
    const hourAgo = new Date(now() - 3_600_000 - new Date().getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
    const fields = [
      make("p", {}, "Sends what failed, was cancelled, or arrived while the endpoint was disabled. What was delivered is not sent again."),
      field("Since", make("input", { name: "since", type: "datetime-local", value: hourAgo, required: true }), `in the time zone ${TIME_ZONE}`),
      field("Until", make("input", { name: "until", type: "datetime-local" }), "everything, if it is empty"),
      field("Events per second, at most", line("per_second", { value: "10", inputmode: "numeric" })),
    ];
    const submit = async ({ since, until, per_second: rate }) => {
      if (since.value === "") throw Object.assign(new Error("expected a date and a time"), { field: "since" });
      const body = { since: new Date(since.value).toISOString(), per_second: numberOf(rate.value) };
      if (until.value !== "") body.until = new Date(until.value).toISOString();
      await postOnce(`${path}/replay`, body);
    };
    if (!(await ask("Replay", fields, "Replay", submit))) return;
    replayLength = 0;
    await after(undefined, "The replay has begun");
  }

  async function edit() {
    // Read from a form like the one that is shown, so that what the fields do to a value is no change.
    const begun = settingsOf(make("form", {}, fieldsOf(endpoint)).elements);
    const submit = async (elements) => {
      const changes = changesOf(elements, begun);
      return Object.keys(changes).length > 0 && call("PATCH", path, changes);
    };
    if (await ask("Edit the endpoint", fieldsOf(endpoint), "Save", submit)) await after(undefined, "Saved");
  }

  async function remove() {
    const text = `${endpoint.url} gets nothing any more, and what still waits for it (${count(endpoint.health.pending)}) is cancelled. This cannot be undone.`;
    if (!(await confirm("Delete the endpoint?", text, "Delete", () => call("DELETE", path))) || !root.isConnected) return;
    goTo(user && !session.user ? `#/endpoints?user=${encodeURIComponent(user)}` : "#/endpoints", "The endpoint is deleted");
  }

  async function switchOver() {
    const { enabled, url, health } = endpoint;
    const submit = () => call("PATCH", path, { enabled: !enabled });
    if (!enabled) return after(submit(), "Enabled. Replay sends what it has missed.");
    const text = `${url} gets nothing until it is enabled again, and what still waits for it (${count(health.pending)}) is cancelled. Replay can send that later.`;
    if (await confirm("Disable the endpoint?", text, "Disable", submit)) await after(undefined, "Disabled");
  }

  const toggle = button("Disable", switchOver, { id: "toggle" });
  const replayButton = button("Replay", replay, { id: "replay-button" });
  const needEnabled = [button("Send a test", sendTest, { id: "test" }), replayButton];
  const actions = make("div", { class: "actions wrap", hidden: true },
    needEnabled, button("Edit", edit, { id: "edit" }), button("Rotate secret", rotate, { id: "rotate" }), toggle, button("Delete", remove, { kind: "danger quiet", id: "delete" }));

  root.append(
    make("header", { class: "head" }, heading, state),
    problem, why, actions, replaying,
    make("section", { class: "card" }, make("h2", {}, "Health"), facts),
    make("section", { class: "card" },
      make("div", { class: "bar" }, make("h2", {}, "Last deliveries"), make("a", { href: `#/deliveries?endpoint=${encodeURIComponent(id)}`, class: "actions" }, "All of them")),
      none, table),
    make("section", { class: "card" }, make("h2", {}, "Settings"), settings),
  );

  const polled = poll(PAUSE_MS, async () => {
    endpoint = await call("GET", path);
    const { health } = endpoint;
    nameView(heading, endpoint.description || endpoint.url);
    state.replaceChildren(stateChip(endpoint));
    const [, , reason] = stateOf(endpoint);
    why.hidden = reason === undefined || reason === null;
    why.textContent = reason ?? "";
    actions.hidden = false;
    toggle.textContent = endpoint.enabled ? "Disable" : "Enable";
    for (const needs of needEnabled) needs.hidden = !endpoint.enabled;
    if (errorAt !== health.last_failure_at) {
      error = undefined;
      try {
        const { data } = await listDeliveries(id, { limit: MAX_SEARCHED });
        error = await errorOfFailure(data, health.last_failure_at);
        errorAt = health.last_failure_at;
      } catch {
        // It is sought again with the next look.
      }
    }
    showFacts(facts, [
      ["Waiting", count(health.pending)],
      ["Success", rateText(health.success_rate)],
      ["Circuit", health.circuit === null ? "idle" : health.circuit.replace("_", " ")],
      ["Last success", time(health.last_success_at)],
      ["Last failure", time(health.last_failure_at)],
      ...(error === undefined ? [] : [["Last error", make("span", { class: "error" }, error)]]),
    ]);
    showReplay(health.replay ?? null);
    showFacts(settings, settingsTexts(endpoint));
    const { data } = await listDeliveries(id, { limit: "10" });
    none.hidden = data.length > 0;
    none.textContent = "There is no delivery to this endpoint.";
    table.hidden = data.length === 0;
    await rowsOf(deliveries, data, { hasErrors: true });
  }, problemIn(problem));

  function showReplay(replay) {
    if (replay === null) {
      replayLength = 0;
      return retire(replaying, replayButton.hidden ? toggle : replayButton);
    }
    replaying.hidden = false;
    replayLength = Math.max(replayLength, replay.remaining);
    progress.max = Math.max(replayLength, 1);
    progress.value = replayLength - replay.remaining;
    progressText.textContent = `Replaying: ${counted(replay.remaining, "event")} left to look at, at most ${count(replay.per_second)} per second`;
  }

  return polled.stop;
}

function settingsTexts(endpoint) {
  const { id, url, user_id: user, event_types: types, format, headers, signatures, rate_limit: rate, timeout_ms: timeout, schedule, created_at: created } = endpoint;
  const names = Object.entries(headers);
  return [
    ["URL", url],
    ["Id", id],
    ["Owner", user === null ? "the operator" : user === session.user ? "you" : user],
    ["Types of events", types.length === 0 ? "every type" : types.join(", ")],
    ["Body", format],
    ["Signatures", signatures.join(", ")],
    ["Headers", names.length === 0 ? "none" : names.map(([name, value]) => `${name}: ${value}`).join("\n")],
    ["Requests per second", rate === null ? "no limit" : count(rate)],
    ["Longest time for a request", timeout === null ? "that of the server" : `${count(timeout)} ms`],
    ["Waits before attempts", schedule === null ? "those of the server" : `${schedule.join(", ")} s`],
    ["Created", fullTime(created)],
  ];
}
