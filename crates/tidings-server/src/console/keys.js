// API keys that are kept in the database.

import { call, postOnce } from "./api.js";
import { ask, confirm, field, line, showSecret, tick } from "./dialog.js";
import { button, confirmDone, make, showRows } from "./dom.js";
import { TIME_ZONE, fullTime, time } from "./format.js";
import { poll, problemIn } from "./poll.js";
import { now } from "./server-clock.js";

const PAUSE_MS = 10_000;

const SCOPES = [
  ["publish", "publish: send notifications"],
  ["read", "read: inboxes, streams, presence"],
  ["endpoints", "endpoints: endpoints and deliveries"],
  ["metrics", "metrics: read the metrics"],
  ["admin", "admin: make keys, and so everything"],
];

/** One that has expired is listed for some days more. */
const hasExpired = ({ expires_at: expires }) => expires !== null && Date.parse(expires) <= now();

async function create() {
  let made;
  const fields = [
    field("Name", line("name", { required: true, maxlength: 100, placeholder: "shop", autofocus: true }), "what the key is for"),
    make("fieldset", {}, make("legend", {}, "Scopes"), SCOPES.map(([name, words]) => tick("scopes", words, false, name))),
    field("Expires", make("input", { name: "expires_at", type: "datetime-local" }), `in the time zone ${TIME_ZONE}; never, if it is empty`),
  ];
  const submit = async ({ name, scopes, expires_at: expires }) => {
    const chosen = [...scopes].filter(({ checked }) => checked).map(({ value }) => value);
    const body = { name: name.value, scopes: chosen };
    if (expires.value !== "") body.expires_at = new Date(expires.value).toISOString();
    made = await postOnce("/v1/keys", body);
  };
  if (!(await ask("New API key", fields, "Create", submit))) return;
  await showSecret("The new API key", `The key “${made.name}”. The server does not show it again.`, made.key);
}

export function open(root) {
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const body = make("tbody");
  const table = make("div", { class: "scroll", hidden: true }, make("table", {},
    make("thead", {}, make("tr", {}, ["Key", "Scopes", "Last used", "Expires", ""].map((words) => make("th", { scope: "col" }, words)))), body));
  const empty = make("p", { class: "empty" }, "Loading …");
  const add = button("New key", async () => {
    await create();
    await polled.refresh();
  }, { kind: "primary", id: "new-key" });
  root.append(
    make("header", { class: "head" }, make("h1", {}, "API keys"), make("span", { class: "actions" }, add)),
    problem,
    make("section", { class: "card" }, make("p", { class: "soft" }, "Keys of the database. Those of the configuration are not listed."), empty, table),
  );

  async function revoke({ id, name }) {
    const text = `Requests with the key “${name}” are refused from now on, and its streams end. This cannot be undone.`;
    if (!(await confirm("Revoke the key?", text, "Revoke", () => call("DELETE", `/v1/keys/${encodeURIComponent(id)}`)))) return;
    if (root.isConnected) confirmDone(`The key “${name}” is revoked`);
    await polled.refresh();
  }

  const polled = poll(PAUSE_MS, async () => {
    const { data } = await call("GET", "/v1/keys");
    empty.hidden = data.length > 0;
    empty.textContent = "There is no key.";
    table.hidden = data.length === 0;
    showRows(body, data.map((key) => make("tr", { "data-id": key.id },
      make("td", {}, make("span", { class: "main" }, key.name), make("div", { class: "soft" }, `${key.prefix}…`)),
      make("td", {}, make("div", { class: "chips" }, key.scopes.map((scope) => make("span", { class: "chip" }, scope)))),
      make("td", { "data-label": "Last used" }, key.last_used_at === null ? make("span", { class: "soft" }, "never") : time(key.last_used_at)),
      make("td", { class: "wraps", "data-label": "Expires" }, key.expires_at === null ? make("span", { class: "soft" }, "never") : fullTime(key.expires_at), hasExpired(key) && make("span", { class: "chip", "data-state": "failed" }, "expired")),
      make("td", { class: "number" }, button("Revoke", () => revoke(key), { kind: "danger quiet", "aria-label": `Revoke ${key.name}` })))));
  }, problemIn(problem));
  return polled.stop;
}
