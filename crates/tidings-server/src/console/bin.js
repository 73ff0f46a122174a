// One request bin: its address, what it replies, and the requests that it has got.

import { call, isFinal, part, postOnce } from "./api.js";
import { REMOVED, remove, urlOf } from "./bins.js";
import { ask, field, line } from "./dialog.js";
import { button, confirmDone, goTo, make, retire, sayFailed, showRows } from "./dom.js";
import { addressOf } from "./endpoints.js";
import { count, counted, fullTime, sentence } from "./format.js";
import { poll, problemIn } from "./poll.js";

const PAUSE_MS = 1000;
const REPLIES = [
  [200, "200: taken"], [204, "204: taken, without a body"], [400, "400: refused"], [410, "410: gone, which disables an endpoint"],
  [429, "429: too many requests"], [500, "500: failed"], [503, "503: not available"],
];

export function open(root, id) {
  const path = `/v1/bins/${part(id)}`;
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const address = make("input", { readonly: true, class: "secret", id: "bin-url", "aria-label": "Address of the bin", onfocus: () => address.select() });
  const secret = make("p", { class: "soft", id: "bin-secret" });
  const reply = make("select", { id: "bin-status", disabled: true }, REPLIES.map(([status, words]) => make("option", { value: status }, words)));
  reply.selectedIndex = -1;
  const head = make("h2", {}, "Requests");
  const none = make("p", { class: "empty" }, "Loading …");
  const requests = make("ol", { class: "items", id: "requests" });
  let bin;

  reply.addEventListener("change", async () => {
    const chosen = reply.value;
    try {
      await call("PATCH", path, { status: Number(chosen) });
      if (root.isConnected) confirmDone(`From now on it replies with ${chosen}`);
    } catch (error) {
      if (reply.value === chosen) reply.value = String(bin.status);
      if (root.isConnected) sayFailed(error.message);
    }
    polled.refresh();
  });

  async function connect() {
    const made = await postOnce("/v1/endpoints", { url: urlOf(bin), description: "Request bin" });
    const address = addressOf("", made.id);
    try {
      await call("PATCH", path, { secret: made.secret });
    } catch (error) {
      if (root.isConnected) goTo(address, `The endpoint is made. Its bin does not verify with its secret: ${error.message}.`, "failed");
      return;
    }
    if (root.isConnected) goTo(address, "The endpoint is made, and its bin verifies with its secret. Send a test to see it arrive.");
  }

  async function setSecret() {
    const fields = [field("Secret", line("secret", { placeholder: "whsec_…", autofocus: true }), "of the sender; empty to verify nothing. It stays in the memory of the server.")];
    const submit = ({ secret: typed }) => call("PATCH", path, { secret: typed.value.trim() || null });
    if (await ask("Verify with", fields, "Save", submit)) polled.refresh();
  }

  const connectButton = button("Make an endpoint that sends here", connect, { kind: "primary", id: "connect" });
  const guarded = make("p", { class: "soft", id: "guarded", hidden: true });
  const actions = make("div", { class: "actions wrap", hidden: true },
    connectButton,
    button("Set the secret", setSecret, { id: "set-secret" }),
    button("Delete", async () => {
      if ((await remove(bin)) && root.isConnected) goTo("#/bins", REMOVED);
    }, { kind: "danger quiet", id: "delete-bin" }));
  root.append(
    make("header", { class: "head" }, make("h1", {}, "Request bin")),
    actions, guarded, problem,
    make("section", { class: "card" }, field("Address", address), secret, field("It replies with", reply)),
    make("section", { class: "card" }, head, none, requests),
  );

  /** Says what the address guard of the server means for this bin, as far as the server knows. */
  function showGuard(isReachable) {
    if (isReachable === false) retire(connectButton, document.getElementById("set-secret"));
    else connectButton.hidden = false;
    guarded.hidden = isReachable === true;
    const place = isReachable === false
      ? `No endpoint can send here: this server sends to public addresses only, and ${location.hostname} is not public.`
      : `This server sends to public addresses only: an endpoint reaches this bin if the address of ${location.hostname} is public.`;
    guarded.textContent = `${place} The setting --webhook-private-addresses allows other addresses; it is for servers whose endpoints are all yours.`;
  }

  const polled = poll(PAUSE_MS, async () => {
    const { data, ...settings } = await call("GET", path);
    bin = settings;
    actions.hidden = reply.disabled = false;
    // A proxy may not pass on by which host people and endpoints call the server.
    showGuard(bin.reachable === false && bin.host !== location.host ? null : bin.reachable);
    address.value = urlOf(bin);
    secret.textContent = bin.has_secret ? "Requests are verified with the secret that was set." : "Nothing is verified: no secret is set.";
    showStatus(reply, bin.status);
    head.textContent = bin.received > data.length ? `Requests (the last ${count(data.length)} of ${count(bin.received)})` : "Requests";
    none.hidden = data.length > 0;
    none.textContent = "Nothing has come yet. Send a POST to the address above, or make an endpoint that does.";
    const opened = new Set([...requests.querySelectorAll("details[open]")].map((details) => details.closest("li").dataset.id));
    showRows(requests, data.map((request) => requestOf(request, opened.has(String(request.number)))));
    // Behind a load balancer, the next instance that replies may not have it.
  }, problemIn(problem, (error) => isFinal(error) && (error.status !== 404 || bin === undefined)));
  return polled.stop;
}

/** A status that was set elsewhere may not be among the choices. */
function showStatus(reply, status) {
  if (document.activeElement === reply) return;
  if (![...reply.options].some(({ value }) => value === String(status))) reply.append(make("option", { value: status }, String(status)));
  reply.value = String(status);
}

function requestOf({ number, received_at: at, headers, body, status, verified, reason }, isOpen) {
  const [words, state] = verified === null ? ["not verified", "idle"] : verified ? ["signature valid", "live"] : ["signature not valid", "failed"];
  return make("li", { "data-id": number },
    make("div", { class: "item-head" },
      make("span", { class: "type" }, `Request ${count(number)}`),
      make("span", { class: "chip", "data-state": state }, words),
      make("span", { class: "soft" }, `replied ${status}`), fullTime(at)),
    reason !== null && make("p", { class: "error" }, explain(reason)),
    make("pre", {}, body === "" ? "(no body)" : body),
    make("details", { open: isOpen }, make("summary", {}, counted(headers.length, "header")),
      make("pre", {}, headers.map(({ name, value }) => `${name}: ${value}`).join("\n"))));
}

/** What to do about a signature that is not valid. */
function explain(reason) {
  const said = sentence(reason);
  if (reason === "no signature matches") return `${said} The sender signs with another secret, or the body was changed on the way.`;
  if (reason.includes("timestamp is too")) return `${said} The clock of the sender differs by more than five minutes, or the request was sent again without being signed anew.`;
  if (reason.includes("is missing")) return `${said} The sender does not sign by Standard Webhooks.`;
  return said;
}
