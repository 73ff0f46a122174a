// Deliveries: one event to one endpoint, and how it went.

import { call, deliveryPath, endpointsOf, isFinal, listDeliveries } from "./api.js";
import { choice } from "./dialog.js";
import { button, make, retire, showRows } from "./dom.js";
import { addressOf } from "./endpoints.js";
import { counted, time } from "./format.js";
import { keep, kept } from "./place.js";
import { poll, problemIn } from "./poll.js";
import { now } from "./server-clock.js";
import { session } from "./session.js";

const PAUSE_MS = 3000;
const PAGE = 50;
/** At most this many names of endpoints are asked for in one poll. */
const LEARNED = 10;
/** The attempts of at most this many deliveries are asked for to find a failure. */
const MAX_TRIED = 20;
/** How long after its end an attempt may be recorded, so that it counts as the one that was recorded at a time. */
const RECORDED_MS = 5000;
const STATES = [["", "every state"], ["pending", "pending"], ["delivered", "delivered"], ["failed", "failed"], ["cancelled", "cancelled"]];
const COLORS = { pending: "waiting", delivered: "live", failed: "failed", cancelled: "idle" };

export const stateChip = (state) => make("span", { class: "chip", "data-state": COLORS[state] }, state);

/** Whether the time of the next attempt has come. */
export const isDue = (next) => next !== null && Date.parse(next) <= now();

/** Enough of a response to recognise it. */
const cut = (text) => (text.length > 120 ? `${text.slice(0, 120)}…` : text);

/** What went wrong in an attempt, if it failed. */
const errorOf = ({ error, status, response }) => error ?? (status >= 300 ? `status ${status}${response ? `: ${cut(response)}` : ""}` : undefined);

/** What went wrong in the last attempt of a delivery, if it failed. Throws if the server does not tell now. */
async function lastError({ id, attempts, state, reason }) {
  // Why it waits says less than what went wrong.
  if (reason && (state !== "pending" || attempts === 0)) return reason;
  if (attempts === 0 || state === "delivered") return undefined;
  const { data } = await call("GET", `${deliveryPath(id)}/attempts`);
  const last = data.at(-1);
  return last && errorOf(last);
}

/**
 * What went wrong in the attempt whose failure was recorded at a time, as the health of an endpoint has it; `undefined` if
 * no attempt of these deliveries fits. Throws if the server does not tell now.
 */
export async function errorOfFailure(deliveries, failedAt) {
  const at = Date.parse(failedAt);
  const isRecordedBy = (ended) => ended >= at - RECORDED_MS;
  const hasFailed = ({ attempts, state }) => attempts > (state === "delivered" ? 1 : 0);
  const isAsLong = ({ created_at: created, finished_at: finished }) => Date.parse(created) <= at && (finished === null || isRecordedBy(Date.parse(finished)));
  // One that has failed for good ended at that time.
  const isIt = ({ finished_at: finished }) => finished === failedAt;
  const tried = deliveries.filter((delivery) => hasFailed(delivery) && isAsLong(delivery)).toSorted((one, other) => isIt(other) - isIt(one));
  const pages = await Promise.all(tried.slice(0, MAX_TRIED).map(({ id }) => call("GET", `${deliveryPath(id)}/attempts`)));
  const endOf = ({ started_at: started, duration_ms: took }) => Date.parse(started) + took;
  // `Date.parse` cuts below a millisecond.
  const fits = (attempt) => errorOf(attempt) !== undefined && isRecordedBy(endOf(attempt)) && endOf(attempt) <= at + 1;
  const last = pages.flatMap(({ data }) => data.filter(fits)).toSorted((one, other) => endOf(one) - endOf(other)).at(-1);
  return last && errorOf(last);
}

/** Fills the rows of a table. With the names of endpoints, each row has its endpoint. */
export async function rowsOf(body, deliveries, { hasErrors = false, names } = {}) {
  const errors = await Promise.all(deliveries.map((delivery) => (hasErrors ? lastError(delivery).catch(() => undefined) : delivery.reason)));
  showRows(body, deliveries.map((delivery, index) => rowOf(delivery, errors[index], names)));
}

function rowOf({ id, message_id: message, type, endpoint_id: endpoint, user_id: user, state, attempts, next_attempt_at: next, created_at: created, finished_at: finished }, error, names) {
  const when = make("span", {}, state !== "pending" ? ["ended ", time(finished)] : next === null || isDue(next) ? "waits" : ["next ", time(next)]);
  return make("tr", { "data-id": id },
    make("td", {}, make("a", { href: `#/deliveries/${id}`, class: "main" }, type || id), names && make("div", { class: "soft" }, make("a", { href: addressOf(user, endpoint) }, names.get(endpoint) ?? endpoint), user && ` of ${user}`, message && ` · ${message}`), error && make("div", { class: "error" }, error)),
    make("td", {}, stateChip(state)),
    make("td", { class: "number" }, counted(attempts, "attempt")),
    make("td", {}, make("span", {}, "made ", time(created))),
    make("td", {}, when));
}

const nameOf = ({ description, url }) => description || url;

/**
 * The name of the endpoint of a delivery, and whether the endpoint was removed. One that the server does not tell has its id
 * for a name, or `undefined` while there is no reply.
 */
export async function findEndpoint({ endpoint_id: id, user_id: user }) {
  try {
    return { name: nameOf(await call("GET", `${endpointsOf(session.user ?? user)}/${id}`)), isRemoved: false };
  } catch (error) {
    if (!isFinal(error)) return undefined;
    return error.status === 404 ? { name: `${id} (removed)`, isRemoved: true } : { name: id, isRemoved: false };
  }
}

/** The endpoints that a delivery may be to, as far as the caller can list them. */
async function endpointNames() {
  const { data } = await call("GET", endpointsOf(session.user));
  return new Map(data.map((endpoint) => [endpoint.id, nameOf(endpoint)]));
}

/** Adds names of endpoints of users, which no list has. Returns those that are new. */
async function learnNames(names, deliveries) {
  const unknown = new Map(deliveries.filter(({ endpoint_id: id }) => !names.has(id)).map((delivery) => [delivery.endpoint_id, delivery]));
  const learned = await Promise.all([...unknown].slice(0, LEARNED).map(async ([id, delivery]) => [id, (await findEndpoint(delivery))?.name]));
  const known = learned.filter(([, name]) => name !== undefined);
  for (const [id, name] of known) names.set(id, name);
  return known;
}

export function open(root, query) {
  const chosen = { endpoint: query.get("endpoint") ?? "", state: query.get("state") ?? "" };
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const filters = make("form", { class: "filters" });
  const body = make("tbody");
  const table = make("div", { class: "scroll", hidden: true }, make("table", {}, body));
  const empty = make("p", { class: "empty" }, "Loading …");
  let { shown = PAGE } = kept();
  const more = button("Load more", async () => {
    shown += PAGE;
    keep({ shown });
    await polled.refresh();
  }, { hidden: true });

  root.append(make("header", { class: "head" }, make("h1", {}, "Deliveries")), problem, make("section", { class: "card" }, filters, empty, table, more));

  let names;
  function showFilters() {
    const all = session.user === undefined ? [["", "every endpoint"]] : [];
    const known = [...names];
    if (chosen.endpoint !== "" && !names.has(chosen.endpoint)) known.push([chosen.endpoint, chosen.endpoint]);
    const endpoint = choice("endpoint", [...all, ...known], chosen.endpoint);
    const state = choice("state", STATES, chosen.state);
    endpoint.setAttribute("aria-label", "Endpoint");
    state.setAttribute("aria-label", "State");
    // With the arrow keys, each option on the way is chosen for a moment; the view, and the focus in it, stays.
    const choose = () => {
      Object.assign(chosen, { endpoint: endpoint.value, state: state.value });
      const wanted = new URLSearchParams(Object.entries(chosen).filter(([, value]) => value !== ""));
      shown = PAGE;
      history.replaceState(null, "", `#/deliveries${wanted.size > 0 ? `?${wanted}` : ""}`);
      polled.refresh();
    };
    endpoint.addEventListener("change", choose);
    state.addEventListener("change", choose);
    filters.replaceChildren(endpoint, state);
  }

  async function load({ endpoint, state, shown }) {
    const found = [];
    let cursor = null;
    do {
      const limit = String(Math.min(500, shown - found.length));
      const page = await listDeliveries(endpoint, { limit, ...(state ? { state } : {}), ...(cursor ? { cursor } : {}) });
      found.push(...page.data);
      cursor = page.next;
    } while (cursor !== null && found.length < shown);
    return { found, hasMore: cursor !== null };
  }

  const polled = poll(PAUSE_MS, async () => {
    if (names === undefined) {
      const known = await endpointNames();
      // A user sees the deliveries of one endpoint at a time.
      if (session.user !== undefined && chosen.endpoint === "") chosen.endpoint = [...known.keys()][0] ?? "";
      if (session.user === undefined && chosen.endpoint !== "") await learnNames(known, (await listDeliveries(chosen.endpoint, { limit: "1" })).data);
      names = known;
      showFilters();
    }
    const wanted = { ...chosen, shown };
    const hasNone = session.user !== undefined && wanted.endpoint === "";
    const { found, hasMore } = hasNone ? { found: [], hasMore: false } : await load(wanted);
    // Something else was chosen meanwhile, and is asked for next.
    if (chosen.endpoint !== wanted.endpoint || chosen.state !== wanted.state) return;
    empty.hidden = found.length > 0;
    empty.textContent = hasNone ? "You have no endpoint." : `There is no ${wanted.state === "" ? "" : `${wanted.state} `}delivery.`;
    table.hidden = found.length === 0;
    const count = body.rows.length;
    await rowsOf(body, found, { names });
    if (hasMore) more.hidden = false;
    else retire(more, body.rows[count]?.querySelector("a") ?? filters.elements.state);
    const learned = await learnNames(names, found);
    if (learned.length === 0) return;
    const { options } = filters.elements.endpoint;
    for (const [value, name] of learned) {
      const option = [...options].find((option) => option.value === value);
      if (option === undefined) options.add(make("option", { value }, name));
      else option.textContent = name;
    }
    await rowsOf(body, found, { names });
  }, problemIn(problem));
  return polled.stop;
}
