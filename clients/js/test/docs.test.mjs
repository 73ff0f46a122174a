// Every snippet of the documentation of the client is type-checked or run.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { browse, pages } from "./browser.mjs";
import { Home, until } from "./support.mjs";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const client = fileURLToPath(new URL("..", import.meta.url));

/** The blocks of a language in a page, without the indent of a list. */
function blocks(page, language) {
  const text = readFileSync(root + page, "utf8");
  const found = [...text.matchAll(new RegExp(`^( *)\`\`\`${language}\n(.*?)^\\1\`\`\``, "gms"))];
  return found.map(([, indent, body]) => body.replaceAll(new RegExp(`^${indent}`, "gm"), ""));
}

test("the examples of the README have the types of the client", () => {
  const examples = blocks("clients/js/README.md", "ts");
  assert.ok(examples.length >= 3);
  const folder = `${client}dist/examples/`;
  mkdirSync(folder, { recursive: true });
  try {
    const files = examples.map((text, index) => {
      writeFileSync(`${folder}${index}.ts`, text);
      return `${folder}${index}.ts`;
    });
    const { options } = ts.parseJsonConfigFileContent(ts.readConfigFile(`${client}tsconfig.json`, ts.sys.readFile).config, ts.sys, client);
    const program = ts.createProgram(files, {
      ...options,
      noEmit: true,
      declaration: false,
      noUnusedLocals: false,
      emitDeclarationOnly: false,
      rootDir: client,
      paths: { "tidings-client": [`${client}src/index.ts`] },
    });
    const problems = ts.getPreEmitDiagnostics(program);
    assert.deepEqual(problems.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, "\n")), []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the example of an inbox does what it says", async (t) => {
  const server = await new Home(t).start();
  for (let n = 0; n < 60; n += 1) await server.notify("anna", { title: `title ${n}` });
  const [example] = blocks("clients/js/README.md", "ts").filter((text) => text.includes(".inbox<"));
  const { outputText } = ts.transpileModule(example, { compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022 } });
  const module = new URL("../../../crates/tidings-server/src/client/tidings.js", import.meta.url);
  const text = outputText.replace("http://127.0.0.1:8080", server.url).replace("tidings-client", module.href);
  const said = t.mock.method(console, "log", () => {});
  const { leave } = await import(`data:text/javascript,${encodeURIComponent(text)}`);
  t.after(leave);
  const hasSaid = (line) => said.mock.calls.some(({ arguments: words }) => words.join(" ") === line);
  // The last one is on the next page.
  for (const line of ["live 0 0 false", "title 59 false", "title 0 false"]) await until(line, () => hasSaid(line));
  const { unread, unseen } = await (await fetch(`${server.url}/v1/users/anna/notifications/unread-count`)).json();
  assert.deepEqual({ unread, unseen }, { unread: 0, unseen: 0 });
});

test("the pages of the README and of docs/inbox.md show the inbox", async (t) => {
  const server = await new Home(t).start();
  await server.notify("anna", { title: "Hello" });
  const examples = ["README.md", "docs/inbox.md"].flatMap((page) => blocks(page, "html").filter((text) => text.startsWith("<!doctype")));
  assert.equal(examples.length, 2);
  for (const example of examples) assert.ok(example.trim().split("\n").length <= 10, "ten lines");
  const routes = examples.map((text, index) => [`/${index}`, text.replaceAll("http://127.0.0.1:8080", server.url)]);
  const app = await pages(t, Object.fromEntries(routes));
  const browser = await browse(t);
  for (const [path] of routes) {
    await browser.goto(app + path);
    await browser.until("the badge", `() => document.querySelector("tidings-inbox").shadowRoot?.querySelector(".badge").textContent === "1"`);
  }
});

test("the token and the element of docs/inbox.md work together, under a strict policy for content", async (t) => {
  const secret = "a-secret-of-at-least-32-bytes-for-tests";
  const [source] = blocks("docs/inbox.md", "js");
  const { tidingsToken } = await import(`data:text/javascript,${encodeURIComponent(source)}`);
  const [element] = blocks("docs/inbox.md", "html").filter((text) => !text.startsWith("<!doctype"));
  const key = "a-key-for-this-test-0123456789";
  const server = await new Home(t).start({ args: ["--api-key", key, "--jwt-secret", secret] });
  const policy = `default-src 'none'; script-src ${server.url}; connect-src 'self' ${server.url}`;
  const app = await pages(t, {
    "/": `<!doctype html><meta http-equiv="Content-Security-Policy" content="${policy}">${element.replaceAll("https://tidings.example.com", server.url)}`,
    "/tidings-token": () => tidingsToken("anna", secret),
  });
  await server.post("/v1/notifications", { user_id: "anna", payload: { title: "Hello" } }, { authorization: `Bearer ${key}` });
  const browser = await browse(t);
  await browser.goto(app);
  await browser.until("the badge", `() => document.querySelector("tidings-inbox").shadowRoot?.querySelector(".badge").textContent === "1"`);
});
