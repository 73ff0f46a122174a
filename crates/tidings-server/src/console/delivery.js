// One delivery: what was sent, every attempt, and what came back.

import { call, deliveryPath, isFinal, postOnce } from "./api.js";
import { findEndpoint, isDue, stateChip } from "./deliveries.js";
import { button, confirmDone, make, nameView, retire, showFacts, showRows } from "./dom.js";
import { addressOf } from "./endpoints.js";
import { duration, fullTime, time } from "./format.js";
import { poll, problemIn } from "./poll.js";

const PAUSE_MS = 2000;

export function open(root, id) {
  const path = deliveryPath(id);
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const heading = make("h1", {}, "Delivery");
  const state = make("span");
  const facts = make("dl", { class: "facts" });
  const format = make("p", { class: "soft" }, "As it is sent in the present format of the endpoint.");
  const sent = make("pre", { id: "message" }, "Loading …");
  const attempts = make("ol", { class: "items", id: "attempts" });
  const none = make("p", { class: "empty" }, "Loading …");
  const retry = button("Send again", async () => {
    await postOnce(`${path}/retry`);
    if (root.isConnected) confirmDone("It is sent again");
    await polled.refresh();
  }, { kind: "primary", id: "retry", hidden: true });

  root.append(
    make("header", { class: "head" }, heading, state, make("span", { class: "actions" }, retry)),
    problem,
    make("section", { class: "card" }, facts),
    make("section", { class: "card" }, make("h2", {}, "What came back"), none, attempts),
    make("section", { class: "card" }, make("h2", {}, "Body"), format, sent),
  );

  let isLoaded = false;
  /** It is loaded once. */
  async function loadMessage() {
    try {
      const { body } = await call("GET", `${path}/message`);
      sent.textContent = body;
    } catch (error) {
      if (!isFinal(error)) throw error;
      sent.textContent = error.message;
    }
    isLoaded = true;
  }

  let endpoint;
  const polled = poll(PAUSE_MS, async () => {
    let delivery = await call("GET", path);
    const { data } = await call("GET", `${path}/attempts`);
    // One has ended between the two requests.
    if ((data.at(-1)?.number ?? 0) > delivery.attempts) delivery = await call("GET", path);
    nameView(heading, delivery.type || delivery.id);
    state.replaceChildren(stateChip(delivery.state));
    endpoint ??= await findEndpoint(delivery);
    // Nothing can be sent to it any more, in any format.
    if (endpoint?.isRemoved) retire(retry, facts.querySelector("a"));
    else retry.hidden = false;
    format.hidden = endpoint?.isRemoved ?? false;
    const { reason, next_attempt_at: next, finished_at: finished, user_id: user } = delivery;
    const rows = [
      ["Endpoint", make("a", { href: addressOf(user, delivery.endpoint_id) }, endpoint?.name ?? delivery.endpoint_id)],
      ["webhook-id", delivery.message_id || "–"],
      ["Id", delivery.id],
      ["Made", fullTime(delivery.created_at)],
      finished === null ? ["Next attempt", next === null ? "not known" : isDue(next) ? "due" : time(next)] : ["Ended", fullTime(finished)],
      ...(reason ? [["Reason", reason]] : []),
    ];
    showFacts(facts, rows);
    none.hidden = data.length > 0;
    none.textContent = "No attempt was made.";
    showRows(attempts, data.toReversed().map(attemptOf));
    if (!isLoaded) await loadMessage();
  }, problemIn(problem));
  return polled.stop;
}

function attemptOf({ number, started_at: started, duration_ms: took, status, error, response }) {
  const isGood = status !== null && status >= 200 && status < 300;
  return make("li", { "data-id": number },
    make("div", { class: "item-head" },
      make("span", { class: "type" }, `Attempt ${number}`),
      make("span", { class: "chip", "data-state": isGood ? "live" : "failed" }, status ?? "no response"),
      make("span", { class: "soft" }, duration(took / 1000)), fullTime(started)),
    error && make("p", { class: "error" }, error),
    response ? make("pre", {}, response) : !error && make("p", { class: "soft" }, "The response had no body."));
}
