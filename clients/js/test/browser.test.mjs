import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { test } from "node:test";
import { browse, KEYS, pages } from "./browser.mjs";
import { Home, relay, until } from "./support.mjs";

/** The element and what is in it, in the page. */
const ELEMENT = `const element = document.querySelector("tidings-inbox"); const root = element?.shadowRoot;
  const $ = (selector) => root?.querySelector(selector); const $$ = (selector) => [...(root?.querySelectorAll(selector) ?? [])];`;
const inside = (expression) => `() => { ${ELEMENT} return ${expression}; }`;
const find = (selector) => inside(`$(${JSON.stringify(selector)})`);
const badge = inside(`$(".badge").hidden ? "none" : $(".badge").textContent`);
const isTrue = (expression) => inside(expression);

/** A page of the application, which has a copy of the client. */
const page = (server, attributes = "") => `<!doctype html>
<meta name="viewport" content="width=device-width">
<script type="module" src="/tidings.js"></script>
<tidings-inbox user="anna" server="${server.url}" ${attributes}></tidings-inbox>`;

async function opened(t, { args, attributes, ...options } = {}) {
  const server = await new Home(t).start({ args });
  const app = await pages(t, { "/": page(server, attributes), ...options.routes });
  const browser = await browse(t);
  return { server, app, browser };
}

test("a person sees the badge, opens the list, reads, archives, and undoes it", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "First", url: "/first" });
  await server.notify("anna", { title: "Second", body: "with a body" });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "2"`));
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 2 && $(".panel").matches(":popover-open")`));
  assert.equal(await browser.run(inside(`$("li .title").textContent`)), "Second");
  await browser.until("both are seen", `${isTrue(`$(".badge").hidden`)}`);
  await until("the server knows it", async () => (await counts(server)).unseen === 0);
  assert.equal((await counts(server)).unread, 2);

  // What arrives while the list is open is on the screen, and therefore seen.
  await server.notify("anna", { title: "Third" });
  await browser.until("the third", isTrue(`$$("li").length === 3`));
  await until("it is seen", async () => (await counts(server)).unseen === 0);

  // A click on one without a link marks it as read, and the button marks it as unread again, and as read.
  await browser.click(inside(`$("li .title")`));
  await until("it is read", async () => (await counts(server)).unread === 2);
  await browser.until("it shows", isTrue(`!$("li").classList.contains("unread")`));
  for (const unread of [3, 2]) {
    await browser.click(inside(`$("li .tools button")`));
    await until("it is changed", async () => (await counts(server)).unread === unread);
    await browser.until("it shows", isTrue(`$("li").classList.contains("unread") === ${unread === 3}`));
  }
  await browser.click(inside(`$("li .archive")`));
  await browser.until("it is gone", isTrue(`$$("li").length === 2 && !$(".done").hidden`));
  await browser.click(inside(`$(".done button")`));
  await browser.until("it is back", isTrue(`$$("li").length === 3 && $("li .title").textContent === "Third"`));
  await browser.click(find(".mark-all"));
  await until("all are read", async () => (await counts(server)).unread === 0);
  await browser.until("the button is gone", isTrue(`$(".mark-all").hidden`));

  // A click beside the list closes it.
  await browser.click(`() => document.body`);
  await browser.until("it is closed", isTrue(`!$(".panel").matches(":popover-open")`));
});

async function counts(server, user = "anna") {
  const response = await fetch(`${server.url}/v1/users/${user}/notifications/unread-count`);
  return response.json();
}

test("the keyboard alone is enough", async (t) => {
  const { server, app, browser } = await opened(t);
  for (const title of ["one", "two", "three"]) await server.notify("anna", { title, url: `#${title}` });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "3"`));
  assert.equal(await browser.run(inside(`$(".bell").getAttribute("aria-label")`)), "Notifications: 3 new");
  await browser.type(KEYS.tab, KEYS.enter);
  await browser.until("the list is open", isTrue(`$(".panel").matches(":popover-open") && $(".bell").ariaExpanded === "true"`));
  const focused = (text) => isTrue(`root.activeElement?.closest("li")?.innerText.includes("${text}")`);
  await browser.type(KEYS.tab, KEYS.tab);
  await browser.until("the first row has the focus", focused("three"));
  await browser.type(KEYS.down);
  await browser.until("the next one", focused("two"));
  await browser.type(KEYS.delete);
  await browser.until("it is archived, and the focus stays in the list", `${isTrue(`$$("li").length === 2`)}`);
  await browser.until("the one below has the focus", focused("one"));
  // Behind the link and the buttons of this row, and of no other.
  await browser.type(KEYS.tab, KEYS.tab, KEYS.tab, KEYS.tab);
  await browser.until("it can be undone", isTrue(`root.activeElement?.textContent === "Undo"`));
  await browser.type(KEYS.enter);
  await browser.until("it is back, and the focus is still in the list", isTrue(`$$("li").length === 3 && root.activeElement === $(".panel")`));
  await browser.type(KEYS.end);
  await browser.until("the last row has the focus", focused("one"));
  await browser.type(KEYS.enter);
  await browser.until("the link is followed", `() => location.hash === "#one"`);
  await until("it is read", async () => (await counts(server)).unread === 2);
  await browser.run(inside(`$(".mark-all").focus()`));
  await browser.type(KEYS.enter);
  await browser.until("the focus stays in the list", isTrue(`$(".mark-all").hidden && root.activeElement === $(".panel")`));
  await browser.type(KEYS.escape);
  await browser.until("the list is closed, and the bell has the focus", isTrue(`!$(".panel").matches(":popover-open") && root.activeElement === $(".bell")`));
});

test("a screen reader says all of a row that has the focus", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "Paid", body: "It ships tomorrow." });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 1`));
  await browser.type(KEYS.down);
  await browser.until("the row has the focus", isTrue(`root.activeElement === $("li")`));
  assert.equal(await browser.nameOf(find("li")), "Unread. Paid now");
  assert.equal(await browser.run(inside(`root.getElementById($("li").getAttribute("aria-describedby")).textContent`)), "It ships tomorrow.");
  assert.equal(await browser.run(inside(`getComputedStyle($("time")).visibility`)), "visible");
});

test("a page whose language is not well-formed has a list", async (t) => {
  const { server, browser } = await opened(t);
  const app = await pages(t, { "/": page(server).replace("<meta", `<html lang="en_US"><meta`) });
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.until("the list", isTrue(`$("li .title")?.textContent === "One" && $("time").title !== ""`));
});

test("who loads the last page by the keyboard is in it afterwards", async (t) => {
  const { server, app, browser } = await opened(t);
  for (let n = 1; n <= 51; n += 1) await server.notify("anna", { title: `number ${n}` });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "51"`));
  await browser.click(find(".bell"));
  await browser.until("the button", isTrue(`$$("li").length === 50 && !$(".more").hidden`));
  await browser.run(inside(`$(".more").focus()`));
  await browser.type(KEYS.enter);
  await browser.until("the oldest has the focus", isTrue(`$(".more").hidden && root.activeElement?.closest("li") === $$("li")[50]`));
});

test("a hostile payload is shown as text, and runs nothing", async (t) => {
  const { server, app, browser } = await opened(t);
  const markup = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
  const urls = ["javascript:window.hacked=1", " java\nscript:window.hacked=1", "data:text/html,<script>1</script>", "vbscript:1"];
  for (const url of urls) {
    await server.notify("anna", { title: markup, body: markup, url, icon: url, actions: [{ label: markup, url }] });
  }
  const values = [null, 1, true, [], ["x"], {}, { title: {}, body: [], url: 7, icon: {}, actions: "x" }, { actions: [null, 1, {}] }, "text"];
  for (const payload of values) await server.notify("anna", payload);
  await server.notify("anna", { title: "\u202egnp.exe", body: "x".repeat(100_000), message: 1 }, { type: markup });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "${urls.length + values.length + 1}"`));
  await browser.click(find(".bell"));
  await browser.until("all are shown", isTrue(`$$("li").length === ${urls.length + values.length + 1}`));
  for (const link of await browser.run(inside(`$$("a, img").map((found) => found.href ?? found.src)`))) assert.fail(link);
  const titles = await browser.run(inside(`$$(".title").map((title) => title.textContent)`));
  assert.equal(titles.filter((title) => title === markup).length, urls.length);
  assert.equal(await browser.run(`() => window.hacked`), null);
  const fits = await browser.run(inside(`$(".scroll").scrollWidth <= $(".scroll").clientWidth`));
  assert.ok(fits, "nothing is wider than the list");
});

test("ten tabs use one connection, and the death of the leading tab loses nothing", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "0" });
  const tabs = [await browser.tab()];
  await browser.goto(app);
  for (let n = 1; n < 10; n += 1) tabs.push(await browser.openTab(app));
  const watch = `() => { const { inbox } = document.querySelector("tidings-inbox"); window.seen ??= [];
    inbox.subscribe(({ items }) => { window.seen = items.map(({ payload }) => payload.title); }); return inbox.state.status === "live"; }`;
  for (const tab of tabs) {
    await browser.show(tab);
    await browser.until("the tab is live", `() => document.querySelector("tidings-inbox")?.inbox?.state.status === "live"`);
    await browser.until("the list", isTrue(`element.inbox.state.items.length === 1`));
    await browser.run(watch);
  }
  assert.equal(await streams(server), 1);

  // The first tab leads. It is closed while notifications arrive.
  const writing = (async () => {
    for (let n = 1; n <= 30; n += 1) await server.notify("anna", { title: String(n) });
  })();
  await browser.show(tabs[0]);
  await browser.closeTab();
  await writing;
  await server.notify("anna", { title: "31" });
  const wanted = JSON.stringify([...Array(32).keys()].reverse().map(String));
  for (const tab of tabs.slice(1)) {
    await browser.show(tab);
    await browser.until("every notification once and in order", `(wanted) => JSON.stringify(window.seen) === wanted`, wanted);
  }
  await until("one connection", async () => (await streams(server)) === 1);
});

/** Open streams, as the server counts them. */
async function streams(server) {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  return Number(text.match(/^tidings_subscription_active(?:\{[^}]*\})? (\d+)/m)?.[1]);
}

/** Opens two tabs, of which the first leads, and shows the second. */
async function twoTabs(app, browser) {
  const first = await browser.tab();
  await browser.goto(app);
  await browser.until("the first tab is live", isTrue(`element?.inbox?.state.status === "live"`));
  const second = await browser.openTab(app);
  await browser.until("the second tab is live", isTrue(`element?.inbox?.state.status === "live" && !element.inbox.state.isLoading`));
  return { first, second };
}

const newest = (title) => isTrue(`element?.inbox?.state.items[0]?.payload.title === ${JSON.stringify(title)}`);

test("a leading tab that is frozen is replaced", async (t) => {
  const { server, app, browser } = await opened(t);
  const { first, second } = await twoTabs(app, browser);
  await browser.show(first);
  // A page that does not run: its lock stays, and it passes nothing on.
  await browser.run(`() => void setTimeout(() => { const end = Date.now() + 12000; while (Date.now() < end); })`);
  await browser.show(second);
  await server.notify("anna", { title: "while it is frozen" });
  const started = Date.now();
  await browser.run(`() => document.dispatchEvent(new Event("visibilitychange"))`);
  await browser.until("the new one", newest("while it is frozen"));
  assert.ok(Date.now() - started < 11_000, "before the leading tab runs again");
  // It follows when it runs again.
  await browser.show(first);
  await server.notify("anna", { title: "afterwards" });
  await browser.until("the new one", newest("afterwards"));
  assert.equal(await streams(server), 1);
});

test("a page that a browser goes back to is up to date", async (t) => {
  const { server, app, browser } = await opened(t);
  const { second } = await twoTabs(app, browser);
  await browser.run(`() => {
    window.isKept = true;
    const { inbox } = document.querySelector("tidings-inbox");
    addEventListener("pageshow", () => (window.statusAtFirst = inbox.state.status));
  }`);
  await browser.goto(`${server.url}/health/live`);
  await server.notify("anna", { title: "while it is away" });
  await browser.back();
  assert.ok(await browser.run(`() => window.isKept`), "it is the same page, and not a new one");
  assert.equal(await browser.run(`() => window.statusAtFirst`), "waiting");
  await browser.until("the new one", newest("while it is away"));
  await server.notify("anna", { title: "live again" });
  await browser.until("the next one", newest("live again"));
  assert.equal(await browser.tab(), second);
  assert.equal(await streams(server), 1);
});

const denied = `() => Promise.reject(new DOMException("of the test", "SecurityError"))`;
for (const [what, script] of [
  ["without locks", `delete Navigator.prototype.locks`],
  ["that refuses locks", `LockManager.prototype.request = ${denied}`],
  ["that refuses channels", `window.BroadcastChannel = class { constructor() { throw new DOMException("of the test", "SecurityError"); } }`],
]) {
  test(`a browser ${what} has a connection in each tab`, async (t) => {
    const { server, browser } = await opened(t);
    const app = await pages(t, { "/": page(server).replace("<script", `<script>${script}</script><script`) });
    await twoTabs(app, browser);
    assert.equal(await streams(server), 2);
    await server.notify("anna", { title: "to both" });
    await browser.until("the new one", newest("to both"));
  });
}

test("a WebSocket of a browser resumes over a kill of the server, and keeps its place over tabs", async (t) => {
  const home = new Home(t);
  const server = await home.start({ address: "127.0.0.9:0" });
  const app = await pages(t, {
    "/": `<!doctype html><script type="module">
      import { Tidings } from "/tidings.js";
      window.seen = [];
      const tidings = new Tidings({ url: "${server.url}", user: "anna", transport: "websocket", maxWaitMs: 200 });
      window.stream = tidings.stream({ onNotification: ({ payload }) => window.seen.push(payload), onHello: () => (window.isLive = true) });
    </script>`,
  });
  const browser = await browse(t);
  const first = await browser.tab();
  await browser.goto(app);
  await browser.until("the stream", `() => window.isLive`);
  const second = await browser.openTab(app);
  await browser.until("the other one", `() => window.isLive`);
  await server.notify("anna", 1);
  await browser.until("the event", `() => window.seen.length === 1`);
  await server.kill();
  const again = await home.start({ address: server.address });
  await again.notify("anna", 2);
  await again.notify("anna", 3);
  for (const tab of [first, second]) {
    await browser.show(tab);
    await browser.until("each event once", `() => JSON.stringify(window.seen) === "[1,2,3]"`);
  }
});

test("a tab that begins at an older cursor fetches what it has missed, and then shares the connection", async (t) => {
  const { server, browser } = await opened(t);
  const ids = [];
  for (let n = 0; n < 3; n += 1) ids.push((await server.notify("anna", n)).id);
  const app = await pages(t, {
    "/": `<!doctype html><script type="module">
      import { Tidings } from "/tidings.js";
      window.seen = [];
      const cursor = new URLSearchParams(location.search).get("cursor") ?? undefined;
      const options = { cursor, onNotification: ({ payload }) => window.seen.push(payload), onHello: () => (window.isLive = true) };
      new Tidings({ url: "${server.url}", user: "anna" }).stream(options);
    </script>`,
  });
  const first = await browser.tab();
  await browser.goto(app);
  await browser.until("the stream", `() => window.isLive`);
  const second = await browser.openTab(`${app}/?cursor=${ids[0]}`);
  await browser.until("what it has missed", `() => JSON.stringify(window.seen) === "[1,2]"`);
  await server.notify("anna", 3);
  for (const [tab, wanted] of [[second, "[1,2,3]"], [first, "[3]"]]) {
    await browser.show(tab);
    await browser.until("the new one", `(wanted) => JSON.stringify(window.seen) === wanted`, wanted);
  }
  await until("one connection", async () => (await streams(server)) === 1);

  // The other way round: the tab that leads has a cursor, and the one that follows has none.
  await browser.show(first);
  await browser.closeTab();
  await browser.show(second);
  await server.notify("anna", 4);
  await browser.until("the next one", `() => JSON.stringify(window.seen) === "[1,2,3,4]"`);
});

/**
 * A tab that leads by a relay, and one that follows and must fetch what it has missed. `reply` says what becomes of the
 * connection of the second: a function of the page that gets a function which opens it.
 */
async function behind(t, reply) {
  const server = await new Home(t).start();
  const ids = [];
  for (let n = 0; n < 3; n += 1) ids.push((await server.notify("anna", n)).id);
  const { url, ...network } = await relay(t, server.address);
  const app = await pages(t, {
    "/": `<!doctype html><script type="module">
      import { Tidings } from "/tidings.js";
      const cursor = new URLSearchParams(location.search).get("cursor") ?? undefined;
      const real = window.fetch;
      const reply = ${reply};
      if (cursor !== undefined) {
        window.fetch = (url, init) => reply(() => real(String(url).replace("${url}", "${server.url}"), init));
      }
      Object.assign(window, { seen: [], statuses: [], led: [] });
      new BroadcastChannel("tidings ${url}/v1/users/anna/").onmessage = ({ data }) => {
        if (data.kind === "status") window.led.push(data.status);
      };
      window.stream = new Tidings({ url: "${url}", user: "anna", maxWaitMs: 200 }).stream({
        cursor,
        onNotification: ({ payload }) => window.seen.push(payload),
        onStatus: (status) => window.statuses.push(status),
      });
    </script>`,
  });
  const browser = await browse(t);
  const first = await browser.tab();
  await browser.goto(app);
  await browser.until("the stream", `() => window.stream?.status === "live"`);
  const second = await browser.openTab(`${app}/?cursor=${ids[0]}`);
  return { server, browser, first, second, ...network };
}

test("a tab that has fetched what it has missed has the status of the leading one", async (t) => {
  const { server, browser, pause } = await behind(t, `async (open) => {
    window.isAsked = true;
    await new Promise((resolve) => (window.release = resolve));
    return open();
  }`);
  await browser.until("the request", `() => window.isAsked`);
  pause(true);
  await browser.until("the leading tab waits", `() => window.led.includes("waiting")`);
  await browser.run(`() => window.release()`);
  await browser.until("what it has missed", `() => JSON.stringify(window.seen) === "[1,2]"`);
  await browser.until("the status of the leading one", `() => window.stream.status === "waiting"`);
  assert.ok(!(await browser.run(`() => window.statuses`)).includes("live"));
  pause(false);
  await browser.until("both are live", `() => window.stream.status === "live"`);
  await server.notify("anna", 3);
  await browser.until("the new one", `() => JSON.stringify(window.seen) === "[1,2,3]"`);
});

test("a tab that cannot fetch what it has missed fails, and does not go on with a hole", async (t) => {
  const refusal = `new Response('{"error":{"code":"forbidden","message":"no"}}', { status: 403 })`;
  const { server, browser, first, second, cut } = await behind(t, `async () => ${refusal}`);
  await browser.until("the failure", `() => window.stream.status === "failed"`);
  cut();
  await browser.until("the leading tab is live again", `() => window.led.includes("waiting") && window.led.at(-1) === "live"`);
  await server.notify("anna", 3);
  await browser.show(first);
  await browser.until("the new one", `() => JSON.stringify(window.seen) === "[3]"`);
  await browser.show(second);
  assert.deepEqual(await browser.run(`() => [window.stream.status, window.seen]`), ["failed", []]);
});

test("a tab that takes over continues from its own cursor", async (t) => {
  const server = await new Home(t).start();
  const { url, pause } = await relay(t, server.address);
  const app = await pages(t, {
    "/": `<!doctype html><script type="module">
      import { Tidings } from "/tidings.js";
      window.seen = [];
      const tidings = new Tidings({ url: "${url}", user: "anna", maxWaitMs: 200 });
      tidings.stream({ onNotification: ({ payload }) => window.seen.push(payload), onHello: () => (window.isLive = true) });
    </script>`,
  });
  const browser = await browse(t);
  const tabs = [await browser.tab()];
  await browser.goto(app);
  await browser.until("the stream", `() => window.isLive`);
  for (let n = 0; n < 2; n += 1) {
    tabs.push(await browser.openTab(app));
    await browser.until("the stream", `() => window.isLive`);
  }
  await server.notify("anna", 1);
  const saw = async (wanted) => {
    for (const tab of tabs) {
      await browser.show(tab);
      await browser.until("each event once", `(wanted) => JSON.stringify(window.seen) === wanted`, JSON.stringify(wanted));
    }
  };
  await saw([1]);
  // The tab that leads is closed while the server cannot be reached.
  pause(true);
  await browser.show(tabs.shift());
  await browser.closeTab();
  for (const n of [2, 3]) await server.notify("anna", n);
  pause(false);
  await saw([1, 2, 3]);
  await server.notify("anna", 4);
  await saw([1, 2, 3, 4]);
});

test("the tabs continue when the server restarts", async (t) => {
  const home = new Home(t);
  const server = await home.start({ address: "127.0.0.6:0" });
  const app = await pages(t, { "/": page(server) });
  const browser = await browse(t);
  const tabs = [await browser.tab()];
  await browser.goto(app);
  tabs.push(await browser.openTab(app));
  for (const tab of tabs) {
    await browser.show(tab);
    await browser.until("the tab is live", isTrue(`element?.inbox?.state.status === "live"`));
  }
  await server.kill();
  await browser.until("the loss is said", isTrue(`!$(".notice").hidden`));
  const again = await home.start({ address: server.address });
  await again.notify("anna", { title: "after the restart" });
  for (const tab of tabs) {
    await browser.show(tab);
    await browser.until("the new one", isTrue(`$("li .title")?.textContent === "after the restart"`));
    await browser.until("all is well", isTrue(`$(".notice").hidden`));
  }
});

/** A token as an application signs it. */
function token(user, seconds, secret) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + seconds })}`;
  return `${signed}.${createHmac("sha256", secret).update(signed).digest("base64url")}`;
}

test("tokens come from the application, and words say when there is none", async (t) => {
  const secret = "a-secret-of-at-least-32-bytes-for-tests";
  let issue = () => token("anna", 600, secret);
  const args = ["--api-key", "a-key-for-this-test-0123456789", "--jwt-secret", secret];
  const attributes = `token-url="/token"`;
  const { server, app, browser } = await opened(t, { args, attributes, routes: { "/token": () => issue() } });
  const key = { authorization: "Bearer a-key-for-this-test-0123456789" };
  await server.post("/v1/notifications", { user_id: "anna", payload: { title: "hers" } }, key);
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "1"`));
  // Who signs in again needs no reload, and an application that fails has signed nobody out.
  for (const [reply, words] of [[401, "You are signed out"], [403, "You are signed out"], [500, "The next try follows soon"], [429, "The next try follows soon"]]) {
    issue = () => reply;
    await browser.goto(app);
    await browser.click(find(".bell"));
    await browser.until("the words", isTrue(`$(".notice").innerText.includes("${words}")`));
    assert.equal(await browser.run(inside(`$(".bell").ariaLabel`)), "Notifications", "how many there are is not known");
    issue = () => token("anna", 600, secret);
    await browser.until("the list", isTrue(`$$("li").length === 1 && $(".notice").hidden`));
  }
  issue = () => token("ben", 600, secret);
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the other words", isTrue(`$(".notice").innerText.includes("not yours")`));
});

/** The contrast of two colors, as the guidelines for accessibility define it. */
function contrast(...colors) {
  const luminances = colors.map((color) => {
    const [red, green, blue] = color.match(/\d+/g).map((part) => {
      const value = Number(part) / 255;
      return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  });
  const [dark, light] = luminances.sort((one, other) => one - other);
  return (light + 0.05) / (dark + 0.05);
}

test("the list fills a narrow screen, and follows the colors of the system", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  await browser.command("Emulation.setDeviceMetricsOverride", { width: 360, height: 640, deviceScaleFactor: 2, mobile: true });
  await browser.command("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: "dark" }] });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 1`));
  const { width, height } = await browser.run(inside(`$(".panel").getBoundingClientRect().toJSON()`));
  assert.deepEqual([width, height], [360, 640]);
  assert.equal(await browser.run(inside(`getComputedStyle($(".panel")).backgroundColor`)), "rgb(25, 28, 35)");
  for (const theme of ["light", "dark"]) {
    await browser.run(inside(`void element.setAttribute("theme", "${theme}")`));
    const style = `getComputedStyle($(".badge"))`;
    const [color, background] = await browser.run(inside(`[${style}.color, ${style}.backgroundColor]`));
    assert.ok(contrast(color, background) >= 4.5, `${theme}: ${color} on ${background}`);
  }
  await browser.click(find(".close"));
  await browser.until("it is closed", isTrue(`!$(".panel").matches(":popover-open")`));
});

test("the page may set properties before the client is loaded, and take links over", async (t) => {
  const secret = "a-secret-of-at-least-32-bytes-for-tests";
  const key = "a-key-for-this-test-0123456789";
  const server = await new Home(t).start({ args: ["--api-key", key, "--jwt-secret", secret] });
  await server.post("/v1/notifications", { user_id: "anna", payload: { title: "Hello", url: "/there" } }, { authorization: `Bearer ${key}` });
  const app = await pages(t, {
    "/": `<!doctype html><tidings-inbox user="anna" server="${server.url}"></tidings-inbox><script>
      const element = document.querySelector("tidings-inbox");
      element.token = () => "${token("anna", 600, secret)}";
      element.labels = { notifications: "Mitteilungen" };
      element.addEventListener("tidings-open", (event) => { event.preventDefault(); window.opened = event.detail.url; });
    </script><script type="module" src="/tidings.js"></script>`,
  });
  const browser = await browse(t);
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge")?.textContent === "1"`));
  await browser.click(find(".bell"));
  await browser.until("the other language", isTrue(`$("h2").textContent === "Mitteilungen" && $(".mark-all").textContent === "Mark all as read"`));
  await browser.click(find("a.title"));
  await browser.until("the page got it", `(url) => window.opened === url`, `${app}/there`);
  await browser.until("the list is closed, and it is read", isTrue(`!$(".panel").matches(":popover-open") && element.inbox.state.unread === 0`));
  await browser.run(`() => document.querySelector("tidings-inbox").setAttribute("user", "ben")`);
  await browser.until("of another user nothing is shown", isTrue(`$$("li").length === 0`));
  const element = `document.querySelector("tidings-inbox")`;
  await browser.run(`() => { window.kept = ${element}; window.kept.remove(); }`);
  await browser.run(`() => { window.kept.setAttribute("user", "anna"); document.body.append(window.kept); }`);
  await browser.until("it works again elsewhere", isTrue(`element.inbox?.state.items.length === 1`));
});

test("nothing stays of a user who signs out, and the list stays open for the next one", async (t) => {
  const { server, app, browser } = await opened(t);
  for (const title of ["one", "two"]) await server.notify("anna", { title });
  await server.notify("ben", { title: "for ben" });
  await browser.goto(app);
  const isEmpty = `$$("li").length === 0 && $(".badge").hidden && $(".mark-all").hidden && $(".done").hidden && !root.textContent.includes("two")`;
  /** What follows in the same turn, and after it. */
  const afterwards = (attribute, value) => `async () => {
    ${ELEMENT}
    if (${value === null}) element.removeAttribute("${attribute}"); else element.setAttribute("${attribute}", "${value}");
    const atOnce = ${isEmpty};
    await new Promise((resolve) => setTimeout(resolve));
    return [atOnce, ${isEmpty}];
  }`;
  const wrong = [["user", null], ["user", ".."], ["server", "ftp://nowhere"]];
  for (const [attribute, value] of wrong) {
    await browser.until("hers", isTrue(`$$("li").length === 2 && $(".badge").textContent === "2"`));
    assert.deepEqual(await browser.run(afterwards(attribute, value)), [true, true], `${attribute} ${value}`);
    await browser.run(inside(`void (element.setAttribute("user", "anna"), element.setAttribute("server", "${server.url}"))`));
  }
  await browser.click(find(".bell"));
  await browser.until("hers", isTrue(`$$("li").length === 2`));
  await browser.click(find("li .archive"));
  await browser.until("it can be undone", isTrue(`$$("li").length === 1 && !$(".done").hidden`));
  assert.deepEqual(await browser.run(afterwards("user", "ben")), [true, true]);
  await browser.until("his", isTrue(`$("li .title")?.textContent === "for ben"`));
  assert.ok(await browser.run(isTrue(`$(".panel").matches(":popover-open") && $(".bell").ariaExpanded === "true"`)));
  await until("it is seen", async () => (await counts(server, "ben")).unseen === 0);
  const isLoadingWithoutUser = `() => {
    const another = document.createElement("tidings-inbox");
    document.body.append(another);
    const loading = another.shadowRoot.querySelector(".skeleton").parentElement;
    another.remove();
    return !loading.hidden;
  }`;
  assert.equal(await browser.run(isLoadingWithoutUser), false);
});

test("an action of a user who has signed out tells the next one nothing", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`$$("li").length === 1`));
  await browser.run(inside(`void (() => {
    const real = window.fetch;
    const { inbox } = element;
    const archive = inbox.archive.bind(inbox);
    inbox.archive = (id) => (window.archiving = archive(id));
    window.errors = 0;
    element.addEventListener("tidings-error", () => (window.errors += 1));
    window.fetch = async (url, init) => {
      if (!String(url).endsWith("/archive")) return real(url, init);
      window.isAsked = true;
      await new Promise((resolve) => (window.reply = resolve));
      return new Response('{"error":{"code":"forbidden","message":"no"}}', { status: 403 });
    };
  })()`));
  await browser.click(find("li .archive"));
  await browser.until("the request", `() => window.isAsked`);
  const after = `async () => {
    ${ELEMENT}
    element.setAttribute("user", "ben");
    window.reply();
    const { status } = await window.archiving.catch((error) => error);
    await new Promise((resolve) => setTimeout(resolve));
    return [status, $(".done").hidden, window.errors];
  }`;
  assert.deepEqual(await browser.run(after), [403, true, 0]);
});

test("what arrives while the page is hidden is seen when the person comes back", async (t) => {
  const { server, app, browser } = await opened(t);
  await browser.goto(app);
  await browser.click(find(".bell"));
  await browser.until("the list", isTrue(`!$(".empty").hidden`));
  const become = (state) => `() => {
    Object.defineProperty(document, "visibilityState", { configurable: true, get: () => "${state}" });
    document.dispatchEvent(new Event("visibilitychange"));
  }`;
  await browser.run(become("hidden"));
  await server.notify("anna", { title: "One" });
  await browser.until("the badge", isTrue(`$$("li").length === 1 && $(".badge").textContent === "1"`));
  await browser.run(become("visible"));
  await browser.until("it is seen", isTrue(`$(".badge").hidden`));
  await until("the server knows it", async () => (await counts(server)).unseen === 0);
});

test("what cannot be marked as seen is not tried again and again", async (t) => {
  const { server, app, browser } = await opened(t);
  await server.notify("anna", { title: "One" });
  await browser.goto(app);
  await browser.until("the badge", isTrue(`$(".badge").textContent === "1"`));
  await browser.run(`() => {
    const real = window.fetch;
    window.asked = 0;
    window.fetch = (url, init) => {
      if (!String(url).endsWith("/seen")) return real(url, init);
      window.asked += 1;
      return Promise.resolve(new Response('{"error":{"code":"forbidden","message":"no"}}', { status: 403 }));
    };
  }`);
  await browser.click(find(".bell"));
  await browser.until("the badge is back", isTrue(`window.asked === 1 && !$(".badge").hidden`));
  await server.notify("anna", { title: "Two" });
  await browser.until("the next one", isTrue(`$$("li").length === 2`));
  assert.ok((await browser.run(`() => window.asked`)) <= 2);
});
