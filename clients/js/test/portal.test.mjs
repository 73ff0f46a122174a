import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { describe, test } from "node:test";
import { browse, pages } from "./browser.mjs";
import { Home, until } from "./support.mjs";

const KEY = "a-key-for-this-test-0123456789";
const SECRET = "a-secret-of-at-least-32-bytes-for-tests";

/** A token, as an application signs it. */
function token(seconds, sub = "anna") {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const claims = { sub, exp: Math.floor(Date.now() / 1000) + seconds, endpoints: true };
  const signed = `${part({ alg: "HS256" })}.${part(claims)}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

/** A page of an application that shows anna's portal. It sends what `reply` returns when the portal asks for a token. */
async function portal(t, first, reply) {
  let server;
  let asked = 0;
  const url = await pages(t, {
    "/": () => `<!doctype html><title>Shop</title><iframe title="Portal" src="${server.url}/#token=${first}" width="900" height="600"></iframe>
      <script>
        addEventListener("message", async ({ source, data }) => {
          if (data?.type !== "tidings.token_needed") return;
          const message = await (await fetch("/message")).json();
          if (message !== null) source.postMessage(message, "*");
        });
      </script>`,
    "/message": () => {
      asked += 1;
      return JSON.stringify(reply(asked) ?? null);
    },
  });
  server = await new Home(t).start({ args: ["--api-key", KEY, "--jwt-secret", SECRET, "--allow-origin", url] });
  const browser = await browse(t);
  await browser.goto(url);
  await browser.enterFrame(0);
  return {
    browser,
    asked: () => asked,
    notify: (payload) => server.post("/v1/notifications", { user_id: "anna", payload }, { authorization: `Bearer ${KEY}` }),
    shows: (text) => browser.until(text, "(text) => document.body.innerText.includes(text)", text),
  };
}

describe("the portal in a frame", { concurrency: true }, () => {
  test("a portal gets new tokens from the page around it, and stays live", async (t) => {
    const { browser, asked, notify, shows } = await portal(t, token(4), (n) => ({ type: "tidings.token", token: token(n === 1 ? 4 : 600) }));
    await shows("live");
    await until("two more tokens", () => asked() === 2 || undefined);
    await notify({ message: "after both" });
    await shows("after both");
    assert.equal(await browser.run("() => document.querySelector('#login')"), null);
    assert.equal(asked(), 2);
  });

  test("a view without a stream asks when a request is refused, and stays", async (t) => {
    const { browser, asked, shows } = await portal(t, token(-60), () => ({ type: "tidings.token", token: token(600) }));
    await shows("live");
    assert.equal(asked(), 1);
    await browser.run("() => { location.hash = '#/endpoints'; }");
    await shows("You have no endpoint");
    // From another window than the one around it, a token means nothing.
    const kept = "(token) => new Promise((resolve) => { addEventListener('message', () => resolve(Object.values(sessionStorage).join())); postMessage({ type: 'tidings.token', token }, '*'); })";
    const foreign = token(600, "ben");
    assert.notEqual(await browser.run(kept, foreign), foreign);
    assert.equal(await browser.run("() => document.querySelector('#login')"), null);
  });

  for (const [what, given] of [["an expired token", () => token(-30)], ["an API key", () => KEY], ["no text", () => 7]]) {
    test(`a portal whose page sends ${what} says that the session has ended`, async (t) => {
      const { browser, asked, shows } = await portal(t, token(-60), () => ({ type: "tidings.token", token: given() }));
      await shows("Your session has ended");
      assert.equal(asked(), 1, "it is not asked for again and again");
      assert.equal(await browser.run("() => sessionStorage.length"), 0);
      assert.equal(await browser.run("() => document.querySelector('#login')"), null);
    });
  }

  test("a secret that is shown stays for its user, and not over the portal of another one", async (t) => {
    // Each time the session ends first, and a token comes later.
    const replies = [7, token(600), 7, token(600, "ben")];
    const { browser, shows } = await portal(t, token(600), (n) => ({ type: "tidings.token", token: replies[n - 1] }));
    await shows("live");
    await browser.run(`() => {
      const real = window.fetch;
      window.fetch = (...all) => {
        const error = { code: "unauthorized", message: "the token has expired" };
        return window.isOver ? Promise.resolve(Response.json({ error }, { status: 401 })) : real(...all);
      };
      location.hash = "#/endpoints";
    }`);
    await shows("You have no endpoint");
    await browser.click(`() => document.querySelector("#new-endpoint")`);
    await browser.run(`() => {
      document.querySelector("dialog [name=url]").value = "http://127.0.0.1:1/";
      document.querySelector("dialog form").requestSubmit();
    }`);
    const isSecret = `() => document.querySelector("dialog[open] .secret")?.value.startsWith("whsec_") === true`;
    await browser.until("the secret", isSecret);
    const end = async () => {
      await browser.run(`() => { window.isOver = true; }`);
      await shows("Your session has ended");
      await browser.run(`() => {
        window.isOver = false;
        parent.postMessage({ type: "tidings.token_needed" }, "*");
      }`);
    };
    await end();
    const isOf = `(user, heading) => document.querySelector("#account span")?.textContent === user && document.querySelector("#view h1")?.textContent === heading`;
    await browser.until("anna's view", isOf, "anna", "Endpoints");
    assert.equal(await browser.run(isSecret), true);
    await end();
    await browser.until("ben's portal", isOf, "ben", "Your inbox");
    // What is closed leaves the page a moment later.
    assert.equal(await browser.run(`() => document.querySelector("dialog[open]")`), null);
    assert.equal(await browser.run(`() => location.hash`), "");
  });

  test("a portal whose page does not reply says that the session has ended", async (t) => {
    const { asked, shows } = await portal(t, token(-60), () => undefined);
    await shows("Your session has ended");
    assert.equal(asked(), 1);
  });
});
