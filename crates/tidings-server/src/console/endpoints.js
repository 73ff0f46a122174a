// The endpoints of the operator or of a user, with their health.

import { call, endpointsOf, postOnce } from "./api.js";
import { ask, field, line, showSecret } from "./dialog.js";
import { button, make, showRows } from "./dom.js";
import { fieldsOf, settingsOf } from "./endpoint-form.js";
import { count, time } from "./format.js";
import { poll, problemIn } from "./poll.js";
import { session } from "./session.js";

const PAUSE_MS = 5000;
const COLUMNS = ["Endpoint", "State", "Waiting", "Success", "Last success", "Last failure"];
/** Healths are asked for one by one, a few at a time. */
const AT_ONCE = 6;
/** So many are renewed each time: with hundreds of endpoints, all would be dozens of requests per second. */
const RENEWED = 20;

/** The state of an endpoint in a word, and how it is colored. */
export function stateOf({ enabled, disabled_because: because, health }) {
  if (!enabled) return ["disabled", "idle", because];
  if (health?.circuit === "open") return ["circuit open", "failed", "Most requests failed lately: nothing is sent for a while"];
  if (health?.circuit === "half_open") return ["probing", "waiting", "The circuit was open; the first requests go through"];
  return ["enabled", "live", undefined];
}

export function stateChip(endpoint) {
  const [words, state, why] = stateOf(endpoint);
  return make("span", { class: "chip", "data-state": state, title: why }, words);
}

export const rateText = (rate) => (rate === null || rate === undefined ? "–" : `${(rate * 100).toFixed(rate > 0.99 && rate < 1 ? 2 : 0)} %`);

export const addressOf = (user, id) => `#/endpoints/${encodeURIComponent(id)}${user ? `?user=${encodeURIComponent(user)}` : ""}`;

/** Adds their healths: those that are not known yet, and of the others those that were asked for first. */
async function withHealth(user, endpoints, known, isShown) {
  const askedAt = ({ id }) => known.get(id)?.askedAt ?? 0;
  const byAge = endpoints.toSorted((one, other) => askedAt(one) - askedAt(other));
  const due = byAge.filter((endpoint, place) => place < RENEWED || !known.has(endpoint.id)).values();
  const work = async () => {
    for (const { id } of due) {
      if (!isShown()) throw new Error("the view is closed");
      // One that was removed meanwhile, or that the server has refused to tell, stays as it was.
      const health = await call("GET", `${endpointsOf(user)}/${id}`).then(({ health }) => health, () => known.get(id)?.health);
      known.set(id, { health, askedAt: performance.now() });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return endpoints.map((endpoint) => ({ ...endpoint, health: known.get(endpoint.id).health }));
}

async function create(user, isShown) {
  let made;
  const submit = async (elements) => {
    const { secret } = elements;
    const body = settingsOf(elements);
    if (secret.value.trim() !== "") body.secret = secret.value.trim();
    for (const [name, value] of Object.entries(body)) if (value === null) delete body[name];
    made = await postOnce(endpointsOf(user), body);
  };
  if (!(await ask("New endpoint", fieldsOf(undefined), "Create", submit))) return;
  await showSecret("The secret of the endpoint", "The receiver verifies requests with it. The server does not show it again.", made.secret);
  if (isShown()) location.hash = addressOf(user, made.id);
}

export function open(root, query) {
  const user = session.user ?? query.get("user") ?? "";
  const path = endpointsOf(user);
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const body = make("tbody");
  const table = make("table", { hidden: true },
    make("thead", {}, make("tr", {}, COLUMNS.map((words) => make("th", { scope: "col" }, words)))), body);
  const empty = make("p", { class: "empty" }, "Loading …");

  const owner = line("user", { value: user, placeholder: "the operator", "aria-label": "Owner", maxlength: 255 });
  const byOwner = make("form", { class: "inline" }, field("Endpoints of the user", owner), make("button", { class: "quiet" }, "Show"));
  byOwner.addEventListener("submit", (event) => {
    event.preventDefault();
    const name = owner.value.trim();
    location.hash = name === "" ? "#/endpoints" : `#/endpoints?user=${encodeURIComponent(name)}`;
  });

  root.append(
    make("header", { class: "head" }, make("h1", {}, "Endpoints"), make("span", { class: "actions" }, button("New endpoint", () => create(user, () => root.isConnected), { kind: "primary", id: "new-endpoint" }))),
    problem,
    make("section", { class: "card" }, session.user === undefined && byOwner, empty, make("div", { class: "scroll" }, table)),
  );

  const ofUser = user === session.user ? "You have no endpoint." : `${user} has no endpoint.`;
  const nothing = user === "" ? "The operator has no endpoint. Endpoints of the operator get the events of all users." : ofUser;
  const known = new Map();
  const polled = poll(PAUSE_MS, async () => {
    const { data } = await call("GET", path);
    const endpoints = await withHealth(user, data, known, () => root.isConnected);
    table.hidden = endpoints.length === 0;
    empty.hidden = endpoints.length > 0;
    empty.textContent = nothing;
    showRows(body, endpoints.map((endpoint) => rowOf(user, endpoint)));
  }, problemIn(problem));
  return polled.stop;
}

function rowOf(user, endpoint) {
  const { id, url, description, event_types: types, health } = endpoint;
  return make("tr", { "data-id": id },
    make("td", {}, make("a", { href: addressOf(user, id), class: "main" }, description || url), make("div", { class: "soft pair" }, description && make("span", {}, url), types.length > 0 && make("span", {}, types.join(", ")))),
    make("td", {}, stateChip(endpoint)),
    ...[health ? count(health.pending) : "–", rateText(health?.success_rate), time(health?.last_success_at), time(health?.last_failure_at)]
      .map((value, index) => make("td", { class: "number", "data-label": COLUMNS[index + 2] }, value)));
}
