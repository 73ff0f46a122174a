// Request bins: addresses of this server that show the webhooks that they get.

import { call } from "./api.js";
import { confirm } from "./dialog.js";
import { button, confirmDone, make, showRows } from "./dom.js";
import { count, time } from "./format.js";
import { poll, problemIn } from "./poll.js";

const PAUSE_MS = 5000;
const COLUMNS = ["Bin", "Requests", "Replies with", "Made"];

/** Where a bin takes requests. */
export const urlOf = ({ path }) => `${location.origin}${path}`;

export const REMOVED = "The bin is deleted";

/** Deletes a bin, if the person is sure. Resolves with whether it was done. */
export function remove({ id }) {
  const text = "Its address takes nothing any more, and what it has shown is gone.";
  return confirm("Delete the bin?", text, "Delete", () => call("DELETE", `/v1/bins/${id}`));
}

export function open(root) {
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const body = make("tbody");
  const table = make("div", { class: "scroll", hidden: true }, make("table", {},
    make("thead", {}, make("tr", {}, [...COLUMNS, ""].map((words) => make("th", { scope: "col" }, words)))), body));
  const empty = make("p", { class: "empty" }, "Loading …");
  const add = button("New bin", async () => {
    const { id } = await call("POST", "/v1/bins");
    if (root.isConnected) location.hash = `#/bins/${id}`;
  }, { kind: "primary", id: "new-bin" });
  root.append(
    make("header", { class: "head" }, make("h1", {}, "Request bins"), make("span", { class: "actions" }, add)),
    problem,
    make("section", { class: "card" },
      make("p", { class: "soft" }, "A bin has an address for webhooks, and shows what arrives there and whether its signature is valid. It is in the memory of this instance of the server, and ends a day after its last use."),
      empty, table),
  );

  const polled = poll(PAUSE_MS, async () => {
    const { data } = await call("GET", "/v1/bins");
    empty.hidden = data.length > 0;
    empty.textContent = "There is no bin.";
    table.hidden = data.length === 0;
    showRows(body, data.map((bin) => make("tr", { "data-id": bin.id },
      make("td", {}, make("a", { href: `#/bins/${bin.id}`, class: "main" }, urlOf(bin))),
      ...[count(bin.received), String(bin.status), time(bin.created_at)].map((value, index) => make("td", { class: "number", "data-label": COLUMNS[index + 1] }, value)),
      make("td", { class: "number" }, button("Delete", async () => {
        if (!(await remove(bin))) return;
        if (root.isConnected) confirmDone(REMOVED);
        await polled.refresh();
      }, { kind: "danger quiet", "aria-label": `Delete ${bin.id}` })))));
  }, problemIn(problem));
  return polled.stop;
}
