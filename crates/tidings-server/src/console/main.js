// Chooses the view by the address: `#/users/anna`, `#/endpoints?user=anna`, and so on.

import { call, CallError, part, whenUnauthorized } from "./api.js";
import * as bin from "./bin.js";
import * as bins from "./bins.js";
import * as deliveries from "./deliveries.js";
import * as delivery from "./delivery.js";
import { make, nameWindow, sayAnew } from "./dom.js";
import * as endpoint from "./endpoint.js";
import * as endpoints from "./endpoints.js";
import { renewTimes } from "./format.js";
import * as keys from "./keys.js";
import * as login from "./login.js";
import * as overview from "./overview.js";
import { leave, restore } from "./place.js";
import { forget } from "./sampler.js";
import { session } from "./session.js";
import * as user from "./user.js";

const RENEW_TIMES_MS = 10_000;

const view = document.getElementById("view");
const nav = document.getElementById("nav");
const account = document.getElementById("account");

/** The views of the menu, for those who may use them. */
function menu() {
  if (session.user !== undefined) {
    const own = [["", "Inbox"]];
    return session.hasEndpoints ? [...own, ["endpoints", "Endpoints"], ["deliveries", "Deliveries"]] : own;
  }
  return [["", "Overview"], ["users", "Users"], ["endpoints", "Endpoints"], ["deliveries", "Deliveries"], ["bins", "Request bins"], ["keys", "API keys"]];
}

/** Opens the view of an address, and returns what closes it. */
function openView(root, [place = "", name, ...rest], query) {
  const isPortal = session.user !== undefined;
  const isAllowed = menu().some(([allowed]) => allowed === place) && rest.length === 0;
  if (isAllowed && place === "" && name === undefined) return isPortal ? user.open(root, session.user, query) : overview.open(root);
  if (isPortal && place === "users" && name === session.user) return user.open(root, name, query);
  if (isAllowed && place === "users") return name === undefined ? user.choose(root) : user.open(root, name, query);
  if (isAllowed && place === "endpoints") return name === undefined ? endpoints.open(root, query) : endpoint.open(root, name, query);
  if (isAllowed && place === "deliveries") return name === undefined ? deliveries.open(root, query) : delivery.open(root, name);
  if (isAllowed && place === "bins") return name === undefined ? bins.open(root) : bin.open(root, name);
  if (isAllowed && place === "keys" && name === undefined) return keys.open(root);
  root.append(make("header", { class: "head" }, make("h1", {}, "There is no such page")), make("p", {}, make("a", { href: "#/" }, "To the start")));
  return undefined;
}

let close;

function clear() {
  leave();
  close?.();
  close = undefined;
  document.querySelector("dialog[open]")?.close();
  sayAnew();
  view.replaceChildren();
}

function show() {
  clear();
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  let parts = [];
  try {
    parts = path.split("/").map(decodeURIComponent);
    if (parts.at(-1) === "") parts.pop();
  } catch {
    // Not an address of ours.
    parts = ["?"];
  }
  const root = make("div", {});
  view.append(root);
  showMenu(parts[0] ?? "");
  try {
    close = openView(root, parts, new URLSearchParams(query));
  } catch (error) {
    root.replaceChildren(make("p", { class: "problem", role: "alert" }, error.message));
  }
  nameWindow(view.querySelector("h1")?.textContent ?? "Console");
  restore(view);
}

function showMenu(place) {
  const isUsers = session.user !== undefined && place === "users";
  nav.replaceChildren(...menu().map(([name, words]) => make("a", { href: `#/${name}`, "aria-current": name === (isUsers ? "" : place) ? "page" : undefined }, words)));
  // On a narrow screen the menu is wider than the screen.
  nav.querySelector("[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  const who = session.user !== undefined ? session.user : session.credential === "" ? "open server" : "API key";
  const out = make("button", { type: "button", class: "quiet", id: "sign-out" }, session.credential === "" ? "Sign in" : "Sign out");
  out.addEventListener("click", () => signIn(undefined));
  account.replaceChildren(make("span", { class: "soft" }, who), out);
}

/** Asks for a credential, and shows the view of the address with it. */
function signIn(reason) {
  clear();
  forget();
  session.signOut();
  nav.replaceChildren();
  account.replaceChildren();
  nameWindow("Sign in");
  login.open(view, reason, start);
}

/** Finds out whether the server knows the caller, and shows the view of the address. */
async function start() {
  view.replaceChildren();
  const path = session.user === undefined ? "/v1/keys" : `/v1/users/${part(session.user)}/notifications/unread-count`;
  try {
    await call("GET", path);
  } catch (error) {
    if (error instanceof CallError && error.status === 401) return;
    // One that is known and may not do this sees what it may; a server that is away may come back.
  }
  show();
}

whenUnauthorized(({ message }) => signIn(session.credential === "" ? "This server requires an API key or a token." : message));
addEventListener("hashchange", () => {
  if (view.querySelector("#login") !== null) return;
  // Who uses the keyboard is in the new view, and not in what led there.
  document.getElementById("main").focus({ preventScroll: true });
  show();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  // The address names the view.
  event.preventDefault();
  document.getElementById("main").focus();
});
setInterval(() => renewTimes(view), RENEW_TIMES_MS);
start();
