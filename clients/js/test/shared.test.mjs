// Tabs that share one connection, at the moments at which it is not simply live.

import assert from "node:assert/strict";
import { test } from "node:test";
import { browse, pages } from "./browser.mjs";
import { token } from "./element.mjs";
import { Home, relay, until } from "./support.mjs";

/**
 * Pages that open a stream of anna, and record what it gives. `?cursor=` is where it begins, `?token=` is what the
 * application returns, with `?signedout` only once or not at all, until `window.signedIn` is another one. With `?gated` its
 * requests wait until `window.release` is called. `window.led` has an entry for each time at which a tab began to lead.
 */
const streams = (url, before = "") => ({
  "/": `<!doctype html><script type="module">
    import { Tidings } from "/tidings.js";
    const parameters = new URLSearchParams(location.search);
    const cursor = parameters.get("cursor") ?? undefined;
    const isSignedOut = parameters.has("signedout");
    let given = parameters.get("token");
    const issue = () => {
      const text = window.signedIn ?? given;
      if (isSignedOut) given = null;
      if (text === null) throw Object.assign(new Error("signed out"), { status: 401 });
      return text;
    };
    const token = given === null && !isSignedOut ? undefined : issue;
    Object.assign(window, { seen: [], statuses: [], errors: [], hellos: [], gaps: [], led: [], caughtUps: 0 });
    new BroadcastChannel("tidings ${url}/v1/users/anna/").onmessage = ({ data }) => {
      if (data.kind === "lead") window.led.push(data.term);
    };
    ${before}
    if (parameters.has("gated")) {
      const real = window.fetch;
      const gate = new Promise((resolve) => (window.release = resolve));
      window.fetch = (...request) => {
        window.isAsked = true;
        return gate.then(() => real(...request));
      };
    }
    window.stream = new Tidings({ url: "${url}", user: "anna", maxWaitMs: 100, token }).stream({
      cursor,
      onNotification: ({ payload }) => window.seen.push(payload),
      onStatus: (status, error) => {
        window.statuses.push(status);
        if (error !== undefined) window.errors.push(error.code);
      },
      onHello: (hello) => window.hellos.push(hello),
      onGap: (gap) => window.gaps.push(gap),
      onCaughtUp: () => (window.caughtUps += 1),
    });
  </script>`,
});

const isLive = `() => window.stream?.status === "live"`;
const saw = `(wanted) => JSON.stringify(window.seen) === wanted`;

/** Between two connections the page waits for so long that only a reason to hurry ends it. */
const LONG_WAITS = `Math.random = () => 1e6;`;

/** A tab that is shown has no reason to hurry. */
const UNSEEN = `document.addEventListener("visibilitychange", (event) => event.stopImmediatePropagation());`;

/** A server, and the cursors of so many notifications. */
async function serverWith(t, count, options) {
  const server = await new Home(t).start(options);
  const ids = [];
  for (let n = 0; n < count; n += 1) ids.push((await server.notify("anna", n)).id);
  return { server, ids };
}

/** Open streams, as the server counts them. */
async function open(server) {
  const text = await (await fetch(`${server.url}/metrics`)).text();
  return Number(text.match(/^tidings_subscription_active(?:\{[^}]*\})? (\d+)/m)?.[1]);
}

/** A server with tokens, and a function that makes one of anna. */
async function serverWithTokens(t) {
  const secret = "a-secret-of-at-least-32-bytes-for-tests";
  const key = "a-key-for-this-test-0123456789";
  const server = await new Home(t).start({ args: ["--jwt-secret", secret, "--api-key", key] });
  const notify = (payload) => server.post("/v1/notifications", { user_id: "anna", payload }, { authorization: `Bearer ${key}` });
  return { server, notify, tokenFor: (seconds) => token("anna", seconds, secret) };
}

test("a tab whose token is refused fails for good, and the others go on with theirs", async (t) => {
  const { server, notify, tokenFor } = await serverWithTokens(t);
  const good = tokenFor(600);
  const app = await pages(t, streams(server.url));
  const browser = await browse(t);
  const refused = await browser.tab();
  await browser.goto(`${app}/?gated&token=${good}x`);
  await browser.until("the first tab leads", `() => window.isAsked`);
  const second = await browser.openTab(`${app}/?token=${good}`);
  await browser.until("the stream of the second", `() => window.stream`);
  await browser.show(refused);
  await browser.run(`() => window.release()`);
  await browser.until("the failure", `() => window.stream.status === "failed"`);
  await browser.show(second);
  await browser.until("the second tab is live", isLive);
  assert.ok(!(await browser.run(`() => window.statuses`)).includes("failed"));

  // Also when the tab is gone that leads now, no other one says that it is live and gets nothing.
  const third = await browser.openTab(`${app}/?token=${good}`);
  await browser.until("the third tab is live", isLive);
  await browser.show(second);
  await browser.closeTab();
  await browser.show(third);
  await notify(1);
  await browser.until("the new one", saw, "[1]");
  await browser.show(refused);
  assert.deepEqual(await browser.run(`() => [window.statuses.at(-1), window.seen]`), ["failed", []]);
});

test("a tab that gets no token lets another one lead, and gets what that one passes on", async (t) => {
  const { server, notify, tokenFor } = await serverWithTokens(t);
  const app = await pages(t, streams(server.url));
  const browser = await browse(t);
  const signedOut = await browser.tab();
  await browser.goto(`${app}/?signedout`);
  await browser.until("it waits", `() => window.stream?.status === "waiting"`);
  const second = await browser.openTab(`${app}/?token=${tokenFor(600)}`);
  await browser.until("the second tab is live", isLive);
  await notify(1);
  for (const tab of [second, signedOut]) {
    await browser.show(tab);
    await browser.until("the new one", saw, "[1]");
  }
  assert.deepEqual(await browser.run(`() => [...new Set(window.errors)]`), ["token_unavailable"]);
  await browser.show(second);
  assert.deepEqual(await browser.run(`() => window.errors`), [], "the error of the other tab is not its own");

  // It gets no token when it is to lead, either, and says so.
  await browser.closeTab();
  await browser.show(signedOut);
  await browser.until("it waits again", `() => window.stream.status === "waiting"`);
});

test("tabs without a token do not hand the lead to one another", async (t) => {
  const { server, notify, tokenFor } = await serverWithTokens(t);
  const app = await pages(t, streams(server.url, LONG_WAITS + UNSEEN));
  const browser = await browse(t);
  const tabs = [];
  for (let n = 0; n < 3; n += 1) {
    const address = `${app}/?signedout`;
    if (n === 0) await browser.goto(address);
    tabs.push(n === 0 ? await browser.tab() : await browser.openTab(address));
    await browser.until("it waits", `() => window.stream?.status === "waiting"`);
  }
  const last = await browser.openTab(`${app}/?token=${tokenFor(600)}`);
  await browser.until("the last tab is live", isLive);
  await notify(1);
  for (const [n, tab] of [...tabs, last].entries()) {
    await browser.show(tab);
    await browser.until("the new one", saw, "[1]");
    const [led, statuses] = await browser.run(`() => [window.led.length, window.statuses]`);
    assert.equal(led, 4 - n, "this tab has led once, and each that came later");
    assert.deepEqual(statuses, n < 3 ? ["connecting", "waiting", "live"] : ["connecting", "live"]);
  }
});

test("a tab that leads hands the lead over when it gets no new token, and nothing is missed", async (t) => {
  const { server, notify, tokenFor } = await serverWithTokens(t);
  const app = await pages(t, streams(server.url));
  const browser = await browse(t);
  const first = await browser.tab();
  await browser.goto(`${app}/?signedout&token=${tokenFor(5)}`);
  await browser.until("the first tab is live", isLive);
  const second = await browser.openTab(`${app}/?token=${tokenFor(600)}`);
  await browser.until("the second tab is live", isLive);
  let n = 0;
  // Until this tab leads. It may do so before it hears that the other waits.
  while ((await browser.run(`() => window.led.length`)) === 0) await notify((n += 1));
  await browser.until("it is live again", isLive);
  await notify((n += 1));
  const all = JSON.stringify([...Array(n).keys()].map((index) => index + 1));
  await browser.until("each once", saw, all);
  // If it has missed something meanwhile, it needs a token to fetch that.
  await browser.show(first);
  await browser.run(`(text) => { window.signedIn = text; }`, tokenFor(600));
  await browser.until("each once", saw, all);
});

test("a tab without a cursor gets nothing of the backlog of another one", async (t) => {
  const { server, ids } = await serverWith(t, 3);
  const app = await pages(t, streams(server.url));
  const browser = await browse(t);
  const first = await browser.tab();
  await browser.goto(`${app}/?gated&cursor=${ids[0]}`);
  await browser.until("the first tab leads", `() => window.isAsked`);
  const second = await browser.openTab(app);
  await browser.until("it follows", `() => window.stream`);
  await browser.show(first);
  await browser.run(`() => window.release()`);
  await browser.until("the backlog", saw, "[1,2]");
  await browser.show(second);
  await browser.until("it is live", isLive);
  await server.notify("anna", 3);
  await browser.until("the new one", saw, "[3]");
  const [hellos, caughtUps] = await browser.run(`() => [window.hellos, window.caughtUps]`);
  assert.deepEqual([hellos.map(({ cursor }) => cursor), caughtUps], [[ids[2]], 1]);
  assert.equal(await open(server), 1);
});

test("a tab that joins later begins where the log is then, and hears that it has caught up", async (t) => {
  const { server } = await serverWith(t, 1);
  const app = await pages(t, streams(server.url));
  const browser = await browse(t);
  const first = await browser.tab();
  await browser.goto(app);
  await browser.until("the stream", isLive);
  const ids = [];
  for (const n of [1, 2, 3]) ids.push((await server.notify("anna", n)).id);
  await browser.until("the new ones", saw, "[1,2,3]");
  const began = async (tab) => {
    await browser.until("it has caught up", `() => window.caughtUps === 1`);
    const [seen, hellos] = await browser.run(`() => [window.seen, window.hellos]`);
    return { tab, seen, hellos };
  };
  const now = await began(await browser.openTab(app));
  const later = await began(await browser.openTab(`${app}/?cursor=${ids[0]}`));
  for (const [{ seen, hellos }, wanted] of [[now, []], [later, [2, 3]]]) {
    assert.deepEqual(seen, wanted);
    assert.deepEqual(hellos, [{ user_id: "anna", cursor: ids[2], ping_interval_ms: 20000 }]);
  }
  await server.notify("anna", 4);
  for (const [tab, wanted] of [[first, "[1,2,3,4]"], [now.tab, "[4]"], [later.tab, "[2,3,4]"]]) {
    await browser.show(tab);
    await browser.until("each once", saw, wanted);
  }
});

test("a tab in view ends the wait of the tab that leads when the network is back", async (t) => {
  const { server } = await serverWith(t, 1);
  const { url, pause } = await relay(t, server.address);
  const app = await pages(t, streams(url, LONG_WAITS));
  const browser = await browse(t);
  await browser.goto(app);
  await browser.until("the stream", isLive);
  await browser.openTab(app);
  await browser.until("the second tab is live", isLive);
  pause(true);
  await browser.until("the loss", `() => window.stream.status === "waiting"`);
  pause(false);
  await browser.run(`() => dispatchEvent(new Event("online"))`);
  await browser.until("it is live again", isLive);
  await server.notify("anna", 1);
  await browser.until("the new one", saw, "[1]");
  assert.equal(await open(server), 1);
});

/** Events of the browser in all tabs, and a time in which nobody looked at any of them: `window.sign` resolves when they have happened. */
const SIGNS = `
  const real = Date.now;
  let leap = 0;
  Date.now = () => real() + leap;
  const happen = (name) => (name === "away" ? (leap = 31_000) : dispatchEvent(new Event(name)));
  const signs = new BroadcastChannel("signs");
  signs.onmessage = ({ data }) => {
    happen(data);
    signs.postMessage("happened");
  };
  window.sign = (name, tabs) => {
    happen(name);
    if (tabs === 1) return;
    return new Promise((resolve) => {
      signs.onmessage = resolve;
      signs.postMessage(name);
    });
  };`;
const UNSHARED = `Object.defineProperty(navigator, "locks", { value: undefined });`;

for (const [where, tabs, before] of [["", 1, UNSHARED], ["of a hidden tab ", 2, ""]]) {
  for (const [what, name] of [["the network is back", "online"], ["a person comes back", "away"]]) {
    test(`a connection ${where}that died without a word is replaced when ${what}`, async (t) => {
      const { server } = await serverWith(t, 1);
      const { url, freeze } = await relay(t, server.address);
      const app = await pages(t, streams(url, SIGNS + before));
      const browser = await browse(t);
      await browser.goto(app);
      await browser.until("the stream", isLive);
      if (tabs === 2) {
        await browser.openTab(app);
        await browser.until("the second tab is live", isLive);
      }
      // Of a person who has looked a moment ago nothing is tried.
      const show = `() => document.dispatchEvent(new Event("visibilitychange"))`;
      await browser.run(show);
      await server.notify("anna", 1);
      await browser.until("the first one", saw, "[1]");
      assert.equal(await browser.run(`() => window.hellos.length`), 1);
      freeze();
      await server.notify("anna", 2);
      await browser.run(`(name, tabs) => window.sign(name, tabs)`, name, tabs);
      await browser.run(show);
      await browser.until("what was missed", saw, "[1,2]");
      await server.notify("anna", 3);
      await browser.until("the next one", saw, "[1,2,3]");
      assert.deepEqual(await browser.run(`() => window.statuses`), ["connecting", "live"]);
    });
  }
}

test("a page without a network waits, and is live as soon as something arrives", async (t) => {
  const { server } = await serverWith(t, 1);
  const app = await pages(t, streams(server.url));
  const browser = await browse(t);
  await browser.goto(app);
  await browser.until("the stream", isLive);
  await browser.run(`() => dispatchEvent(new Event("offline"))`);
  assert.deepEqual(await browser.run(`() => [window.stream.status, window.errors]`), ["waiting", ["unreachable"]]);
  await server.notify("anna", 1);
  await browser.until("it is live again", `() => window.stream.status === "live" && window.caughtUps === 2`);
  await browser.until("the new one", saw, "[1]");
  assert.deepEqual(await browser.run(`() => window.statuses`), ["connecting", "live", "waiting", "live"]);
  await until("one connection", async () => (await open(server)) === 1);
});

for (const [what, notifications] of [["with", ["new log"]], ["without", []]]) {
test(`a tab that has heard of a new log ${what} events follows one that has not`, async (t) => {
  const { server, ids } = await serverWith(t, 3, { address: "127.0.0.9:0" });
  const app = await pages(t, streams(server.url, LONG_WAITS + UNSEEN));
  const browser = await browse(t);
  const first = await browser.tab();
  await browser.goto(app);
  await browser.until("the stream", isLive);
  await server.kill();
  await browser.until("the loss", `() => window.stream.status === "waiting"`);
  const again = await new Home(t).start({ address: server.address });
  for (const payload of notifications) await again.notify("anna", payload);
  const second = await browser.openTab(`${app}/?cursor=${ids[0]}`);
  await browser.until("the gap and the wait", `() => window.gaps?.length === 1 && window.stream?.status === "waiting"`);
  await browser.until("what it has missed", saw, JSON.stringify(notifications));
  await until("no connection stays", async () => (await open(again)) === 0);
  // That ends the wait of the tab that leads.
  await browser.run(`() => dispatchEvent(new Event("online"))`);
  await browser.show(first);
  await browser.until("it is live again", isLive);
  await again.notify("anna", "live");
  await browser.show(second);
  await browser.until("the second tab is live", isLive);
  for (const tab of [second, first]) {
    await browser.show(tab);
    await browser.until("each once", saw, JSON.stringify([...notifications, "live"]));
    assert.equal(await browser.run(`() => window.gaps.length`), 1);
  }
  await until("one connection", async () => (await open(again)) === 1);
});
}

/** What a browser does to pages that nobody has looked at for a while: `frozen`, and `active` when somebody looks again. */
const setLifecycle = (browser, state) => browser.command("Page.setWebLifecycleState", { state });

for (const [which, frozen] of [["leads", 0], ["follows", 1]]) {
  test(`a tab that ${which} and is frozen gets what it has missed when it runs again, and the other one goes on`, async (t) => {
    const { server } = await serverWith(t, 1);
    const app = await pages(t, streams(server.url));
    const browser = await browse(t);
    const tabs = [await browser.tab()];
    await browser.goto(app);
    await browser.until("the first tab is live", isLive);
    tabs.push(await browser.openTab(app));
    await browser.until("the second tab is live", isLive);
    await server.notify("anna", 1);
    for (const tab of tabs) {
      await browser.show(tab);
      await browser.until("the first one", saw, "[1]");
    }
    const seen = [1];
    for (let round = 0; round < 2; round += 1) {
      await browser.show(tabs[frozen]);
      await setLifecycle(browser, "frozen");
      await browser.show(tabs[1 - frozen]);
      for (let n = 0; n < 2; n += 1) {
        seen.push(seen.length + 1);
        await server.notify("anna", seen.length);
        await browser.until("what comes meanwhile", saw, JSON.stringify(seen));
      }
      await browser.show(tabs[frozen]);
      await setLifecycle(browser, "active");
      seen.push(seen.length + 1);
      await server.notify("anna", seen.length);
      for (const tab of tabs) {
        await browser.show(tab);
        await browser.until("each once", saw, JSON.stringify(seen));
        await browser.until("it is live", isLive);
      }
      await until("one connection", async () => (await open(server)) === 1);
    }
  });
}

test("a page with a connection of its own has none while it is frozen, and goes on from its cursor", async (t) => {
  const { server } = await serverWith(t, 1);
  const app = await pages(t, streams(server.url, UNSHARED));
  const browser = await browse(t);
  await browser.goto(app);
  await browser.until("the stream", isLive);
  await server.notify("anna", 1);
  await browser.until("the first one", saw, "[1]");
  await setLifecycle(browser, "frozen");
  await until("no connection", async () => (await open(server)) === 0);
  await server.notify("anna", 2);
  await setLifecycle(browser, "active");
  await browser.until("what it has missed", saw, "[1,2]");
  assert.deepEqual(await browser.run(`() => window.statuses`), ["connecting", "live", "waiting", "live"]);
});

test("a stream that has failed for good stays so when the page runs again, or a person goes back to it", async (t) => {
  const { server, tokenFor } = await serverWithTokens(t);
  const app = await pages(t, streams(server.url));
  const browser = await browse(t);
  await browser.goto(`${app}/?token=${tokenFor(600)}x`);
  await browser.until("the failure", `() => window.stream?.status === "failed"`);
  await browser.run(`() => void (window.statuses = ["failed"])`);
  await setLifecycle(browser, "frozen");
  await setLifecycle(browser, "active");
  await browser.goto(`${server.url}/health/live`);
  await browser.back();
  assert.deepEqual(await browser.run(`() => window.statuses`), ["failed"]);
});

test("a tab ignores one that was replaced while it was frozen, and replies when it runs again", async (t) => {
  const { server, ids } = await serverWith(t, 1);
  const name = JSON.stringify(`tidings ${server.url}/v1/users/anna/`);
  const late = `<!doctype html><script>
    window.replies = 0;
    const channel = new BroadcastChannel(${name});
    channel.onmessage = ({ data }) => {
      if (data.kind !== "join") return;
      const progress = { status: "live", error: undefined, hello: undefined, isCaughtUp: true };
      // After the reply of the tab that leads, and before what was missed is fetched.
      for (const delay of [0, 3, 6, 9]) {
        setTimeout(() => {
          channel.postMessage({ kind: "state", to: data.from, term: "of the one before", cursor: ${JSON.stringify(ids[0])}, ...progress });
          window.replies += 1;
        }, delay);
      }
    };
  </script>`;
  const app = await pages(t, { ...streams(server.url), "/late": late });
  const browser = await browse(t);
  const first = await browser.tab();
  await browser.goto(app);
  await browser.until("the stream", isLive);
  const tabs = [];
  for (let n = 0; n < 2; n += 1) {
    tabs.push(await browser.openTab(app));
    await browser.until("the stream", isLive);
  }
  const other = await browser.openTab(`${app}/late`);
  await browser.show(first);
  await browser.closeTab();
  await browser.show(other);
  await browser.until("the late reply", `() => window.replies > 0`);
  await server.notify("anna", 1);
  for (const tab of tabs) {
    await browser.show(tab);
    await browser.until("the new one", saw, "[1]");
  }
});
