// Dialogs: a question, a form, or a secret that is shown once.

import { make } from "./dom.js";
import { sentence } from "./format.js";
import { session } from "./session.js";
import { restoreTyped } from "./typed.js";

/** Whether a dialog ends with its buttons alone: what it shows or waits for would be lost. */
function hold(dialog, isHeld) {
  dialog.toggleAttribute("data-kept", isHeld);
  if (isHeld) dialog.setAttribute("closedby", "none");
  else dialog.removeAttribute("closedby");
}

/** Opens a dialog. Resolves with what `close` was called with, or with undefined after Escape or Cancel. */
function open(title, build, { isKept = false } = {}) {
  return new Promise((resolve) => {
    let result;
    const dialog = make("dialog", { "aria-labelledby": "dialog-title", oncancel: (event) => "kept" in dialog.dataset && event.preventDefault() });
    hold(dialog, isKept);
    const close = (value) => {
      result = value;
      dialog.close();
    };
    dialog.append(make("h2", { id: "dialog-title" }, title), ...build(close));
    dialog.addEventListener("close", () => {
      dialog.remove();
      // What had the focus may be gone, for instance because the person is signed out.
      if (document.activeElement === document.body) (document.querySelector("#login input") ?? document.getElementById("main")).focus();
      resolve(result);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

const cancelButton = (close) => make("button", { type: "button", class: "quiet", onclick: () => close(undefined) }, "Cancel");

/**
 * Shows a form, and resolves with what `submit` returns for its values. An error of `submit` is shown in the form, at
 * the field that it names.
 */
export function ask(title, fields, action, submit, { danger = false } = {}) {
  return open(title, (close) => {
    const error = make("p", { class: "error", role: "alert", hidden: true });
    const send = make("button", { class: danger ? "danger" : "primary" }, action);
    const cancel = cancelButton(close);
    const actions = make("div", { class: "actions" }, cancel, send);
    const form = make("form", { novalidate: true, "data-typed": title }, fields, error, actions);
    restoreTyped(form);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const dialog = form.closest("dialog");
      const held = document.activeElement;
      send.disabled = cancel.disabled = true;
      // What is typed now would not be sent, and would go with the dialog.
      form.inert = true;
      // The reply may have a secret.
      hold(dialog, true);
      error.hidden = true;
      unmark(form);
      try {
        // Its value is that of an empty field.
        const half = [...form.elements].find(({ validity }) => validity?.badInput);
        if (half !== undefined) throw Object.assign(new Error("expected a date and a time"), { field: half.name });
        close((await submit(form.elements)) ?? true);
      } catch (thrown) {
        form.inert = false;
        if (!session.isKnown) close(undefined);
        const place = pointTo(form, thrown);
        error.textContent = place?.text ?? sentence(thrown.message);
        // At the field, because in a long form the end of it may be out of view.
        if (place === undefined) actions.before(error);
        else place.at.after(error);
        error.hidden = false;
        error.scrollIntoView({ block: "nearest" });
      } finally {
        send.disabled = cancel.disabled = false;
        hold(dialog, false);
        // What is disabled or inert loses the focus.
        if (dialog.open && !dialog.contains(document.activeElement)) (dialog.contains(held) ? held : send).focus();
      }
    });
    return [form];
  });
}

/** Ends what `pointTo` has shown. */
export function unmark(form) {
  for (const field of form.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
}

/**
 * Shows which field of a form an error is about. Returns what is wrong, with the words that a person reads at the field,
 * and what the field is in, or `undefined` if the form has no such field.
 */
export function pointTo(form, { field: path, reason, message }) {
  const [, name, rest] = /^([^.[]*)([^]*)$/.exec(path ?? "");
  const found = name === "" ? null : form.elements.namedItem(name);
  if (found === null) return undefined;
  // Boxes of one group share a name; then this is a list.
  const first = found instanceof RadioNodeList ? found[0] : found;
  const at = first.closest("fieldset") ?? first.closest("label");
  const words = at.querySelector("legend, span");
  first.closest("details")?.setAttribute("open", "");
  first.setAttribute("aria-invalid", "true");
  first.focus();
  const place = rest.replace(/^\./, "").replace(/^\[(\d+)\]$/, (_, index) => `number ${Number(index) + 1}`);
  return { at, text: `${words.textContent}${place && ` (${place})`}: ${reason ?? message}` };
}

/** Asks before something that cannot be undone. Resolves with whether it was done. */
export const confirm = (title, text, action, submit) => ask(title, [make("p", {}, text)], action, submit, { danger: true });

/** Shows a secret, which the server shows this once. */
export function showSecret(title, text, secret) {
  return open(title, (close) => {
    const shown = make("input", { readonly: true, value: secret, "aria-label": title, class: "secret", onfocus: () => shown.select() });
    const copied = make("span", { role: "status", class: "soft" });
    const copy = make("button", { type: "button", class: "quiet" }, "Copy");
    copy.addEventListener("click", async () => {
      shown.select();
      try {
        await navigator.clipboard.writeText(secret);
        copied.textContent = "copied";
      } catch {
        copied.textContent = "press Ctrl+C to copy";
      }
    });
    const done = make("button", { type: "button", class: "primary", onclick: () => close(true) }, "Done");
    return [make("p", {}, text), shown, make("div", { class: "actions" }, copied, copy, done)];
  }, { isKept: true });
}

/** A field of a form, with its label and a hint. */
export function field(label, control, hint) {
  return make("label", {}, make("span", {}, label), control, hint && make("small", {}, hint));
}

/** A line of text to type. */
export const line = (name, more = {}) => make("input", { name, autocomplete: "off", spellcheck: "false", ...more });

/** A choice among values, each with its words. */
export function choice(name, options, chosen) {
  return make("select", { name }, options.map(([value, text]) => make("option", { value, selected: value === chosen }, text)));
}

/** A box to tick. */
export const tick = (name, text, checked, value = "on") =>
  make("label", { class: "tick" }, make("input", { type: "checkbox", name, value, checked }), text);
