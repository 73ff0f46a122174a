import assert from "node:assert/strict";
import { createHash, createHmac } from "node:crypto";
import { describe, test } from "node:test";
import { Home, relay, script, Tidings, TidingsError, until } from "./support.mjs";

const TRANSPORTS = ["sse", "websocket"];

/** Opens a stream that ends with the test, and records what it gives. */
function record(t, options, streamOptions) {
  const seen = { payloads: [], ids: [], gaps: [], statuses: [], errors: [], hellos: 0 };
  const stream = new Tidings({ user: "anna", maxWaitMs: 100, ...options }).stream({
    onNotification: ({ id, payload }) => {
      seen.ids.push(id);
      seen.payloads.push(payload);
    },
    onGap: (gap) => seen.gaps.push(gap),
    onHello: () => (seen.hellos += 1),
    onStatus: (status, error) => {
      seen.statuses.push(status);
      if (error !== undefined) seen.errors.push(error);
    },
    ...streamOptions,
  });
  t.after(() => stream.close());
  return Object.assign(seen, { stream });
}

const numbers = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index);

describe("streams", { concurrency: true }, () => {
for (const transport of TRANSPORTS) {
  test(`a stream resumes over kills of the server on the same port (${transport})`, async (t) => {
    const home = new Home(t);
    let server = await home.start({ address: transport === "sse" ? "127.0.0.7:0" : "127.0.0.8:0" });
    const seen = record(t, { url: server.url, transport }, { since: "start" });
    for (let round = 0; round < 3; round += 1) {
      for (const n of numbers(round * 5, round * 5 + 4)) await server.notify("anna", n);
      await until("the events of a round", () => seen.payloads.length >= round * 5 + 3);
      await server.kill();
      server = await home.start({ address: server.address });
    }
    await server.notify("anna", 15);
    await until("the last one", () => seen.payloads.includes(15));
    assert.deepEqual(seen.payloads, numbers(0, 15));
    assert.ok(seen.statuses.includes("waiting"));
    assert.deepEqual(seen.gaps, []);
  });

  test(`a stream resumes over cuts of its connection (${transport})`, async (t) => {
    const server = await new Home(t).start();
    const { url, cut } = await relay(t, server.address);
    const seen = record(t, { url, transport }, { since: "start" });
    for (const n of numbers(0, 40)) {
      await server.notify("anna", n);
      if (n % 4 === 0) cut();
    }
    await until("the last one", () => seen.payloads.includes(40));
    assert.deepEqual(seen.payloads, numbers(0, 40));
  });

  test(`a gap is reported where events are missing (${transport})`, async (t) => {
    const server = await new Home(t).start();
    for (const n of numbers(0, 2)) await server.notify("anna", n);
    const foreign = record(t, { url: server.url, transport }, { cursor: "00000000000000aa-7" });
    const invalid = record(t, { url: server.url, transport }, { cursor: "not an id" });
    for (const [seen, reason] of [[foreign, "unknown_epoch"], [invalid, "invalid"]]) {
      await until("the events", () => seen.payloads.length === 3);
      assert.deepEqual(seen.payloads, [0, 1, 2]);
      assert.deepEqual(seen.gaps.map((gap) => gap.reason), [reason]);
    }
  });

  test(`a closed stream ends its connection, and gives nothing more (${transport})`, async (t) => {
    const server = await new Home(t).start();
    const seen = record(t, { url: server.url, transport });
    await until("the stream", () => seen.hellos === 1);
    seen.stream.close();
    await server.notify("anna", 1);
    await until("the end of the connection", async () => {
      const text = await (await fetch(`${server.url}/metrics`)).text();
      return /^tidings_subscription_active(?:\{[^}]*\})? 0$/m.test(text);
    });
    assert.deepEqual(seen.payloads, []);
    assert.equal(seen.stream.status, "closed");
    assert.equal(seen.statuses.at(-1), "closed");
  });
}

const KEY = "a-key-for-this-test-0123456789";
const SECRET = "a-secret-of-at-least-32-bytes-for-tests";

/** A token as an application signs it. */
function token(user, seconds) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + seconds;
  const signed = `${part({ alg: "HS256" })}.${part({ sub: user, exp })}`;
  return `${signed}.${createHmac("sha256", SECRET).update(signed).digest("base64url")}`;
}

async function withTokens(t) {
  const server = await new Home(t).start({ args: ["--api-key", KEY, "--jwt-secret", SECRET] });
  const notify = (payload) => server.post("/v1/notifications", { user_id: "anna", payload }, { authorization: `Bearer ${KEY}` });
  return { server, notify };
}

for (const transport of TRANSPORTS) {
  test(`a new token replaces one that expires, without a break (${transport})`, async (t) => {
    const { server, notify } = await withTokens(t);
    let asked = 0;
    const source = () => {
      asked += 1;
      // Half of it is left when the server warns, for the next connection to be open.
      return token("anna", asked < 3 ? 8 : 600);
    };
    const seen = record(t, { url: server.url, transport, token: source }, { since: "start" });
    let n = 0;
    while (asked < 3) {
      await notify(n);
      n += 1;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await until("the third connection", () => seen.hellos === 3);
    await notify(n);
    await until("the last one", () => seen.payloads.includes(n));
    assert.deepEqual(seen.payloads, numbers(0, n));
    assert.deepEqual(seen.statuses, ["connecting", "live"]);
  });

  test(`a refused token is replaced, and without a good one the stream fails (${transport})`, async (t) => {
    const { server, notify } = await withTokens(t);
    await notify(0);
    const tokens = ["no token", token("anna", -60), token("anna", 600)];
    const good = record(t, { url: server.url, transport, token: () => tokens.shift() }, { since: "start" });
    await until("the event", () => good.payloads.length === 1);
    let asked = 0;
    const bad = record(t, { url: server.url, transport, token: async () => `bad-${(asked += 1)}` });
    await until("the failure", () => bad.stream.status === "failed");
    assert.equal(bad.errors.at(-1).code, "unauthorized");
    assert.equal(asked, 8);
    const other = record(t, { url: server.url, transport, token: () => token("ben", 600) });
    await until("the failure", () => other.stream.status === "failed");
    assert.equal(other.errors.at(-1).code, "forbidden");
    const none = record(t, { url: server.url, transport });
    await until("the failure", () => none.stream.status === "failed");
    assert.equal(none.errors.at(-1).status, 401);
  });
}

for (const transport of TRANSPORTS) {
  test(`a token that is refused while the application has no other does not end the stream (${transport})`, async (t) => {
    const { server, notify } = await withTokens(t);
    let isAway = false;
    const source = () => {
      if (isAway) throw new Error("the route replied with 503");
      isAway = true;
      return token("anna", 4);
    };
    const seen = record(t, { url: server.url, transport, token: source }, { since: "start" });
    await notify(0);
    await until("the event", () => seen.payloads.length === 1);
    const lacking = () => seen.errors.filter(({ code }) => code === "token_unavailable").length;
    // More often than tokens may be refused.
    await until("the stream waits", () => lacking() > 10 || seen.stream.status === "failed");
    await notify(1);
    isAway = false;
    await until("the events", () => seen.payloads.length === 2);
    assert.deepEqual(seen.payloads, [0, 1]);
    assert.ok(!seen.statuses.includes("failed"));
    assert.equal(lacking(), seen.errors.length, "no error says that the person is signed out");
  });
}

test("an application without a new token is asked again while the old one is good", async (t) => {
  const expiring = (response) => {
    opening(response);
    response.write(frame("expiring", { expires_at: new Date(Date.now() + 60_000).toISOString() }));
  };
  const { url, requests } = await replies(t, expiring, opening);
  const tokens = ["old", undefined, "new"];
  const seen = record(t, { url, token: () => tokens.shift() });
  await until("the second connection", () => seen.hellos === 2);
  assert.deepEqual(requests.map(({ headers }) => headers.authorization), ["Bearer old", "Bearer new"]);
  assert.deepEqual(seen.statuses, ["connecting", "live"]);
});

test("a request does not send a refused token again", async (t) => {
  const error = JSON.stringify({ error: { code: "unauthorized", message: "expired" } });
  const { url, requests } = await replies(t, refusing(401, {}, error), refusing(200, {}, JSON.stringify(COUNTS)));
  const tokens = ["old", undefined, "new"];
  const tidings = new Tidings({ url, user: "anna", token: () => tokens.shift() });
  await assert.rejects(tidings.counts(), { code: "token_unavailable" });
  await until("the other token", () => tidings.counts().catch(() => undefined));
  assert.deepEqual(requests.map(({ headers }) => headers.authorization), ["Bearer old", "Bearer new"]);
});

test("an application without a token at the moment is asked again", async (t) => {
  const { server } = await withTokens(t);
  let asked = 0;
  const source = () => {
    asked += 1;
    if (asked < 3) throw new Error("the session is not there yet");
    return token("anna", 600);
  };
  const seen = record(t, { url: server.url, token: source });
  await until("the stream", () => seen.stream.status === "live");
  assert.equal(asked, 3);
  assert.ok(seen.errors.length >= 2);
  for (const { code } of seen.errors) assert.equal(code, "token_unavailable");
});

test("an application that fails is asked at most once a second, whoever needs a token", async (t) => {
  const asked = [];
  const source = () => {
    asked.push(performance.now());
    throw new Error("the session is not there");
  };
  const tidings = new Tidings({ url: "http://127.0.0.1:1", user: "anna", token: source });
  const inbox = tidings.inbox();
  t.after(() => inbox.close());
  await until("the third time", () => {
    tidings.counts().catch(() => {});
    return asked.length === 3;
  });
  assert.ok(asked[1] - asked[0] >= 1000 && asked[2] - asked[1] >= 1000, String(asked));
});

test("a request is repeated with a new token after a 401", async (t) => {
  const { server, notify } = await withTokens(t);
  const { id } = await notify(0);
  const tokens = [token("anna", -60), token("anna", 600)];
  const tidings = new Tidings({ url: server.url, user: "anna", token: () => tokens.shift() });
  assert.equal((await tidings.list()).data.length, 1);
  assert.equal((await tidings.markRead(id)).unread, 0);
});

const COUNTS = { unread: 1, unseen: 1, cursor: "00000000000000aa-1" };
const HELLO = { user_id: "anna", cursor: "00000000000000aa-0", unread: 0, unseen: 0, ping_interval_ms: 20_000 };
const frame = (event, data) => `event: tidings.${event}\ndata: ${JSON.stringify(data)}\n\n`;

/** A server that replies to each request for a stream with the next of these functions. */
async function replies(t, ...functions) {
  const times = [];
  const requests = [];
  const url = await script(t, (request, response) => {
    times.push(performance.now());
    requests.push(request);
    functions[Math.min(times.length, functions.length) - 1](response);
  });
  return { url, times, requests };
}

const opening = (response) => {
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(`retry: 50\n${frame("hello", HELLO)}`);
};
const refusing = (status, headers, body = "") => (response) => response.writeHead(status, headers).end(body);
const ending = (code, wait) => (response) => {
  opening(response);
  response.end(frame("bye", { code, reason: "over", reconnect_after_ms: wait }));
};

test("a stream waits as long as Retry-After says", async (t) => {
  const error = JSON.stringify({ error: { code: "too_many_requests", message: "later" } });
  const until3Seconds = (response) => refusing(429, { "retry-after": new Date(Date.now() + 3000).toUTCString() }, error)(response);
  const { url, times } = await replies(t, refusing(503, { "retry-after": "1" }), until3Seconds, opening);
  const seen = record(t, { url });
  await until("the stream", () => seen.stream.status === "live");
  assert.ok(times[1] - times[0] >= 999, `${times[1] - times[0]}`);
  // The date has no fraction of a second.
  assert.ok(times[2] - times[1] >= 1900, `${times[2] - times[1]}`);
  assert.deepEqual(seen.errors.map(({ code }) => code), ["unexpected_response", "too_many_requests"]);
});

test("an application ends a wait, unless the server has asked for it", async (t) => {
  const refusal = await replies(t, refusing(503, { "retry-after": "600" }));
  const breaking = await replies(t, (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.end(`retry: 1000000000000\n${frame("hello", HELLO)}`);
  }, opening);
  const [refused, broken] = [refusal, breaking].map(({ url }) => record(t, { url, maxWaitMs: 1e12 }));
  await until("both wait", () => [refused, broken].every(({ stream }) => stream.status === "waiting"));
  refused.stream.retry();
  broken.stream.retry();
  await until("the second connection", () => broken.hellos === 2);
  assert.equal(refusal.times.length, 1);
  assert.equal(refused.stream.status, "waiting");
  // It changes nothing of one that is live.
  broken.stream.retry();
  assert.deepEqual(broken.statuses, ["connecting", "live", "waiting", "live"]);
});

test("of each try an error of its own is reported, also while one failure of the application answers all", async (t) => {
  const token = () => Promise.reject(new Error("no token yet"));
  const seen = record(t, { url: "http://127.0.0.1:1", token, maxWaitMs: 1e12 });
  await until("the first failure", () => seen.errors.length === 1);
  seen.stream.retry();
  await until("the second one", () => seen.errors.length === 2);
  const [first, second] = seen.errors;
  assert.notEqual(first, second);
  assert.deepEqual({ ...first }, { ...second });
  assert.equal(first.message, second.message);
});

test("a stream follows the code of a bye", async (t) => {
  const final = await replies(t, ending(4000, 0));
  const later = await replies(t, ending(4100, 400), opening);
  const atOnce = await replies(t, ending(4200, 0), opening);
  const [ended, waited, hurried] = [final, later, atOnce].map(({ url }) => record(t, { url, maxWaitMs: 5000 }));
  await until("the failure", () => ended.stream.status === "failed");
  assert.equal(ended.errors[0].message, "over");
  await until("the second connection", () => waited.hellos === 2);
  assert.ok(later.times[1] - later.times[0] >= 399);
  // A person is not offered what would do nothing.
  assert.equal(waited.errors[0].retryAfterMs, 400);
  await until("the second connection", () => hurried.hellos === 2);
  assert.equal(final.times.length, 1);
});

test("a stream with a cookie connects again when the cookie has expired, and fails when it was not renewed", async (t) => {
  const error = JSON.stringify({ error: { code: "unauthorized", message: "sign in" } });
  const { url, times } = await replies(t, ending(4003, 0), ending(4003, 0), refusing(401, {}, error));
  const seen = record(t, { url });
  await until("the failure", () => seen.stream.status === "failed");
  assert.equal(times.length, 3);
  assert.deepEqual([seen.hellos, seen.errors.at(-1).status], [2, 401]);
});

test("what is not from Tidings is tried again, and an error of Tidings is final", async (t) => {
  const html = refusing(200, { "content-type": "text/html" }, "<p>Please log in");
  const odd = await replies(t, html, refusing(502, {}, "bad gateway"), refusing(404, {}, "no backend"), (response) => response.destroy(), opening);
  const seen = record(t, { url: odd.url });
  await until("the stream", () => seen.stream.status === "live");
  assert.deepEqual(seen.errors.map(({ code }) => code), ["unexpected_response", "unexpected_response", "unexpected_response", "unreachable"]);
  const error = JSON.stringify({ error: { code: "invalid_field", message: "expected a time", field: "since" } });
  const final = await replies(t, refusing(400, {}, error));
  const failed = record(t, { url: final.url }, { since: "2026-01-01T00:00:00Z" });
  await until("the failure", () => failed.stream.status === "failed");
  assert.ok(failed.errors[0] instanceof TidingsError);
  assert.equal(failed.errors[0].message, "since: expected a time");
  assert.equal(failed.errors[0].field, "since");
});

/** A server that accepts WebSockets, and hands over a function that sends a frame. `cut` ends them. */
async function sockets(t, accept) {
  const { createServer } = await import("node:http");
  const server = createServer();
  const open = new Set();
  server.on("upgrade", ({ headers }, socket) => {
    open.add(socket);
    socket.on("error", () => {});
    const key = createHash("sha1").update(`${headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
    socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${key}\r\nSec-WebSocket-Protocol: tidings.v1\r\n\r\n`);
    accept((document) => {
      const text = Buffer.from(JSON.stringify(document));
      const head = text.length < 126 ? [0x81, text.length] : [0x81, 126, text.length >> 8, text.length & 255];
      socket.write(Buffer.concat([Buffer.from(head), text]));
    });
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    open.forEach((socket) => socket.destroy());
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

test("a silent WebSocket is replaced, and one that pings is kept", async (t) => {
  let opened = 0;
  const silent = await sockets(t, (say) => {
    opened += 1;
    say({ event: "hello", ...HELLO, ping_interval_ms: opened === 1 ? 10 : 20_000 });
  });
  let pings = 0;
  const pinging = await sockets(t, (say) => {
    say({ event: "hello", ...HELLO, ping_interval_ms: 10 });
    const timer = setInterval(() => {
      pings += 1;
      say({ event: "ping" });
    }, 100);
    t.after(() => clearInterval(timer));
  });
  const [replaced, kept] = [silent, pinging].map((url) => record(t, { url, transport: "websocket" }));
  await until("the second connection", () => replaced.hellos === 2);
  assert.deepEqual(replaced.errors.map(({ code }) => code), ["timeout"]);
  await until("pings for longer than silence may last", () => pings > 70);
  assert.deepEqual([kept.hellos, kept.stream.status, kept.errors], [1, "live", []]);
});

test("a silent connection is replaced", async (t) => {
  const silent = (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(`retry: 50\n${frame("hello", { ...HELLO, ping_interval_ms: 10 })}`);
  };
  const { url } = await replies(t, silent, opening);
  const seen = record(t, { url });
  await until("the second connection", () => seen.hellos === 2);
  assert.deepEqual(seen.errors.map(({ code }) => code), ["timeout"]);
});

test("a connection is kept when the server names no pace of pings that can be", async (t) => {
  for (const ping_interval_ms of [3e9, -1, 0, undefined]) {
    const later = async (response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write(`retry: 50\n${frame("hello", { ...HELLO, ping_interval_ms })}`);
      await new Promise((resolve) => setTimeout(resolve, 100));
      response.write(frame("caught_up", { cursor: HELLO.cursor }));
    };
    const { url } = await replies(t, later);
    const seen = record(t, { url });
    await until("the stream", () => seen.stream.status === "live");
    assert.equal(seen.hellos, 1, `${ping_interval_ms}`);
    assert.deepEqual(seen.errors, []);
  }
});

test("a stream that is cut into any pieces arrives whole", async (t) => {
  const payload = { text: "ü😀\n\r\u2028 data: x", n: [1, 2] };
  const notification = (n) => JSON.stringify({ id: `00000000000000aa-${n}`, user_id: "anna", type: "t", payload, timestamp: "2026-11-21T10:00:00Z", read_at: null, archived_at: null, key: null });
  const ends = ["\n", "\r\n", "\r"];
  const text = ends.map((end, index) => [`: comment`, `id: x`, `data: ${notification(index + 1).slice(0, 6)}`, `data:${notification(index + 1).slice(6)}`, "", ""].join(end)).join("");
  const bytes = Buffer.from(`\ufeff${frame("hello", HELLO)}: ping\n${text}event: tidings.of_the_future\ndata: {}\n\ndata: ${notification(4)}\n\n`);
  const { url } = await replies(t, async (response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    for (const byte of bytes) {
      response.write(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
  const seen = record(t, { url });
  await until("all", () => seen.payloads.length === 4);
  assert.deepEqual(seen.payloads, [payload, payload, payload, payload]);
});

test("a request waits as Retry-After says, and does not wait long", async (t) => {
  const later = await replies(t, refusing(503, { "retry-after": "1" }), refusing(200, {}, JSON.stringify(COUNTS)));
  assert.equal((await new Tidings({ url: later.url, user: "anna" }).counts()).unread, 1);
  assert.ok(later.times[1] - later.times[0] >= 999);
  const muchLater = await replies(t, refusing(429, { "retry-after": "60" }));
  const error = await new Tidings({ url: muchLater.url, user: "anna" }).counts().catch((thrown) => thrown);
  assert.equal(error.retryAfterMs, 60_000);
  assert.ok(error.isRetryable);
});

test("names of users are parts of a path, whatever is in them", async (t) => {
  const server = await new Home(t).start();
  for (const user of ["a/b?c#d", "ü", "%2e", "..a"]) {
    await server.notify(user, user);
    const { data } = await new Tidings({ url: server.url, user }).list();
    assert.deepEqual(data.map(({ payload }) => payload), [user]);
  }
});
});
