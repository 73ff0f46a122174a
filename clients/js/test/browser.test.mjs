import assert from "node:assert/strict";
import { test } from "node:test";
import { browse, pages } from "./browser.mjs";
import { isTrue, opened, page } from "./element.mjs";
import { Home, relay, until } from "./support.mjs";
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

test("a leading tab that is busy is replaced", async (t) => {
  const { server, app, browser } = await opened(t);
  const { first, second } = await twoTabs(app, browser);
  await browser.show(first);
  // A page that does not run: its lock stays, and it passes nothing on.
  await browser.run(`() => void setTimeout(() => { const end = Date.now() + 12000; while (Date.now() < end); })`);
  await browser.show(second);
  await server.notify("anna", { title: "while it is busy" });
  const started = Date.now();
  await browser.run(`() => document.dispatchEvent(new Event("visibilitychange"))`);
  await browser.until("the new one", newest("while it is busy"));
  assert.ok(Date.now() - started < 11_000, "while it is still busy");
  // It follows afterwards.
  await browser.show(first);
  await server.notify("anna", { title: "afterwards" });
  await browser.until("the new one", newest("afterwards"));
  assert.equal(await streams(server), 1);
});

test("the inbox of a tab that was frozen has what was changed meanwhile", async (t) => {
  const { server, app, browser } = await opened(t);
  const { id } = await server.notify("anna", { title: "before" });
  const { first, second } = await twoTabs(app, browser);
  await browser.show(first);
  await browser.command("Page.setWebLifecycleState", { state: "frozen" });
  await browser.show(second);
  await server.post(`/v1/users/anna/notifications/${id}/read`, {});
  await browser.until("it is read", isTrue(`element.inbox.state.unread === 0`));
  await server.notify("anna", { title: "while it is frozen" });
  await browser.until("the new one", newest("while it is frozen"));
  await browser.show(first);
  await browser.command("Page.setWebLifecycleState", { state: "active" });
  await browser.until("both", isTrue(`element.inbox.state.unread === 1 && element.inbox.state.items.length === 2`));
  await browser.until("the new one", newest("while it is frozen"));
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
    await browser.run(isTrue(`void element.open()`));
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
