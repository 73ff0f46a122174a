// The client where there is no document, as in Node and in workers.

import assert from "node:assert/strict";
import { mkdirSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { displayOf } from "./support.mjs";

const client = fileURLToPath(new URL("..", import.meta.url));
const DOM = ["lib.es2022.d.ts", "lib.dom.d.ts"];

/** What TypeScript says of a program that uses the declarations which are packed, checked themselves. */
function problems(folder, text, lib) {
  writeFileSync(`${folder}use.ts`, text);
  const program = ts.createProgram([`${folder}use.ts`], {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.ES2022,
    moduleResolution: ts.ModuleResolutionKind.Bundler,
    lib,
    types: [],
    strict: true,
    noEmit: true,
  });
  return ts.getPreEmitDiagnostics(program).map(({ file, messageText }) => `${file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`);
}

test("the types need none of a browser, and with those of one the element is an element", () => {
  const folder = `${client}dist/declarations/`;
  mkdirSync(folder, { recursive: true });
  try {
    const { config } = ts.readConfigFile(`${client}tsconfig.json`, ts.sys.readFile);
    const { options, fileNames } = ts.parseJsonConfigFileContent(config, ts.sys, client);
    ts.createProgram(fileNames, { ...options, outDir: folder }).emit();
    const anywhere = `
      import { displayOf, Tidings, TidingsInboxElement, type TidingsOptions } from "./index.js";
      const options: TidingsOptions = { user: "anna", credentials: "include" };
      const inbox = new Tidings(options).inbox<{ title: string }>({ onNotification: (one) => void displayOf(one).title });
      export const titles: string[] = inbox.state.items.map(({ payload }) => payload.title);
      export const Exported: unknown = TidingsInboxElement;
      // @ts-expect-error
      export const wrong: TidingsOptions = { user: "anna", credentials: "always" };`;
    assert.deepEqual(problems(folder, anywhere, ["lib.es2022.d.ts"]), []);
    const inBrowser = `${anywhere}
      const element = document.querySelector("tidings-inbox") ?? new TidingsInboxElement();
      element.addEventListener("tidings-open", () => element.close());
      export const parent: HTMLElement = element;
      export const unread: number | undefined = element.inbox?.state.unread;
      // @ts-expect-error
      export const input: HTMLInputElement = element;`;
    assert.deepEqual(problems(folder, inBrowser, DOM), []);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("without a document, relative addresses are left out", () => {
  const payload = {
    title: "Hello",
    url: "/orders/7",
    icon: "./icon.png",
    actions: [
      { label: "here", url: "?page=2" },
      { label: "there", url: "//example.com/" },
      { label: "elsewhere", url: "https://example.com/x" },
    ],
  };
  const notification = { payload, payload_text: JSON.stringify(payload), type: "t" };
  assert.deepEqual(displayOf(notification), {
    title: "Hello",
    body: undefined,
    url: undefined,
    icon: undefined,
    actions: [{ label: "elsewhere", url: "https://example.com/x" }],
    isRaw: false,
  });
  assert.equal(displayOf(notification, "https://app.example.com/").url, "https://app.example.com/orders/7");
});
