// Every block of the handbook is run, compared with what the server says, or named below with what checks it instead.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHmac } from "node:crypto";
import { dirname, join, normalize } from "node:path";
import { describe, test } from "node:test";
import { blocks, pages, place, read, root } from "./pages.mjs";
import { Session, documents, hasLines, isLike } from "./session.mjs";

/** Blocks that are checked in another place, or not at all, by page and language; why. */
const ELSEWHERE = {
  "README.md html": "clients/js/test/docs.test.mjs shows it in a browser",
  "README.md js": "crates/tidings-server/tests/it/browser.rs does the same in a browser",
  "docs/backups.md sh root": "scripts/check-unit runs it under a systemd",
  "docs/http.md json": "crates/tidings-server/src/wire/tests.rs compares it with the types",
  "docs/inbox.md css": "the test below looks for its names",
  "docs/inbox.md html": "clients/js/test/docs.test.mjs shows it in a browser",
  "docs/inbox.md js": "clients/js/test/docs.test.mjs makes tokens with it",
  "docs/operations.md ini": "the test below looks for its lines in the unit, which scripts/check-unit runs",
  "docs/operations.md json": "the test below compares it with a line of the log",
  "docs/operations.md sh container": "not run: a container needs rights that the tests do not have",
  "docs/operations.md sh root": "scripts/check-unit does it under a systemd, and runs the second word for word",
  "docs/operations.md text": "crates/tidings-server/tests/it/reload.rs waits for such lines",
  "docs/scaling.md sql": "postgres_instances.rs of tidings-server runs it",
  "docs/operations.md yaml": "facts.test.mjs parses it: Prometheus is not among the packages of the tests",
  "docs/protocol.md json": "crates/tidings-server/src/wire/tests.rs compares it with the types",
  "docs/proxies.md yaml": "facts.test.mjs parses it: Traefik is not among the packages of the tests",
};

/** What a page takes for granted before its first command. */
const BEFORE = {
  "docs/backups.md": "tidings serve --dev --listen 127.0.0.1:0 & sleep 1; kill $!; wait $!",
  "docs/scaling.md": "tidings serve --dev --listen 127.0.0.1:0 & sleep 1; kill $!; wait $!; export KEY=a-key-of-16-characters",
};

/** What a block is called in `ELSEWHERE`. */
const key = ({ page, language, word }) => [page, language, word].join(" ").trim();

/** What a block is for. */
function kind(block) {
  const { language, word } = block;
  if (key(block) in ELSEWHERE) return "elsewhere";
  if (language === "sh") return word === "background" ? "background" : "commands";
  if (language === "rust") return "rust";
  if (word === "figure") return "figure";
  if (word !== "") return "file";
  if (language === "json" || language === "text") return "output";
  throw new Error(`${place(block)}: nothing checks a block of the language ${JSON.stringify(language)}`);
}

describe("the handbook", { concurrency: 2 }, () => {
  for (const page of pages) {
    const all = blocks(page).map((block) => ({ ...block, kind: kind(block) }));
    if (!all.some(({ kind }) => kind === "commands" || kind === "background")) continue;
    test(`the commands of ${page} do what it says`, async (t) => {
      const session = await Session.start(t);
      const serves = all.some(({ kind, text }) => kind === "background" && / serve\b/.test(text));
      const before = BEFORE[page];
      if (before) await session.run({ page, line: 0, word: "", text: before });
      if (!serves) await session.start({ page, line: 0, word: "background", text: "tidings serve --dev" });
      const later = [];
      let last;
      for (const block of all) {
        switch (block.kind) {
          case "file":
            session.write(block.word, block.text);
            break;
          case "commands":
            last = await session.run(block);
            break;
          case "background":
            last = await session.start(block);
            break;
          case "output":
            assert.ok(last, `${place(block)}: nothing before it prints this`);
            if (typeof last === "string") compare(block, last);
            else later.push([last, block]);
            last = undefined;
            break;
        }
      }
      for (const [running, block] of later) await session.prints(running, block);
    });
  }
});

function compare(block, output) {
  const said = `${place(block)}: expected\n${block.text}\nbut got\n${output}`;
  if (block.language === "text") return assert.ok(hasLines(output, block.text), said);
  const [expected, got] = [documents(block.text), documents(output)];
  assert.equal(got.length, expected.length, said);
  for (const [index, document] of expected.entries()) assert.ok(isLike(document, got[index]), said);
}

/** What the libraries say to an empty secret, by receiver. Those without a library refuse every webhook instead. */
const REFUSALS = { "receive.mjs": "…Secret can't be empty.", "receive.py": "…webhook secret may not be empty" };

describe("the receivers of docs/receive-webhooks.md", { concurrency: 2 }, () => {
  const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  const page = "docs/receive-webhooks.md";
  const files = blocks(page).filter(({ word }) => word.startsWith("receive"));
  const run = { js: "node", python: "python3", go: "go run" };
  const receivers = files.map(({ language, word }) => [`${run[language]} ${word}`, secret]);
  receivers.push(["cargo run --example verify -- $PORT", secret]);

  for (const [command] of receivers) {
    test(`${command} accepts what the server signs, and nothing else`, async (t) => {
      const session = await Session.start(t, { TIDINGS_SECRET: secret });
      for (const file of files) session.write(file.word, file.text);
      session.link("node_modules");
      const line = (text, word) => ({ page, line: 0, word, text });
      await session.start(line("tidings serve --dev", "background"));
      await session.start(line(`PORT=9000 ${command}`.replace("$PORT", "9000"), "background"));
      const path = command.startsWith("cargo") ? "/hooks" : "/";
      await session.run(line(`echo ${secret} | tidings endpoint create http://127.0.0.1:9000${path} --secret-file -`));
      await session.run(line(`tidings send anna '{"text":"Grüße, 😀"}'`));
      await session.run(line("until tidings delivery list --state delivered | grep notification; do sleep 0.05; done"));

      const url = session.url("9000") + path;
      const now = Math.floor(Date.now() / 1000);
      const body = '{"id":"1","type":"a","text":"Grüße, 😀"}';
      const post = (headers, sent = body) => fetch(url, { method: "POST", body: sent, headers }).then(({ status }) => status);
      const signed = (timestamp, key = secret) => {
        const hmac = createHmac("sha256", Buffer.from(key.slice("whsec_".length), "base64"));
        const signature = hmac.update(`msg_1.${timestamp}.${body}`).digest("base64");
        return { "webhook-id": "msg_1", "webhook-timestamp": String(timestamp), "webhook-signature": `v1,${signature}` };
      };
      const genuine = signed(now);
      assert.equal(await post(genuine), 204);
      const both = `v1,${"A".repeat(43)}= v2,xyz ${genuine["webhook-signature"]}`;
      assert.equal(await post({ ...genuine, "webhook-signature": both }), 204, "two secrets");
      assert.equal(await post(signed(now - 290)), 204, "within the tolerance");
      const refused = {
        "another body": [genuine, body.replace("1", "2")],
        "the same JSON, written again": [genuine, JSON.stringify(JSON.parse(body), null, 1)],
        "another id": [{ ...genuine, "webhook-id": "msg_2" }],
        "another timestamp": [{ ...genuine, "webhook-timestamp": String(now + 1) }],
        "old": [signed(now - 310)],
        "future": [signed(now + 310)],
        "another secret": [signed(now, `whsec_${"A".repeat(32)}`)],
        "no signature": [{ ...genuine, "webhook-signature": "" }],
        "half a signature": [{ ...genuine, "webhook-signature": "v1," }],
        "no version": [{ ...genuine, "webhook-signature": genuine["webhook-signature"].replace("v1,", "") }],
        "another version": [{ ...genuine, "webhook-signature": genuine["webhook-signature"].replace("v1,", "v2,") }],
        "no number": [{ ...genuine, "webhook-timestamp": "soon" }],
        "an endless number": [{ ...genuine, "webhook-timestamp": "9".repeat(400) }],
        "no headers": [{}],
      };
      for (const [what, request] of Object.entries(refused)) assert.equal(await post(...request), 401, what);
      assert.equal(await post(genuine), 204, "it goes on");

      if (command.startsWith("cargo")) return;
      const empty = await session.start(line(`TIDINGS_SECRET=whsec_ PORT=9001 ${command} 2>&1`, "background"));
      const refusal = REFUSALS[command.split(" ").at(-1)];
      await session.prints(empty, line(refusal ?? "ready"));
      if (refusal) return;
      const forged = await fetch(session.url("9001"), { method: "POST", body, headers: signed(now, "whsec_") });
      assert.equal(forged.status, 401, "an empty secret");
    });
  }
});

describe("the examples", () => {
  const files = execFileSync("git", ["ls-files", "-co", "--exclude-standard", "examples/*.rs", "crates/*/examples/*.rs"], { cwd: root, encoding: "utf8" }).split("\n").filter(Boolean);
  const command = (file) => read(file).split("\n").slice(0, 4).join("\n").match(/`(cargo run [^`]+)`/)?.[1];
  const line = (page, word, text = command(page)) => ({ page, line: 1, word, text });

  test("the receivers run by the commands in their first lines, and what is sent to them arrives", async (t) => {
    const session = await Session.start(t);
    const receiver = await session.start(line("examples/verify.rs", "background"));
    assert.match(await session.run(line("examples/send.rs")), /1/);
    await session.prints(receiver, line("examples/verify.rs", "", "msg_…"));
    const hostile = await session.start(line("crates/tidings-test-support/examples/hostile_receiver.rs", "background"));
    assert.match(hostile.output(), /http:\/\/127\.0\.0\.1:\d+/);
    await session.background(line("crates/tidings-notify/examples/axum.rs", "background"));
    await session.run(line("crates/tidings-notify/examples/axum.rs", "", "until curl -fsS -X POST http://127.0.0.1:3000/ann; do sleep 0.05; done"));
  });

  const servers = ["examples/verify.rs", "examples/send.rs", "crates/tidings-test-support/examples/hostile_receiver.rs", "crates/tidings-notify/examples/axum.rs"];
  for (const file of files.filter((file) => !servers.includes(file))) {
    test(`${file} runs by the command in its first line`, async (t) => {
      assert.ok(command(file), "there is a command");
      const session = await Session.start(t);
      assert.notEqual(await session.run(line(file)), "", "it prints what it does");
    });
  }
});

test("every block that is checked in another place is there", () => {
  const there = new Set(pages.flatMap(blocks).map(key));
  for (const name of Object.keys(ELSEWHERE)) assert.ok(there.has(name), name);
  for (const [name, why] of Object.entries(ELSEWHERE)) if (why.startsWith("not run")) console.log(`${name}: ${why}`);
});

test("the Rust of every page is a documentation test of a package", () => {
  const included = execFileSync("git", ["grep", "-hoE", "include_str!\\(\"[./]*(docs/)?[A-Za-z-]+\\.md\"\\)", "--", "*.rs"], { cwd: root, encoding: "utf8" });
  for (const page of pages) {
    if (blocks(page).some(({ language }) => language === "rust")) assert.match(included, new RegExp(`/${page}"`), page);
  }
});

test("every Rust name of docs/from-go.md exists", () => {
  const sources = execFileSync("git", ["grep", "-hE", "^ *(pub|async fn|fn) |^    [A-Z][A-Za-z]+", "--", "src/*.rs", "crates/*/src/*.rs"], { cwd: root, encoding: "utf8", maxBuffer: 1 << 28 });
  const known = new Set(sources.match(/\w+/g));
  const rows = read("docs/from-go.md").split("\n").filter((line) => /^\| /.test(line)).map((line) => line.split(" | ").slice(1).join(" | "));
  const foreign = ["reqwest", "tracing"];
  for (const row of rows) {
    for (const [, name] of row.matchAll(/`([A-Za-z_:.]+)/g)) {
      for (const part of name.split(/[:.]+/).filter((part) => /^[A-Za-z_]{4,}$/.test(part) && !foreign.includes(part))) {
        assert.ok(known.has(part), `${name} in ${row}`);
      }
    }
  }
});

test("every link to a heading leads to one", () => {
  const slug = (heading) => heading.toLowerCase().replaceAll(/[^\p{L}\p{N} _-]/gu, "").replaceAll(" ", "-");
  const headings = (page) => [...read(page).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => slug(heading));
  for (const page of pages) {
    for (const [link, path, heading] of read(page).matchAll(/\]\(((?!https?:)[^)#]*)#([^)]+)\)/g)) {
      const target = path === "" ? page : normalize(join(dirname(page), path));
      assert.ok(headings(target).includes(heading), `${page}: ${link}`);
    }
  }
});

test("the index of the handbook names every page once", () => {
  const named = [...read("docs/README.md").matchAll(/\]\(([a-z-]+\.md)\)/g)].map(([, name]) => `docs/${name}`);
  const expected = pages.filter((page) => page.startsWith("docs/") && page !== "docs/README.md");
  assert.deepEqual(named.toSorted(), expected);
});

test("the log is as docs/operations.md shows it", async (t) => {
  const [shown] = blocks("docs/operations.md").filter(({ language }) => language === "json");
  const id = JSON.parse(shown.text).span.request_id;
  const session = await Session.start(t);
  const line = (text, word) => ({ page: shown.page, line: shown.line, word, text });
  const server = await session.start(line("tidings serve --dev --log-format json --log info,tidings_server=debug", "background"));
  await session.run(line(`curl -s -H "Authorization: Bearer $(tidings key create shop --scope publish)" -H "X-Request-Id: ${id}" -d '{"user_id":"anna"}' http://127.0.0.1:8080/v1/notifications`));
  await session.prints(server, { ...shown, text: `…request finished…${id}…` });
  const finished = documents(server.output()).find(({ fields, span }) => fields?.message === "request finished" && span?.request_id === id);
  assert.ok(isLike(documents(shown.text)[0], finished), JSON.stringify(finished));
});

test("the unit in docs/operations.md is a part of the unit of the package", () => {
  const unit = read("packaging/debian/tidings.service").split("\n");
  const [shown] = blocks("docs/operations.md").filter(({ language }) => language === "ini");
  for (const line of shown.text.trimEnd().split("\n")) assert.ok(unit.includes(line), line);
});

test("the custom properties of docs/inbox.md are those of the element", () => {
  const names = (text) => [...new Set([...text.matchAll(/--tidings-[a-z]+(-[a-z]+)*/g)].map(([name]) => name))].sort();
  const [shown] = blocks("docs/inbox.md").filter(({ language }) => language === "css");
  assert.deepEqual(names(shown.text), names(read("clients/js/src/element-style.ts")));
});
