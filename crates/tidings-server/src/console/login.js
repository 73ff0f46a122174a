// Asks who uses the console.

import { line } from "./dialog.js";
import { make } from "./dom.js";
import { session } from "./session.js";

/** Shows the form; `reason` is what the server said of the last credential. `onCancel` goes on without one, if that is possible. */
export function open(root, reason, onDone, onCancel) {
  const credential = line("credential", { type: "password", required: true, autofocus: true, "aria-describedby": "login-hint" });
  const form = make("form", { id: "login" },
    make("label", {}, make("span", {}, "API key or token"), credential),
    make("button", { class: "primary" }, "Sign in"),
    onCancel && make("button", { type: "button", class: "quiet", onclick: onCancel }, "Cancel"));
  const error = make("p", { class: "error", role: "alert" }, reason ?? "");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (credential.value.trim() === "") {
      error.textContent = "Type or paste an API key or a token.";
      credential.focus();
      return;
    }
    // What the header `Authorization` can have.
    if (!/^[\x21-\x7e]+$/.test(credential.value.trim())) {
      error.textContent = "An API key or token has no spaces, and only letters, digits and signs of ASCII. Was it copied whole?";
      credential.focus();
      return;
    }
    session.signIn(credential.value);
    onDone();
  });
  root.append(make("section", { class: "card login" },
    make("h1", {}, "Sign in"), error, form,
    make("p", { id: "login-hint", class: "soft" }, "With an API key you see everything that its scopes allow. With a user's token you see the inbox and the endpoints of that user. It is kept until this tab is closed, and is in no URL.")));
  credential.focus();
}
