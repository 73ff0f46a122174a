// Deliveries: one event to one endpoint, and how it went.

import { call, deliveryPath, endpointsOf, listDeliveries } from "./api.js";
import { choice } from "./dialog.js";
import { button, make, showRows } from "./dom.js";
import { addressOf } from "./endpoints.js";
import { counted, time } from "./format.js";
import { poll, problemIn } from "./poll.js";
import { session } from "./session.js";

const PAUSE_MS = 3000;
const PAGE = 50;
const STATES = [["", "every state"], ["pending", "pending"], ["delivered", "delivered"], ["failed", "failed"], ["cancelled", "cancelled"]];
const COLORS = { pending: "waiting", delivered: "live", failed: "failed", cancelled: "idle" };

export const stateChip = (state) => make("span", { class: "chip", "data-state": COLORS[state] }, state);

/** Whether the time of the next attempt has come: it waits for its turn, or for a circuit to close. */
export const isDue = (next) => next !== null && Date.parse(next) <= Date.now();

/** What went wrong in the last attempt of a delivery, if it failed. */
export async function lastError({ id, attempts, state, reason }) {
  if (reason) return reason;
  if (attempts === 0 || state === "delivered") return undefined;
  const { data } = await call("GET", `${deliveryPath(id)}/attempts`).catch(() => ({ data: [] }));
  const last = data.at(-1);
  if (last === undefined) return undefined;
  return last.error ?? (last.status >= 300 ? `status ${last.status}${last.response ? `: ${last.response.slice(0, 120)}` : ""}` : undefined);
}

/** Fills the rows of a table. With the names of endpoints, each row has its endpoint. */
export async function rowsOf(body, deliveries, { hasErrors = false, names } = {}) {
  const errors = await Promise.all(deliveries.map((delivery) => (hasErrors ? lastError(delivery) : delivery.reason)));
  showRows(body, deliveries.map((delivery, index) => rowOf(delivery, errors[index], names)));
}

function rowOf({ id, type, endpoint_id: endpoint, user_id: user, state, attempts, next_attempt_at: next, created_at: created, finished_at: finished }, error, names) {
  const when = make("span", {}, state !== "pending" ? ["ended ", time(finished)] : isDue(next) ? "due now" : ["next ", time(next)]);
  return make("tr", { "data-id": id },
    make("td", {}, make("a", { href: `#/deliveries/${id}`, class: "main" }, type || id), names && make("div", { class: "soft" }, make("a", { href: addressOf(user, endpoint) }, names.get(endpoint) ?? endpoint), user && ` of ${user}`), error && make("div", { class: "error" }, error)),
    make("td", {}, stateChip(state)),
    make("td", { class: "number" }, counted(attempts, "attempt")),
    make("td", {}, make("span", {}, "made ", time(created))),
    make("td", {}, when));
}

/** The endpoints that a delivery may be to, as far as the caller can list them. */
async function endpointNames() {
  const { data } = await call("GET", endpointsOf(session.user));
  return new Map(data.map(({ id, description, url }) => [id, description || url]));
}

export function open(root, query) {
  const chosen = { endpoint: query.get("endpoint") ?? "", state: query.get("state") ?? "" };
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const filters = make("form", { class: "filters" });
  const body = make("tbody");
  const table = make("div", { class: "scroll", hidden: true }, make("table", {}, body));
  const empty = make("p", { class: "empty" }, "Loading …");
  let shown = PAGE;
  const more = button("Load more", async () => {
    shown += PAGE;
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
    const go = () => {
      const wanted = new URLSearchParams(Object.entries({ endpoint: endpoint.value, state: state.value }).filter(([, value]) => value !== ""));
      location.hash = `#/deliveries${wanted.size > 0 ? `?${wanted}` : ""}`;
    };
    endpoint.addEventListener("change", go);
    state.addEventListener("change", go);
    filters.replaceChildren(endpoint, state);
  }

  async function load() {
    const found = [];
    let cursor = null;
    do {
      const limit = String(Math.min(500, shown - found.length));
      const page = await listDeliveries(chosen.endpoint, { limit, ...(chosen.state ? { state: chosen.state } : {}), ...(cursor ? { cursor } : {}) });
      found.push(...page.data);
      cursor = page.next;
    } while (cursor !== null && found.length < shown);
    return { found, hasMore: cursor !== null };
  }

  const polled = poll(PAUSE_MS, async () => {
    if (names === undefined) {
      names = await endpointNames();
      // A user sees the deliveries of one endpoint at a time.
      if (session.user !== undefined && chosen.endpoint === "") chosen.endpoint = [...names.keys()][0] ?? "";
      showFilters();
    }
    const hasNone = session.user !== undefined && chosen.endpoint === "";
    const { found, hasMore } = hasNone ? { found: [], hasMore: false } : await load();
    empty.hidden = found.length > 0;
    empty.textContent = hasNone ? "You have no endpoint." : `There is no ${chosen.state === "" ? "" : `${chosen.state} `}delivery.`;
    table.hidden = found.length === 0;
    more.hidden = !hasMore;
    await rowsOf(body, found, { names });
  }, problemIn(problem));
  return polled.stop;
}
