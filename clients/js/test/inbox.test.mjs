import assert from "node:assert/strict";
import { test } from "node:test";
import { Home, Inbox, relay, Tidings, TidingsError, until } from "./support.mjs";

const payloads = (inbox) => inbox.state.items.map(({ payload }) => payload);

function open(test, options, inboxOptions) {
  const inbox = new Tidings({ user: "anna", maxWaitMs: 200, ...options }).inbox(inboxOptions);
  test.after(() => inbox.close());
  return inbox;
}

/** What a new reader of the inbox sees. */
async function truth(url) {
  const { data, unread, unseen } = await new Tidings({ user: "anna", url }).list({ limit: 1000 });
  return { items: data.map(({ id, read_at }) => [id, read_at !== null]), unread, unseen };
}

function shown({ state: { items, unread, unseen } }) {
  return { items: items.map(({ id, read_at }) => [id, read_at !== null]), unread, unseen };
}

/** Waits until the inbox shows what the server has. */
async function settled(inbox, url) {
  await until("the inbox is exact", async () => {
    const wanted = JSON.stringify(await truth(url));
    return JSON.stringify(shown(inbox)) === wanted && JSON.stringify(await truth(url)) === wanted;
  }).catch(async (error) => {
    assert.deepEqual(shown(inbox), await truth(url));
    throw error;
  });
}

test("an inbox shows the past, what comes, and what other screens do", async (t) => {
  const server = await new Home(t).start();
  await server.notify("anna", "old");
  const inbox = open(t, { url: server.url });
  await until("the past", () => inbox.state.items.length === 1);
  assert.deepEqual(payloads(inbox), ["old"]);
  assert.equal(inbox.state.unread, 1);
  assert.equal(inbox.state.unseen, 1);
  const { id } = await server.notify("anna", "new");
  await until("the new one", () => inbox.state.items.length === 2);
  assert.deepEqual(payloads(inbox), ["new", "old"]);
  await server.post(`/v1/users/anna/notifications/${id}/read`, {});
  await until("it is read", () => inbox.state.unread === 1);
  assert.notEqual(inbox.state.items[0].read_at, null);
  await server.post(`/v1/users/anna/notifications/${id}/archive`, {});
  await until("it is gone", () => inbox.state.items.length === 1);
  await server.post("/v1/users/anna/notifications/seen", {});
  await until("all are seen", () => inbox.state.unseen === 0);
  assert.equal(inbox.state.unread, 1);
});

test("list and stream join exactly while events and changes go on", async (t) => {
  const server = await new Home(t).start();
  let isOver = false;
  const inboxes = [];
  const writer = async (seed) => {
    const ids = [];
    for (let n = 0; n < 60; n += 1) {
      const key = n % 7 === 0 ? { key: `key-${n % 3}` } : {};
      ids.push((await server.notify("anna", `${seed}-${n}`, key)).id);
      const id = ids[(n * 7 + seed) % ids.length];
      const action = ["read", "unread", "archive", "unarchive", "read"][(n + seed) % 5];
      await server.post(`/v1/users/anna/notifications/${id}/${action}`, {});
      if (n % 20 === 19) await server.post("/v1/users/anna/notifications/read-all", { up_to: id });
      if (n % 15 === 14) await server.post("/v1/users/anna/notifications/seen", {});
    }
  };
  const opener = async () => {
    while (!isOver) {
      inboxes.push(open(t, { url: server.url, transport: "sse" }, { limit: 1000 }));
      await new Promise((resolve) => setTimeout(resolve, 40));
      if (inboxes.length >= 12) return;
    }
  };
  const opening = opener();
  await Promise.all([writer(1), writer(2), writer(3)]);
  isOver = true;
  await opening;
  assert.ok(inboxes.length > 3);
  for (const inbox of inboxes) await settled(inbox, server.url);
});

test("an inbox is exact after its connection was cut again and again", async (t) => {
  const server = await new Home(t).start();
  const { url, cut } = await relay(t, server.address);
  const inbox = open(t, { url }, { limit: 1000 });
  for (let n = 0; n < 40; n += 1) {
    const { id } = await server.notify("anna", n);
    if (n % 3 === 0) await server.post(`/v1/users/anna/notifications/${id}/read`, {});
    if (n % 5 === 0) cut();
    if (n % 4 === 0) await server.post(`/v1/users/anna/notifications/${id}/unread`, {});
  }
  await settled(inbox, server.url);
});

test("an action shows at once, and is undone if the server refuses it", async (t) => {
  const server = await new Home(t).start();
  const { id } = await server.notify("anna", "one");
  const inbox = open(t, { url: server.url });
  await until("the list", () => !inbox.state.isLoading);
  const reading = inbox.markRead(id);
  await Promise.resolve();
  assert.equal(inbox.state.unread, 0);
  assert.equal(inbox.state.unseen, 0);
  await reading;
  await inbox.archive(id);
  await until("it is gone", () => inbox.state.items.length === 0);
  await inbox.unarchive(id);
  await until("it is back", () => inbox.state.items.length === 1);
  await settled(inbox, server.url);
  const unknown = `${id.split("-")[0]}-99`;
  await assert.rejects(inbox.markRead(unknown), (error) => error instanceof TidingsError && error.code === "not_found");
  await settled(inbox, server.url);
});

test("an action that is refused is undone, and one that fails for a moment is repeated", async (t) => {
  const server = await new Home(t).start();
  const { id } = await server.notify("anna", "one");
  const real = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = real;
  });
  const statuses = [];
  let asked = 0;
  let reply = () => {};
  globalThis.fetch = async (url, init) => {
    if (init?.method !== "POST" || statuses.length === 0) return real(url, init);
    asked += 1;
    const status = statuses.shift();
    if (status === 0) throw new TypeError("fetch failed");
    if (status === 403) await new Promise((resolve) => (reply = resolve));
    return new Response(JSON.stringify({ error: { code: "of_the_test", message: "refused" } }), { status });
  };
  const inbox = open(t, { url: server.url });
  await until("the list", () => !inbox.state.isLoading);
  const actions = [
    ["markRead", () => inbox.state.unread === 0],
    ["archive", () => inbox.state.items.length === 0],
    ["markAllRead", () => inbox.state.unread === 0],
    ["markSeen", () => inbox.state.unseen === 0],
  ];
  for (const [name, isShown] of actions) {
    statuses.push(403);
    const refused = assert.rejects(inbox[name](id), { code: "of_the_test", status: 403 });
    await until("it shows at once", isShown);
    reply();
    await refused;
    await until("it is undone", () => !isShown());
    assert.deepEqual(shown(inbox), await truth(server.url));
  }
  assert.equal(asked, actions.length);
  for (const [name, isShown] of actions.toReversed()) {
    statuses.push(0, 503);
    await inbox[name](id);
    await until("it is done", isShown);
  }
  assert.equal(asked, actions.length * 3);
  await settled(inbox, server.url);
});

test("of two actions on one notification the later one counts, also when the first has to be sent again", async (t) => {
  const server = await new Home(t).start();
  const { id } = await server.notify("anna", "one");
  const inbox = open(t, { url: server.url });
  await until("the list", () => !inbox.state.isLoading);
  const real = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = real;
  });
  for (const first of ["markRead", "markAllRead"]) {
    let isRefused = false;
    globalThis.fetch = async (url, init) => {
      if (init?.method !== "POST" || isRefused) return real(url, init);
      isRefused = true;
      return new Response("busy", { status: 503 });
    };
    await Promise.all([inbox[first](id), inbox.markUnread(id)]);
    assert.ok(isRefused);
    assert.equal((await truth(server.url)).unread, 1, first);
    await settled(inbox, server.url);
  }
});

test("the later action also counts when the reply to the first was lost, and the stream has reported it", async (t) => {
  const server = await new Home(t).start();
  const { id } = await server.notify("anna", "one");
  const inbox = open(t, { url: server.url });
  await until("the list", () => !inbox.state.isLoading);
  let changes = 0;
  const stream = new Tidings({ user: "anna", url: server.url }).stream({ onChange: () => (changes += 1) });
  t.after(() => stream.close());
  await until("the stream", () => stream.status === "live");
  const real = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = real;
  });
  let lose;
  globalThis.fetch = async (url, init) => {
    const response = await real(url, init);
    if (init?.method !== "POST" || lose !== undefined) return response;
    await new Promise((resolve) => (lose = resolve));
    return new Response("lost", { status: 503 });
  };
  const reading = inbox.markRead(id);
  await until("the report", () => lose !== undefined && changes === 1 && inbox.state.unread === 0);
  await settled(inbox, server.url);
  const unreading = inbox.markUnread(id);
  lose();
  await Promise.all([reading, unreading]);
  assert.equal((await truth(server.url)).unread, 1);
  await settled(inbox, server.url);
});

test("actions of several screens at the same time end the same on all", async (t) => {
  const server = await new Home(t).start();
  const ids = [];
  for (let n = 0; n < 12; n += 1) ids.push((await server.notify("anna", n)).id);
  const screens = [1, 2, 3].map(() => open(t, { url: server.url }));
  for (const screen of screens) await until("the list", () => screen.state.items.length === 12);
  const acting = screens.map(async (screen, seed) => {
    for (let n = 0; n < 40; n += 1) {
      const name = ["markRead", "markUnread", "archive", "unarchive", "markSeen", "markAllRead"][(n * 5 + seed * 7) % 6];
      await screen[name](ids[(n * (seed + 3)) % ids.length]);
    }
  });
  await Promise.all(acting);
  for (const screen of screens) await settled(screen, server.url);
});

test("a list that cannot be loaded is loaded later, and the error is in the state until then", async (t) => {
  const server = await new Home(t).start();
  await server.notify("anna", "one");
  const real = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = real;
  });
  let isBroken = true;
  globalThis.fetch = (url, init) =>
    isBroken && String(url).includes("/notifications?") ? Promise.resolve(new Response("", { status: 503 })) : real(url, init);
  const inbox = open(t, { url: server.url });
  await until("the error", () => inbox.state.error?.status === 503);
  assert.ok(inbox.state.isLoading);
  isBroken = false;
  await until("the list", () => inbox.state.items.length === 1);
  assert.equal(inbox.state.error, undefined);
});

test("an inbox that was opened while the server was away is loaded once the stream is live", async (t) => {
  const server = await new Home(t).start();
  await server.notify("anna", "one");
  const real = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = real;
  });
  let isAway = true;
  // A proxy may ask for a longer wait than the server needs.
  const away = () => new Response("", { status: 503, headers: { "retry-after": "600" } });
  globalThis.fetch = async (url, init) => {
    if (!isAway) return real(url, init);
    if (String(url).includes("/notifications?")) return away();
    throw new TypeError("fetch failed");
  };
  const inbox = open(t, { url: server.url });
  await until("the error", () => inbox.state.error?.status === 503);
  isAway = false;
  await until("the list", () => inbox.state.items.length === 1);
});

test("an inbox whose stream fails at once has its list all the same", async (t) => {
  const server = await new Home(t).start();
  await server.notify("anna", "one");
  const real = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = real;
  });
  const refusal = () => Response.json({ error: { code: "forbidden", message: "of the test" } }, { status: 403 });
  globalThis.fetch = async (url, init) => (String(url).includes("/events") ? refusal() : real(url, init));
  const inbox = open(t, { url: server.url, transport: "sse" });
  await until("the list", () => !inbox.state.isLoading);
  assert.deepEqual(payloads(inbox), ["one"]);
  assert.deepEqual([inbox.state.status, inbox.state.error.code], ["failed", "forbidden"]);
});

test("a wait that was asked for before the stream was live is not kept", async (t) => {
  const server = await new Home(t).start();
  await server.notify("anna", "one");
  const real = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = real;
  });
  const requests = { list: 0, events: 0 };
  let reply;
  globalThis.fetch = async (url, init) => {
    const what = String(url).includes("/notifications?") ? "list" : "events";
    requests[what] += 1;
    if (requests[what] > 1) return real(url, init);
    // Without a stream, the list is asked for; its reply is late.
    if (what === "events") throw new TypeError("fetch failed");
    return new Promise((resolve) => (reply = resolve));
  };
  const inbox = open(t, { url: server.url });
  await until("the request and the stream", () => reply !== undefined && inbox.state.status === "live");
  reply(new Response("", { status: 503, headers: { "retry-after": "600" } }));
  await until("the list", () => inbox.state.items.length === 1);
});

test("a person ends the wait for the list, unless the server has asked for it", async (t) => {
  const server = await new Home(t).start();
  await server.notify("anna", "one");
  const { random } = Math;
  const real = globalThis.fetch;
  t.after(() => Object.assign(Math, { random }) && Object.assign(globalThis, { fetch: real }));
  Math.random = () => 0;
  const refusals = [404, 404, 404, 503];
  let asked = 0;
  globalThis.fetch = async (url, init) => {
    if (!String(url).includes("/notifications?") || refusals.length === 0) return real(url, init);
    asked += 1;
    const status = refusals.shift();
    // After the tries of one request, it waits for so long that only a person ends it.
    if (refusals.length === 1) Math.random = () => 1e6;
    return new Response("", { status, headers: status === 503 ? { "retry-after": "600" } : {} });
  };
  const inbox = open(t, { url: server.url });
  await until("the failure", () => inbox.state.error?.status === 404);
  inbox.retry();
  await until("the refusal", () => inbox.state.error?.status === 503);
  inbox.retry();
  await server.notify("anna", "two");
  await new Tidings({ user: "ben", url: server.url }).counts();
  assert.deepEqual([asked, inbox.state.isLoading], [4, true]);
});

for (const [name, isDone] of [
  ["markSeen", ({ unseen }) => unseen === 0],
  ["markAllRead", ({ unread }) => unread === 0],
  ["loadMore", ({ items }) => items.length === 3],
]) {
  test(`${name} before the list is loaded waits for it, also while the server is away`, async (t) => {
    const server = await new Home(t).start();
    for (let n = 0; n < 3; n += 1) await server.notify("anna", n);
    const { url, pause } = await relay(t, server.address);
    pause(true);
    const inbox = open(t, { url }, { limit: 2 });
    const doing = inbox[name]();
    await until("the failure", () => inbox.state.error?.code === "unreachable");
    pause(false);
    await doing;
    assert.ok(isDone(inbox.state), JSON.stringify(inbox.state));
    if (name !== "loadMore") assert.ok(isDone(await new Tidings({ user: "anna", url: server.url }).counts()));
  });

  test(`${name} before the list is loaded is rejected when the inbox is closed or fails for good`, async (t) => {
    const key = "a-key-for-this-test-0123456789";
    const server = await new Home(t).start({ args: ["--api-key", key] });
    // The stream is refused, and so is the list.
    const refused = open(t, { url: server.url });
    await assert.rejects(refused[name](), { code: "unauthorized", status: 401 });
    await assert.rejects(refused[name](), { status: 401 }, "also after it has failed");

    const forbidden = () => new TidingsError("of the test", { code: "forbidden", status: 403 });
    const { inbox, asked } = driven(t, 3, 2);
    const unlisted = assert.rejects(inbox[name](), { code: "forbidden" });
    (await asked()).reject(forbidden());
    await unlisted;

    const closed = driven(t, 3, 2).inbox;
    const abandoned = assert.rejects(closed[name](), { code: "closed", isRetryable: false });
    closed.close();
    await abandoned;
    await assert.rejects(closed[name](), { code: "closed" });
  });
}

test("an inbox whose listeners are just due when it is closed calls them once", async (t) => {
  const { inbox, asked } = driven(t, 3, 2);
  (await asked()).reply();
  await until("the list", () => !inbox.state.isLoading);
  // The listeners are called, and soon afterwards a timer is to call them again.
  const reading = [];
  for (let n = 0; n < 2; n += 1) {
    reading.push(inbox.markRead(inbox.state.items[0].id));
    await Promise.resolve();
  }
  let calls = 0;
  inbox.subscribe(() => (calls += 1));
  const end = performance.now() + 60;
  while (performance.now() < end);
  inbox.close();
  await Promise.all(reading);
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(calls, 1);
});

test("a page that is under way when the inbox is closed is not said to be loaded", async (t) => {
  const { inbox, asked } = driven(t, 30, 10);
  (await asked()).reply();
  await until("the list", () => inbox.state.items.length === 10);
  const loading = assert.rejects(inbox.loadMore(), { code: "closed" });
  const request = await asked();
  inbox.close();
  request.reply();
  await loading;
  assert.equal(inbox.state.items.length, 10);
});

test("an inbox that was closed calls nothing any more", async (t) => {
  const server = await new Home(t).start();
  const { id } = await server.notify("anna", "one");
  const real = globalThis.fetch;
  t.after(() => {
    globalThis.fetch = real;
  });
  const inbox = open(t, { url: server.url });
  await until("it is up to date", () => !inbox.state.isLoading && inbox.state.status === "live");
  const replies = [];
  globalThis.fetch = (url, init) =>
    String(url).includes("/notifications") ? new Promise((resolve) => replies.push(resolve)) : real(url, init);
  const reading = assert.rejects(inbox.markRead(id), { status: 403 });
  await until("the request", () => replies.length === 1);
  await Promise.resolve();
  const states = [];
  inbox.subscribe((state) => states.push(state.status));
  inbox.close();
  replies[0](new Response('{"error":{"code":"forbidden","message":"no"}}', { status: 403 }));
  await reading;
  await new Promise((resolve) => setTimeout(resolve));
  assert.deepEqual(states, ["closed"]);
  assert.equal(inbox.state.status, "closed");
});

test("pages follow one another, without holes and repeats", async (t) => {
  const server = await new Home(t).start();
  for (let n = 0; n < 25; n += 1) await server.notify("anna", n);
  const inbox = open(t, { url: server.url }, { limit: 10 });
  await until("the first page", () => inbox.state.items.length === 10);
  assert.equal(inbox.state.unread, 25);
  const loading = inbox.loadMore();
  await server.notify("anna", 25);
  await loading;
  await until("both", () => inbox.state.items.length === 21);
  await inbox.loadMore();
  assert.equal(inbox.state.hasMore, false);
  await settled(inbox, server.url);
  assert.deepEqual(payloads(inbox), [...Array(26).keys()].reverse());
});

/** An inbox of `count` notifications, 1 to `count`, which loads when the test replies to its requests. */
function driven(t, count, limit) {
  const idOf = (n) => `00000000000000aa-${n}`;
  const item = (n) => ({ id: idOf(n), user_id: "anna", type: "t", payload: n, payload_text: `${n}`, timestamp: "2026-11-21T10:00:00Z", read_at: null, archived_at: null, key: null });
  const page = ({ limit, cursor }) => {
    const before = cursor === undefined ? count + 1 : Number(cursor.split("-")[1]);
    const size = Math.min(limit, before - 1);
    const data = Array.from({ length: size }, (_, index) => item(before - 1 - index));
    return { data, unread: count, unseen: count, cursor: idOf(count), next: before - 1 > size ? data.at(-1).id : null };
  };
  const requests = [];
  let handlers;
  const inbox = new Inbox(
    {
      list: (query) => new Promise((resolve, reject) => requests.push({ query, reply: () => resolve(page(query)), reject })),
      stream: (options) => {
        handlers = options;
        queueMicrotask(() => options.onHello());
        return { close: () => options.onStatus("closed") };
      },
      markRead: async () => ({}),
    },
    { limit },
  );
  t.after(() => inbox.close());
  return {
    inbox,
    /** The next request. */
    asked: () => until("a request", () => requests.shift()),
    /** Another notification, of which the stream has not told. */
    append: () => (count += 1),
    arrive: () => handlers.onNotification(item((count += 1))),
    miss: () => handlers.onGap({}),
    change: (change, n) => handlers.onChange({ change, ids: [idOf(n)], unread: count, unseen: count, cursor: idOf(count) }),
  };
}

/** An inbox with as much of its list as it keeps. */
async function full(t) {
  const made = driven(t, 1100, 1000);
  (await made.asked()).reply();
  await until("the list", () => made.inbox.state.items.length === 1000);
  return made;
}

/** The numbers from `newest` down to `oldest`. */
const down = (newest, oldest) => Array.from({ length: newest - oldest + 1 }, (_, index) => newest - index);

test("a full inbox loads more while notifications arrive, and keeps what it was asked for", async (t) => {
  const { inbox, asked, arrive } = await full(t);
  const loading = inbox.loadMore();
  const request = await asked();
  arrive();
  arrive();
  request.reply();
  await loading;
  assert.deepEqual(payloads(inbox), down(1102, 1));
  assert.equal(inbox.state.hasMore, false);
  arrive();
  assert.deepEqual(payloads(inbox), down(1103, 2));
  assert.equal(inbox.state.hasMore, true);
});

test("a full inbox is as long as before when a page cannot be loaded", async (t) => {
  const { inbox, asked, arrive } = await full(t);
  const loading = inbox.loadMore();
  const request = await asked();
  arrive();
  arrive();
  const { length } = inbox.state.items;
  request.reject(new TidingsError("of the test", { code: "forbidden", status: 403 }));
  await assert.rejects(loading, { status: 403 });
  assert.deepEqual([length, inbox.state.items.length], [1002, 1000], "nothing is cut off while a page is under way");
  const again = inbox.loadMore();
  (await asked()).reply();
  await again;
  assert.deepEqual(payloads(inbox), down(1102, 1));
});

test("a page that does not fit the list any more is asked for again", async (t) => {
  const { inbox, asked, append, miss, change } = driven(t, 30, 10);
  (await asked()).reply();
  await until("the list", () => inbox.state.items.length === 10);
  // The list is loaded again, and ends elsewhere.
  const first = inbox.loadMore();
  const late = await asked();
  for (let n = 0; n < 5; n += 1) append();
  miss();
  (await asked()).reply();
  await until("the new list", () => inbox.state.items[0].payload === 35);
  late.reply();
  (await asked()).reply();
  await first;
  assert.deepEqual(payloads(inbox), down(35, 16));
  // It is not known whether the page has what was put back meanwhile.
  const second = inbox.loadMore();
  const unsure = await asked();
  change("unarchived", 12);
  const reload = await asked();
  unsure.reply();
  (await asked()).reply();
  await second;
  assert.deepEqual(payloads(inbox), down(35, 6));
  reload.reply();
  // The list is as long as it was shown.
  (await asked()).reply();
  await until("the list is loaded again", () => inbox.state.items.length === 30);
});

/** A page of the inbox has at most 4 MiB of payloads. */
test("what was loaded is there after a reconnect, also if the pages end early", async (t) => {
  const server = await new Home(t).start();
  for (let n = 0; n < 15; n += 1) await server.notify("anna", { n, text: "x".repeat(300 << 10) });
  const { url, pause } = await relay(t, server.address);
  const inbox = open(t, { url });
  await until("the stream", () => inbox.state.status === "live");
  await until("a page", () => inbox.state.items.length > 10);
  assert.ok(inbox.state.hasMore, "the page has ended early");
  await inbox.loadMore();
  const loaded = () => inbox.state.items.map(({ payload }) => payload.n);
  const all = [...Array(15).keys()].reverse();
  assert.deepEqual(loaded(), all);
  pause(true);
  await until("the loss", () => inbox.state.status === "waiting");
  // No stream repeats a change, so the list has been loaded again when it shows.
  const { id } = inbox.state.items[0];
  await server.post(`/v1/users/anna/notifications/${id}/read`, {});
  pause(false);
  await until("the change", () => inbox.state.items[0].read_at !== null);
  assert.deepEqual(loaded(), all);
  assert.equal(inbox.state.unread, 14);
});

test("an inbox says what is of a backlog, and when that is over", async (t) => {
  const server = await new Home(t).start();
  const { url, pause } = await relay(t, server.address);
  const heard = [];
  const inbox = open(t, { url }, {
    onNotification: ({ payload }, { isBacklog }) => heard.push([payload, isBacklog]),
    onCaughtUp: () => heard.push("caught up"),
  });
  await until("the stream", () => heard.length === 1);
  await server.notify("anna", 1);
  await until("the live one", () => heard.length === 2);
  pause(true);
  await until("the loss", () => inbox.state.status === "waiting");
  for (const n of [2, 3]) await server.notify("anna", n);
  pause(false);
  await until("the backlog", () => heard.length === 5);
  assert.deepEqual(heard, ["caught up", [1, false], [2, true], [3, true], "caught up"]);
});

test("subscribe can be handed over without the inbox", async (t) => {
  const server = await new Home(t).start();
  const inbox = open(t, { url: server.url });
  const { subscribe } = inbox;
  let calls = 0;
  const stop = subscribe(() => (calls += 1));
  await until("the list", () => !inbox.state.isLoading);
  assert.ok(calls > 0);
  stop();
});

test("listeners are called for many notifications together, and the state is that of the moment", async (t) => {
  let give;
  const cursor = (n) => `00000000000000aa-${n}`;
  const client = {
    list: async () => ({ data: [], unread: 0, unseen: 0, cursor: cursor(0), next: null }),
    stream: (options) => {
      give = options.onNotification;
      queueMicrotask(() => options.onHello());
      return { close() {} };
    },
  };
  const inbox = new Inbox(client);
  t.after(() => inbox.close());
  await until("the list", () => !inbox.state.isLoading);
  const called = [];
  inbox.subscribe(({ items }) => called.push(items.length));
  const began = performance.now();
  for (let n = 1; n <= 400; n += 1) {
    give({ id: cursor(n), user_id: "anna", type: "t", payload: n, payload_text: `${n}`, timestamp: "2026-11-21T10:00:00Z", read_at: null, archived_at: null, key: null });
    assert.equal(inbox.state.items.length, n);
    assert.equal(inbox.state, inbox.state);
    // Each in a turn of its own, as they come from another tab.
    await new Promise((resolve) => setImmediate(resolve));
  }
  await until("the last call", () => called.at(-1) === 400);
  const most = 2 + (performance.now() - began) / 50;
  assert.ok(called.length <= most, `${called.length} calls, at most ${most}`);
});

test("a payload keeps every digit as text", async (t) => {
  const server = await new Home(t).start();
  const payload = '{"z":12345678901234567890123,"2":1.10,"1":1E400,"s":"\\u00e9,]}\\"\\\\","n":[{}]}';
  await server.post("/v1/notifications", `{"user_id":"anna","payload":${payload}}`);
  const inbox = open(t, { url: server.url });
  await until("the list", () => inbox.state.items.length === 1);
  await server.post("/v1/notifications", `{"user_id":"anna","payload":${payload}}`);
  await until("the live one", () => inbox.state.items.length === 2);
  for (const { payload_text: text } of inbox.state.items) assert.equal(text, payload);
});
