// Chooses the view by the address: `#/users/anna`, `#/endpoints?user=anna`, and so on.

import { call, whenForbidden, whenUnauthorized } from "./api.js";
import * as bin from "./bin.js";
import * as bins from "./bins.js";
import * as deliveries from "./deliveries.js";
import * as delivery from "./delivery.js";
import { confirmDone, make, nameWindow, sayAnew } from "./dom.js";
import * as endpoint from "./endpoint.js";
import * as endpoints from "./endpoints.js";
import { renewTimes, sentence } from "./format.js";
import * as keys from "./keys.js";
import * as login from "./login.js";
import * as overview from "./overview.js";
import { keep, kept, leave, restore } from "./place.js";
import { poll, problemIn } from "./poll.js";
import { forget } from "./sampler.js";
import { session, whenAnother } from "./session.js";
import { dialogKept, forgetTyped, keepTyped } from "./typed.js";
import * as user from "./user.js";

const RENEW_TIMES_MS = 10_000;
/** While the server cannot say who the caller is. */
const RETRY_MS = 2000;

const view = document.getElementById("view");
const nav = document.getElementById("nav");
const account = document.getElementById("account");

/** The views of the menu, each with the scope that it needs. */
const VIEWS = [["", "Overview", "metrics"], ["users", "Users", "read"], ["endpoints", "Endpoints", "endpoints"], ["deliveries", "Deliveries", "endpoints"], ["bins", "Request bins", "endpoints"], ["keys", "API keys", "admin"]];
/** Those of a user with a token. */
const OWN_VIEWS = [["", "Inbox", "read"], ["endpoints", "Endpoints", "endpoints"], ["deliveries", "Deliveries", "endpoints"]];

const views = () => (session.user === undefined ? VIEWS : OWN_VIEWS);
const menu = () => views().filter(([, , scope]) => session.may(scope));

/** Opens the view of an address, and returns what closes it. */
function openView(root, [place = "", name, ...rest], query) {
  const isPortal = session.user !== undefined;
  const found = rest.length === 0 ? views().find(([name]) => name === place) : undefined;
  const isAllowed = found !== undefined && session.may(found[2]);
  if (found !== undefined && !isAllowed) return refuse(root, place, found);
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

/** Leads from the start to a view that is for this caller, and says of the others why they are not. */
function refuse(root, place, [, words, scope]) {
  const [first] = menu();
  if (place === "" && first !== undefined) {
    location.replace(`#/${first[0]}`);
    return undefined;
  }
  const lacks = session.user === undefined ? `your API key: it does not have the scope ${scope}` : `your token: it does not have the claim ${scope}`;
  const why = first === undefined ? "This page has no view for your API key: it can only be used by programs." : `This view is not for ${lacks}.`;
  root.append(
    make("header", { class: "head" }, make("h1", {}, first === undefined ? "No view" : words)),
    make("p", { class: "problem", role: "status" }, why));
  return undefined;
}

let close;

function clear() {
  leave();
  close?.();
  close = undefined;
  // What is shown once stays until the person has it.
  document.querySelector("dialog[open]:not([data-kept])")?.close();
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
    root.replaceChildren(make("p", { class: "problem", role: "alert" }, sentence(error.message)));
  }
  nameWindow(view.querySelector("h1")?.textContent ?? "Console");
  restore(view);
}

function showMenu(place) {
  const isUsers = session.user !== undefined && place === "users";
  nav.replaceChildren(...menu().map(([name, words]) => make("a", { href: `#/${name}`, "aria-current": name === (isUsers ? "" : place) ? "page" : undefined }, words)));
  const here = nav.querySelector("[aria-current]");
  // On a narrow screen the menu is wider than the screen. After `scrollIntoView`, Tab would go on from this link.
  if (here !== null) nav.scrollLeft = here.offsetLeft - nav.offsetLeft - (nav.clientWidth - here.offsetWidth) / 2;
  showAccount();
}

function showAccount() {
  const nobody = session.isKnown ? "open server" : "";
  const who = session.user ?? (session.credential === "" ? nobody : (session.name ?? "API key"));
  const out = make("button", { type: "button", class: "quiet", id: "sign-out" }, session.credential === "" ? "Sign in" : "Sign out");
  out.addEventListener("click", () => end(undefined));
  account.replaceChildren(make("span", { class: "soft" }, who), out);
}

/** Who uses the keyboard goes on in the content of the view, and not in what led there. */
const toContent = () => document.getElementById("main").focus({ preventScroll: true });

/** Whether the person has typed the credential, and was not led here by an application. */
let isTyped = false;

/** Ends the session of the caller: because of `reason`, or because the person wants that. */
function end(reason) {
  if (reason === undefined) forgetTyped();
  else keepTyped();
  const isWithout = reason === undefined && session.credential === "";
  const isPortal = (session.user !== undefined && !isTyped && !isWithout) || kept().hasEnded;
  // An open server takes who has none, and refuses a wrong one.
  const mayGoBack = isWithout || (reason !== undefined && session.credential !== "");
  leaveCaller();
  session.signOut();
  if (isPortal) showEnd(reason);
  else signIn(reason, mayGoBack);
}

/** Asks for a credential, and shows the view of the address with it. */
function signIn(reason, mayGoBack) {
  if (kept().hasEnded) keep({ hasEnded: false });
  view.replaceChildren();
  nameWindow("Sign in");
  const go = (hasTyped) => {
    isTyped = hasTyped;
    toContent();
    start();
  };
  login.open(view, reason, () => go(true), mayGoBack ? () => go(false) : undefined);
}

/** Says to the user of a portal how to go on: they have no key. Also after the page was loaded again. */
function showEnd(reason) {
  keep({ hasEnded: true });
  const heading = reason === undefined ? "You are signed out" : "Your session has ended";
  nameWindow(heading);
  view.append(make("section", { class: "card login", id: "ended", "data-by-server": reason !== undefined },
    make("h1", {}, heading),
    make("p", {}, "Open this page again from the application that has led you here."),
    make("button", { type: "button", class: "link", onclick: () => signIn(reason, false) }, "Sign in with a key or a token")));
  toContent();
}

/** Removes everything that was for the caller before. */
function leaveCaller() {
  starting?.stop();
  clear();
  forget();
  nav.replaceChildren();
  account.replaceChildren();
}

/** Begins anew with another credential. If it is of another user, nothing stays that may be of the one before. */
function begin(isOfAnother) {
  isTyped = false;
  leaveCaller();
  if (isOfAnother) {
    forgetTyped();
    document.querySelector("dialog[open]")?.close();
    history.replaceState(null, "", location.pathname);
  }
  start();
}

let starting;

/** Finds out who the caller is and what they may do, and then shows the view of the address. */
function start() {
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  view.replaceChildren(make("div", {}, problem, make("p", { class: "empty" }, "Loading …")));
  showAccount();
  nameWindow("Loading");
  const { entry } = session;
  const ask = async () => {
    const who = await call("GET", "/v1/whoami");
    if (session.entry === entry) session.learn(who);
  };
  const explain = problemIn(problem);
  starting = poll(RETRY_MS, ask, (error) => {
    if (session.entry !== entry) return;
    explain(error);
    if (error !== undefined) return;
    starting.stop();
    if (kept().hasEnded) keep({ hasEnded: false });
    show();
    // A view that is refused has nothing to close, and no form.
    const form = close && dialogKept();
    if (form) confirmDone(`What you typed into “${form}” is kept: open that form again to go on.`);
  });
}

let isChecking = false;

/**
 * Begins anew if the cookie is another user's by now, or has other rights, or is there again after a session has ended. A
 * person who has typed a credential uses that.
 */
async function checkCaller() {
  const { entry, isKnown } = session;
  if (isChecking || session.credential !== "" || !(isKnown || document.querySelector("#ended[data-by-server]"))) return;
  isChecking = true;
  try {
    const who = await call("GET", "/v1/whoami");
    if (session.entry !== entry) return;
    // An open server takes who has no cookie: that is no user who is back.
    if (isKnown ? session.credential === "" && session.isStill(who) : who.user_id === null) return;
    keepTyped();
    // The page around this one may have replied with a token.
    begin(session.signIn(session.credential, who.user_id));
  } catch {
    // Who is not known any more has been asked to sign in. Everything else is asked again next time.
  } finally {
    isChecking = false;
  }
}

whenUnauthorized(({ message }) => {
  // What a view that is gone still asks does not begin the form anew.
  if (document.querySelector("#login, #ended") !== null) return;
  end(message.startsWith("expected one header") ? "This server requires an API key or a token." : sentence(message));
});
whenForbidden(checkCaller);
whenAnother(begin);
addEventListener("focus", checkCaller);
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") checkCaller();
});
addEventListener("hashchange", () => {
  if (!session.isKnown) return;
  toContent();
  show();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  // The address names the view.
  event.preventDefault();
  document.getElementById("main").focus();
});
setInterval(() => renewTimes(view), RENEW_TIMES_MS);
start();
