// The element in a page of an application.

import { createHmac } from "node:crypto";
import { browse, pages } from "./browser.mjs";
import { Home } from "./support.mjs";

/** The element and what is in it, in the page. */
export const ELEMENT = `const element = document.querySelector("tidings-inbox"); const root = element?.shadowRoot;
  const $ = (selector) => root?.querySelector(selector); const $$ = (selector) => [...(root?.querySelectorAll(selector) ?? [])];`;
export const inside = (expression) => `() => { ${ELEMENT} return ${expression}; }`;
export const find = (selector) => inside(`$(${JSON.stringify(selector)})`);
export const isTrue = (expression) => inside(expression);

/** A page of the application, which has a copy of the client. */
export const page = (server, attributes = "") => `<!doctype html>
<meta name="viewport" content="width=device-width">
<script type="module" src="/tidings.js"></script>
<tidings-inbox user="anna" server="${server.url}" ${attributes}></tidings-inbox>`;

export async function opened(t, { args, attributes, ...options } = {}) {
  const server = await new Home(t).start({ args });
  const app = await pages(t, { "/": page(server, attributes), ...options.routes });
  const browser = await browse(t);
  return { server, app, browser };
}

export async function counts(server, user = "anna") {
  const response = await fetch(`${server.url}/v1/users/${user}/notifications/unread-count`);
  return response.json();
}

export function token(user, seconds, secret) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}
