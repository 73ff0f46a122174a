import assert from "node:assert/strict";
import { Writable } from "node:stream";
import { describe, test } from "node:test";
import { Home, Inbox, script, Tidings, TidingsError, until } from "./support.mjs";

/** A server that replies to each request with this. */
const replying = (t, status, body, headers = {}) => script(t, (_, response) => response.writeHead(status, headers).end(body));

const failure = (promise) => promise.then(() => assert.fail("expected an error"), (thrown) => thrown);

/** Waits until a stream has failed for good, and returns why. */
function failed(t, options) {
  return new Promise((resolve) => {
    const stream = new Tidings({ user: "anna", maxWaitMs: 50, ...options }).stream({
      onStatus: (status, error) => status === "failed" && resolve(error),
    });
    t.after(() => stream.close());
  });
}

describe("errors", { concurrency: true }, () => {
  test("a wrong option is refused by its name", () => {
    const right = { url: "http://127.0.0.1:1", user: "anna" };
    const wrong = {
      user: [undefined, "", ".", "..", 7, "a\nb", " a", "a\u202eb", "ä".repeat(128)],
      url: ["", new URL("http://127.0.0.1:1"), "tidings.example.com", "/tidings", "ftp://tidings.example.com", "https://tidings.example.com?tenant=7", "https://tidings.example.com/#/", "https://tidings.example.com/app?", "https://tidings.example.com ", "https://anna:secret@tidings.example.com", 7, undefined],
      token: ["eyJ.e30.x", Promise.resolve("eyJ.e30.x")],
      transport: ["", "SSE", "http", null],
      share: [1, "yes"],
      credentials: [true, "always"],
      maxWaitMs: [0, -1, Number.NaN, "1000"],
    };
    new Tidings(right);
    assert.throws(() => new Tidings(), { name: "TypeError", message: "options: expected an object, got undefined" });
    assert.throws(() => new Tidings({ ...right, tokenUrl: "/token" }), { name: "TypeError", message: /^tokenUrl: expected an option with one of the names user, url,/ });
    for (const [option, values] of Object.entries(wrong)) {
      for (const value of values) {
        const expected = (error) => error instanceof TypeError && error.message.startsWith(`${option}: expected `);
        assert.throws(() => new Tidings({ ...right, [option]: value }), expected, `${option}: ${String(value)}`);
      }
    }
  });

  test("a wrong option of a stream or an inbox is refused by its name, and nothing is opened", async (t) => {
    let requests = 0;
    const url = await script(t, (_, response) => {
      requests += 1;
      response.writeHead(503).end();
    });
    const tidings = new Tidings({ url, user: "anna" });
    const handler = [null, true, "log"];
    const stream = {
      cursor: [null, "", 7],
      since: [null, "", 0, new Date(), "yesterday", "2026-13-01T00:00:00Z", "2026"],
      onNotification: handler,
      onGap: handler,
      onChange: handler,
      onHello: handler,
      onCaughtUp: handler,
      onStatus: handler,
    };
    const inbox = { limit: [null, 0, -1, 1.5, 1001, Number.NaN, "50"], onNotification: handler, onGap: handler };
    for (const [open, wrong] of [["stream", stream], ["inbox", inbox]]) {
      for (const [option, values] of Object.entries(wrong)) {
        for (const value of values) {
          const expected = (error) => error instanceof TypeError && error.message.startsWith(`${option}: expected `);
          const attempt = () => {
            const opened = tidings[open]({ [option]: value });
            t.after(() => opened.close());
          };
          assert.throws(attempt, expected, `${open} ${option}: ${String(value)}`);
        }
      }
      for (const none of [null, "start"]) assert.throws(() => tidings[open](none), /^TypeError: options: expected an object/);
    }
    for (const since of ["now", "2026-11-28T10:00:00.5+01:00", "2026-11-28 10:00:00z", "2016-12-31T23:59:60Z"]) {
      const accepting = new Tidings({ url: await replying(t, 503, ""), user: "anna" });
      accepting.stream({ since }).close();
    }
    for (const id of [undefined, null, "", "x", 17, "../read-all", "6f1c0a52d3e84b97-"]) {
      for (const action of ["markRead", "markUnread", "archive", "unarchive"]) {
        const error = await failure(tidings[action](id));
        assert.match(String(error), /^TypeError: id: expected the id of an event/, `${action} ${id}`);
      }
      if (id === undefined) continue;
      for (const action of ["markAllRead", "markSeen"]) {
        assert.match(String(await failure(tidings[action](id))), /^TypeError: upTo: expected the id of an event/, `${action} ${id}`);
      }
    }
    assert.equal(await failure(tidings.counts()).then(({ status }) => status), 503);
    assert.equal(requests, 3, "the tries of the one request");
  });

  test("a request whose reply is not from Tidings fails with its status in plain words", async (t) => {
    const others = ["<!doctype html><p>Please log in", '{"status":"ok"}', "[]", "null", '{"unread":1,"unseen":1,"cursor":"x","data":{}}'];
    await Promise.all(others.map(async (body) => {
      const tidings = new Tidings({ url: await replying(t, 200, body, { "content-type": "text/html" }), user: "anna" });
      const requests = [tidings.list(), ...(body.includes("unread") ? [] : [tidings.counts(), tidings.markRead("6f1c0a52d3e84b97-1"), tidings.markAllRead()])];
      for (const error of await Promise.all(requests.map(failure))) {
        assert.ok(error instanceof TidingsError, `${body}: ${error}`);
        assert.equal(error.message, "the reply has the status 200 and is not from Tidings");
        assert.deepEqual([error.code, error.status, error.isRetryable], ["unexpected_response", 200, true]);
      }
    }));
  });

  for (const transport of ["sse", "websocket"]) {
    for (const [status, code] of [[400, "invalid_field"], [403, "forbidden"], [404, "unknown_route"]]) {
      test(`a stream that the server refuses with ${status} fails (${transport})`, async (t) => {
        const url = await replying(t, status, JSON.stringify({ error: { code, message: "not for you" } }));
        const error = await failed(t, { url, transport });
        assert.deepEqual([error.code, error.status, error.message], [code, status, "not for you"]);
      });
    }
  }

  for (const transport of ["sse", "websocket"]) {
    for (const status of [200, 403, 404, 405]) {
      test(`a stream whose every reply has ${status} and is not from Tidings says what to check, and lives on (${transport})`, async (t) => {
        const server = await new Home(t).start();
        let requests = 0;
        const refuse = (response) => response.writeHead(status, { "content-type": "text/html" }).end("<!doctype html><h1>Nothing here");
        const url = await script(t, async ({ url: path }, response) => {
          requests += 1;
          // Of a WebSocket, the upgrade and the request that shows its status.
          if (requests < (transport === "sse" ? 40 : 80)) return refuse(response);
          if (transport === "websocket") return response.destroy();
          // The server ends before the stream, which then connects once more.
          const reply = await fetch(server.url + path).catch(() => undefined);
          if (reply === undefined) return response.destroy();
          response.writeHead(200, { "content-type": "text/event-stream" });
          reply.body.pipeTo(Writable.toWeb(response)).catch(() => {});
        });
        const errors = [];
        const stream = new Tidings({ url, user: "anna", transport, maxWaitMs: 20 }).stream({ onStatus: (_, error) => error && errors.push(error) });
        t.after(() => stream.close());
        const isOver = () => stream.status === "failed" || (transport === "sse" ? stream.status === "live" : errors.at(-1)?.code === "unreachable");
        await until("the end of the refusals", isOver);
        assert.notEqual(stream.status, "failed");
        const refused = errors.filter(({ code }) => code === "unexpected_response");
        assert.equal(refused.length, 39);
        assert.ok(refused.every((error) => error.status === status));
        const advising = refused.filter(({ message }) => / times in a row: .*url.*proxy/.test(message));
        assert.equal(refused.indexOf(advising[0]), 4, "the fifth");
        assert.match(refused.at(-1).message, / 39 times in a row: /);
      });
    }
  }

  test("a reply that the server is away takes back what was said to check, and a wait that is asked for is kept", async (t) => {
    const replies = [404, 404, 404, 404, 404, 502, 404];
    const url = await script(t, (_, response) => {
      const last = replies.length === 1;
      response.writeHead(last ? replies[0] : replies.shift(), last ? { "retry-after": "600" } : {}).end("<h1>Nothing here");
    });
    const errors = [];
    const stream = new Tidings({ url, user: "anna", maxWaitMs: 20 }).stream({ onStatus: (_, error) => error && errors.push(error) });
    t.after(() => stream.close());
    await until("the last reply", () => errors.at(-1)?.retryAfterMs === 600_000);
    assert.deepEqual(errors.map(({ message }) => /check the url/.test(message)), [false, false, false, false, true, false, false]);
  });

  test("an API key, which no WebSocket can carry, is named as the reason", async (t) => {
    const key = "a-key-for-this-test-0123456789";
    const server = await new Home(t).start({ args: ["--api-key", key] });
    const error = await failed(t, { url: server.url, transport: "websocket", token: () => key });
    assert.equal(error.code, "unsupported");
    assert.match(error.message, /API key .* transport "sse"/);
    const wrong = await failed(t, { url: server.url, transport: "websocket", token: () => `${key}-wrong` });
    assert.deepEqual([wrong.code, wrong.status], ["unauthorized", 401]);
  });

  test("a token that is a page, or none, is named as the reason", async (t) => {
    const url = await replying(t, 200, "{}");
    for (const [token, reason] of [
      ["<!doctype html>\n<p>Not found", /begins with "<!doctype html>/],
      ["<h1>404</h1>", /begins with "<h1>404<.h1>/],
      ["Cannot GET /tidings-token", /begins with "Cannot GET/],
      [" \n", /an empty text/],
      [undefined, /got undefined/],
      [{ token: "x" }, /got object/],
    ]) {
      let reported;
      const stream = new Tidings({ url, user: "anna", token: () => token }).stream({
        onStatus: (_, error) => {
          reported ??= error;
        },
      });
      t.after(() => stream.close());
      await until("the error", () => reported);
      assert.equal(reported.code, "token_unavailable");
      assert.match(reported.message, reason);
    }
  });

  test("a stream says first that it connects, and its caller has it by then", async (t) => {
    const url = await script(t, () => {});
    const statuses = [];
    const stream = new Tidings({ url, user: "anna" }).stream({ onStatus: (status) => statuses.push([status, stream.status]) });
    await until("the first status", () => statuses.length > 0);
    stream.close();
    assert.deepEqual(statuses, [["connecting", "connecting"], ["closed", "closed"]]);
  });
});

test("a stream without a WebSocket on the platform says what to use", async (t) => {
  const real = globalThis.WebSocket;
  globalThis.WebSocket = undefined;
  t.after(() => {
    globalThis.WebSocket = real;
  });
  const error = await failed(t, { url: "http://127.0.0.1:1", transport: "websocket" });
  assert.equal(error.code, "unsupported");
  assert.match(error.message, /Node has one from version 22.*"sse"/);
});

test("many actions at the same time warn of no leak", async (t) => {
  const warnings = [];
  const listen = (warning) => warnings.push(warning.message);
  process.on("warning", listen);
  t.after(() => process.off("warning", listen));
  const counts = { unread: 0, unseen: 0, cursor: "00000000000000aa-40" };
  const asked = new Map();
  // Each request is refused once.
  const url = await script(t, ({ url: path }, response) => {
    asked.set(path, (asked.get(path) ?? 0) + 1);
    response.writeHead(asked.get(path) === 1 ? 503 : 200).end(JSON.stringify(counts));
  });
  const ids = Array.from({ length: 40 }, (_, n) => `00000000000000aa-${n + 1}`);
  const tidings = new Tidings({ url, user: "anna" });
  await Promise.all(ids.map((id) => tidings.markRead(id)));

  const data = ids.map((id) => ({ id, user_id: "anna", type: "t", payload: 1, payload_text: "1", timestamp: "", read_at: null, archived_at: null, key: null }));
  let handlers;
  const inbox = new Inbox({
    stream: (given) => {
      handlers = given;
      return { close() {} };
    },
    list: async () => ({ ...counts, data, next: null, unread: 40 }),
    markRead: async () => counts,
  });
  t.after(() => inbox.close());
  handlers.onHello();
  await until("the list", () => !inbox.state.isLoading);
  await Promise.all(ids.map((id) => inbox.markRead(id)));
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(warnings, []);
});
