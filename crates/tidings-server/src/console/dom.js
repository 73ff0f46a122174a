// Makes elements. What users and servers have written only ever becomes text, never markup.

import { renewTimes, sentence } from "./format.js";
import { session } from "./session.js";

function put(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === false || value === null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

/** An element with attributes, listeners (`onclick`) and children: elements, or texts. */
export const make = (tag, properties = {}, ...children) => put(document.createElement(tag), properties, children);

/** The same in a drawing. */
export const draw = (tag, properties = {}, ...children) =>
  put(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);

/**
 * A button that runs an action, and says above the view why it has failed. While it runs, the button keeps the focus and
 * does nothing.
 */
export function button(text, action, { kind = "quiet", ...more } = {}) {
  const made = make("button", { type: "button", class: kind, ...more }, text);
  made.addEventListener("click", async () => {
    if (made.ariaBusy === "true") return;
    made.ariaBusy = "true";
    try {
      await action();
    } catch (error) {
      // Who is not known any more reads why above the form to sign in.
      if (session.isKnown) sayFailed(sentence(error.message));
    } finally {
      made.ariaBusy = "false";
    }
  });
  return made;
}

/** Names the window, as its tab and the history of the browser show it. */
export function nameWindow(text) {
  document.title = `${text} · Tidings`;
}

/** Names a view, and the window with it, once it is known what the view is of. */
export function nameView(heading, text) {
  // Who asked may have left the view before the reply.
  if (!heading.isConnected || heading.textContent === text) return;
  heading.textContent = text;
  nameWindow(text);
}

/** Whether an element is like another. A time that reads otherwise by now, and is renewed here, makes no difference. */
function isLike(shown, element) {
  renewTimes(shown);
  return shown.isEqualNode(element);
}

/** Names and what they are. What has not changed stays, and with it what a person has selected there. */
export function showFacts(list, facts) {
  const rows = facts.map(([words, value]) => make("div", {}, make("dt", {}, words), make("dd", {}, value)));
  while (list.children.length > rows.length) list.lastElementChild.remove();
  rows.forEach((row, index) => {
    const shown = list.children[index];
    if (shown === undefined) list.append(row);
    else if (!isLike(shown, row)) shown.replaceWith(row);
  });
}

/**
 * Shows these rows in a table or a list; they have a `data-id` each. What has not changed stays, and with it what a person has
 * selected there or is about to click. The focus stays on the same link or button of the same row, or, if the row is
 * gone, of the one that took its place. Below a dialog nothing changes: it gives the focus back to where it came from.
 */
export function showRows(body, rows) {
  if (document.querySelector("dialog[open]") !== null) return;
  const held = body.contains(document.activeElement) ? document.activeElement : undefined;
  const row = held?.closest("[data-id]");
  const partsOf = (row) => [...(row?.querySelectorAll("a, button, summary") ?? [])];
  const index = partsOf(row).indexOf(held);
  const place = [...body.children].indexOf(row);
  const before = new Map([...body.children].map((row) => [row.dataset.id, row]));
  const shown = rows.map((row) => {
    const old = before.get(row.dataset.id);
    return old !== undefined && isLike(old, row) ? old : row;
  });
  const kept = new Set(shown);
  for (const row of before.values()) if (!kept.has(row)) row.remove();
  shown.forEach((row, index) => {
    if (body.children[index] !== row) body.insertBefore(row, body.children[index] ?? null);
  });
  if (row === undefined || body.contains(document.activeElement)) return;
  const next = shown.find(({ dataset }) => dataset.id === row.dataset.id) ?? shown[place] ?? shown.at(-1);
  (partsOf(next).at(index) ?? document.getElementById("main")).focus({ preventScroll: true });
}

/** Hides what has nothing left to do. If the focus was in it, `next` gets it. */
export function retire(element, next) {
  const hadFocus = element.contains(document.activeElement);
  element.hidden = true;
  if (hadFocus) next?.focus();
}

/** Says that an action has succeeded. */
export function confirmDone(text) {
  show("done", text);
}

/** Says that an action has failed. */
export function sayFailed(text) {
  show("failed", text);
}

let saidBefore;

/** Opens another view, and says there what an action has done. */
export function goTo(address, text, state = "done") {
  // The person may be there already.
  if (location.hash === address) return show(state, text);
  saidBefore = [state, text];
  location.hash = address;
}

function show(state, text) {
  const place = document.getElementById("said");
  const remove = () => {
    place.replaceChildren();
    document.getElementById("main").focus({ preventScroll: true });
  };
  const close = make("button", { type: "button", class: "close", "aria-label": "Close", onclick: remove }, "×");
  place.replaceChildren(make("p", { "data-state": state }, make("span", {}, text), close));
}

/** Removes what was said in the view before. What an action there has to say about this view stays. */
export function sayAnew() {
  document.getElementById("said").replaceChildren();
  if (saidBefore !== undefined) show(...saidBefore);
  saidBefore = undefined;
}
