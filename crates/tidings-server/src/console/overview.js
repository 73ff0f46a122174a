// The overview: what the server does, over time.

import { chart } from "./chart.js";
import { make } from "./dom.js";
import { count, duration, sentence, short } from "./format.js";
import { sum } from "./metrics.js";
import { follow, isRefused } from "./sampler.js";
import { session } from "./session.js";

export const title = "Overview";

const CHARTS = [
  ["Notifications per second", [{ name: "accepted", words: "accepted" }, { name: "live", words: "live to screens" }], short],
  ["Webhook requests per second", [{ name: "attempts", words: "succeeded" }, { name: "failures", words: "failed" }], short],
  ["Time to accept", [{ name: "acceptP50", words: "p50" }, { name: "acceptP99", words: "p99" }], duration],
  ["Time of a webhook request", [{ name: "attemptP50", words: "p50" }, { name: "attemptP99", words: "p99" }], duration],
  ["Open streams", [{ name: "streams", words: "streams" }, { name: "connections", words: "connections" }], short],
  ["Waiting to become deliveries", [{ name: "lag", words: "messages" }], short],
  ["Wait to become a delivery", [{ name: "lagAge", words: "oldest" }], duration],
  ["Webhooks under way", [{ name: "pending", words: "pending" }, { name: "inFlight", words: "in flight" }], short],
];

const is = (state) => (labels) => labels.state === state;

const TOTALS = [
  ["Accepted", (metrics) => sum(metrics, "tidings_notification_accepted_total")],
  ["Live to screens", (metrics) => sum(metrics, "tidings_notification_delivered_total")],
  ["Webhooks delivered", (metrics) => sum(metrics, "tidings_webhooks_deliveries_ended_total", is("delivered"))],
  ["Webhooks failed", (metrics) => sum(metrics, "tidings_webhooks_deliveries_ended_total", is("failed"))],
  ["Endpoints disabled for failing", (metrics) => sum(metrics, "tidings_webhooks_endpoints_disabled_total")],
  ["Gaps", (metrics) => sum(metrics, "tidings_subscription_gaps_total")],
  ["Streams refused", (metrics) => sum(metrics, "tidings_server_streams_refused_total")],
  ["Database failures", (metrics) => sum(metrics, "tidings_server_database_failed_total")],
];

/** How to see something, until something was accepted. */
function firstSteps() {
  const key = session.credential === "" ? "" : `     -H "Authorization: Bearer $TIDINGS_API_KEY" \\\n`;
  const command = `curl -d '{"user_id":"anna","type":"greeting","payload":{"text":"Hello"}}' \\\n${key}     ${location.origin}/v1/notifications`;
  const page = session.may("read") && [", or from the page of ", make("a", { href: "#/users/anna" }, "the user anna"), ", where it appears at once"];
  const how = session.may("publish") && [make("p", {}, "Send a notification from a terminal", page, ":"), make("pre", {}, command)];
  return make("section", { class: "card first" }, make("h2", {}, "Nothing was accepted since the start of the instance"), how);
}

export function open(root) {
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const charts = CHARTS.map(([name, series, format]) => chart(name, series, format));
  const totals = TOTALS.map(([words]) => ({ words, value: make("dd", {}, "–") }));
  const start = firstSteps();
  start.hidden = true;
  const source = make("p", { class: "soft", id: "source" }, "of the instance that replies, while this page is open");
  const figures = [
    make("div", { class: "charts" }, charts.map(({ element }) => element)),
    make("section", { class: "card" },
      make("h2", {}, "Since the start of the instance"),
      make("dl", { class: "totals" }, totals.map(({ words, value }) => make("div", {}, make("dt", {}, words), value)))),
  ];
  root.append(make("header", { class: "head" }, make("h1", {}, title), source), problem, start, ...figures);
  return follow((samples, metrics, error, instances) => {
    problem.hidden = error === undefined;
    const isForOthers = error !== undefined && isRefused(error);
    for (const element of [source, ...figures]) element.hidden = isForOthers;
    if (error !== undefined) {
      problem.textContent = isForOthers ? `This view is not for you: ${error.message}.` : `${sentence(error.message)} Trying again.`;
    }
    if (metrics === undefined) return;
    source.textContent = instances.length > 1
      ? `${count(instances.length)} instances reply here in turn: each point is of one of them. What waits to become deliveries, and what is pending, is of all.`
      : `of the instance ${instances[0] ?? ""}, while this page is open. What waits to become deliveries, and what is pending, is of all instances.`;
    for (const { update } of charts) update(samples);
    totals.forEach(({ value }, index) => {
      value.textContent = count(TOTALS[index][1](metrics));
    });
    start.hidden = sum(metrics, "tidings_notification_accepted_total") > 0;
  });
}
