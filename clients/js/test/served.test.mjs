import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { browse, pages } from "./browser.mjs";
import { Home } from "./support.mjs";

const committed = readFileSync(new URL("../../../crates/tidings-server/src/client/tidings.js", import.meta.url), "utf8");

test("the server serves the committed file to pages of every origin", async (t) => {
  const server = await new Home(t).start();
  const url = `${server.url}/tidings.js`;
  const headers = { origin: "https://anywhere.example.com" };
  const response = await fetch(url, { headers });
  assert.equal(response.status, 200);
  assert.ok((await response.text()) === committed, "build the server again: it serves another file");
  assert.equal(response.headers.get("content-type"), "text/javascript; charset=utf-8");
  assert.equal(response.headers.get("access-control-allow-origin"), "*");
  assert.equal(response.headers.get("cross-origin-resource-policy"), "cross-origin");
  assert.equal(response.headers.get("cache-control"), "public, max-age=300");
  const tag = response.headers.get("etag");
  for (const known of [tag, `"other", W/${tag}`]) {
    const again = await fetch(url, { headers: { ...headers, "if-none-match": known } });
    assert.equal(again.status, 304);
    assert.equal(again.headers.get("etag"), tag);
    assert.equal(again.headers.get("access-control-allow-origin"), "*");
    assert.equal(await again.text(), "");
  }
  assert.equal((await fetch(url, { headers: { ...headers, "if-none-match": '"other"' } })).status, 200);
  // Nothing else is open to such a page.
  assert.equal((await fetch(`${server.url}/docs`, { headers })).status, 403);
});

test("a page of another origin shows the inbox with the client of the server", async (t) => {
  const server = await new Home(t).start();
  await server.notify("anna", { title: "Hello" });
  const app = await pages(t, {
    "/": `<!doctype html><script type="module" src="${server.url}/tidings.js"></script><tidings-inbox user="anna"></tidings-inbox>`,
  });
  const browser = await browse(t);
  await browser.goto(app);
  await browser.until("the badge", `() => document.querySelector("tidings-inbox").shadowRoot?.querySelector(".badge").textContent === "1"`);
});
