// Makes elements. What users and servers have written only ever becomes text, never markup.

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
      show("failed", error.message);
    } finally {
      made.ariaBusy = "false";
    }
  });
  return made;
}

/** Says that an action has succeeded. */
export function confirmDone(text) {
  show("done", text);
}

function show(state, text) {
  const place = document.getElementById("said");
  const close = make("button", { type: "button", class: "close", "aria-label": "Close", onclick: () => place.replaceChildren() }, "×");
  place.replaceChildren(make("p", { "data-state": state }, make("span", {}, text), close));
}

/** Removes what the last action has said. */
export function saidNothing() {
  document.getElementById("said").replaceChildren();
}
