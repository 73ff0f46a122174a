// Runs the commands of a page as a person does who types them one after another, in a directory of their own.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { chmodSync, closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { place, root } from "./pages.mjs";

const target = process.env.CARGO_TARGET_DIR ?? `${root}target`;
export const programs = `${target}/debug`;
export const tools = `${target}/handbook`;

/** Past this, a command has failed. */
const PATIENCE_MS = 30_000;

/** The ports that pages name; each session has free ones in their places. */
const PORTS = /(?<![\d.])(3000|8080|9000|9001|9002)(?![\d.])/g;

/** The servers that pages name, in whose places `scripts/services` has others. */
const DATABASE = /postgres:\/\/tidings:password@db\.example\.com\/tidings(\?sslmode=verify-full)?/g;
const REDIS = "redis://redis.example.com/0";

const pause = () => new Promise((resolve) => setTimeout(resolve, 10));

async function until(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(what());
    await pause();
  }
}

async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return String(port);
}

/** What `cargo` does in a page, with what was built before. */
const CARGO = `#!/usr/bin/env bash
case "$*" in
"run --release -- "*) exec "${programs}/tidings" "\${@:4}" ;;
"install --path crates/tidings-server") test -f "${root}crates/tidings-server/Cargo.toml" ;;
"run "*"--example "*)
    while [ "$1" != --example ]; do shift; done
    name=$2
    shift 2
    if [ "\${1:-}" = -- ]; then shift; fi
    exec "${programs}/examples/$name" "$@"
    ;;
*)
    echo "the test of the handbook does not know: cargo $*" >&2
    exit 1
    ;;
esac
`;

export class Session {
  #folder = mkdtempSync(`${tools}/session-`);
  #ports = new Map();
  #background = [];
  #blocks = 0;
  #environment;

  /** @param {import("node:test").TestContext} test the test that it ends with */
  static async start(test, environment = {}) {
    const session = new Session();
    for (const port of ["3000", "8080", "9000", "9001", "9002"]) session.#ports.set(port, await freePort());
    // So that `npm install` installs here, and not in a directory above.
    session.write("package.json", "{}");
    const cargo = join(session.#folder, "cargo");
    writeFileSync(cargo, CARGO);
    chmodSync(cargo, 0o755);
    const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("TIDINGS_"));
    session.#environment = {
      ...Object.fromEntries(inherited),
      PATH: `${session.#folder}:${programs}:${tools}/python/bin:${process.env.PATH}`,
      GOCACHE: `${tools}/go`,
      TIDINGS_LISTEN: `127.0.0.1:${session.#ports.get("8080")}`,
      TIDINGS_URL: session.url("8080"),
      ...environment,
    };
    test.after(() => session.#end());
    return session;
  }

  /** The address at which this session has what pages have at this port. */
  url(port) {
    return `http://127.0.0.1:${this.#ports.get(port)}`;
  }

  #here(text) {
    return text.replaceAll(PORTS, (port) => this.#ports.get(port)).replaceAll("0.0.0.0", "127.0.0.1").replaceAll(DATABASE, (url) => process.env.DATABASE_URL ?? url).replaceAll(REDIS, process.env.REDIS_URL ?? REDIS);
  }

  #there(text) {
    return [...this.#ports].reduce((text, [port, here]) => text.replaceAll(`:${here}`, `:${port}`), text);
  }

  write(name, text) {
    writeFileSync(join(this.#folder, name), this.#here(text));
  }

  /** Makes what was installed for all sessions visible in this one. */
  link(name) {
    symlinkSync(`${tools}/${name}`, join(this.#folder, name));
  }

  /** Starts commands. The variables that earlier ones have set are there. */
  #spawn(block) {
    const number = this.#blocks++;
    const state = join(this.#folder, "variables");
    const script = join(this.#folder, `commands-${number}`);
    const output = join(this.#folder, `output-${number}`);
    const save = `declare -p | grep -v '^declare -[a-zA-Z]*r' >${state}`;
    const load = existsSync(state) ? `source ${state} 2>${output}.variables` : "";
    writeFileSync(script, `set -euo pipefail\n${load}\n${this.#here(block.text)}\n${block.word === "background" ? "" : save}\n`);
    const file = openSync(output, "w");
    const child = spawn("bash", [script], { cwd: this.#folder, env: this.#environment, detached: true, stdio: ["ignore", file, file] });
    closeSync(file);
    const running = { block, child, code: undefined, output: () => this.#there(readFileSync(output, "utf8")) };
    running.ended = new Promise((resolve) => child.once("exit", (code, signal) => resolve((running.code = code ?? signal))));
    return running;
  }

  /** Runs commands to their end, and returns what they print. */
  async run(block) {
    const running = this.#spawn(block);
    const said = () => `${place(block)}: ${running.code ?? "does not end"}\n${block.text}\n${running.output()}`;
    this.#background.push(running);
    await until(said, () => running.code !== undefined);
    this.#background.pop();
    assert.equal(running.code, 0, said());
    return running.output();
  }

  /** Starts commands that go on until the page ends. */
  background(block) {
    const running = this.#spawn(block);
    this.#background.push(running);
    return running;
  }

  /** Starts commands that go on until the page ends, and waits until they print something. */
  async start(block) {
    const running = this.background(block);
    const said = () => `${place(block)}: prints nothing, ${running.code ?? "goes on"}\n${block.text}`;
    await until(said, () => running.output() !== "" || running.code !== undefined);
    if (block.text.includes(" serve")) {
      const failed = () => `${place(block)}: the server does not listen\n${running.output()}`;
      await until(failed, () => running.output().includes("Tidings listens on") || running.code !== undefined);
      assert.equal(running.code, undefined, failed());
    }
    return running;
  }

  /** Waits until what runs in the background has printed these lines. */
  async prints(running, expected) {
    const said = () => `${place(expected)}: expected\n${expected.text}\nbut got\n${running.output()}`;
    await until(said, () => hasLines(running.output(), expected.text));
  }

  async #end() {
    for (const running of this.#background.reverse()) {
      signal(running, "SIGTERM");
      const late = setTimeout(() => signal(running, "SIGKILL"), PATIENCE_MS);
      await running.ended;
      clearTimeout(late);
    }
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** Sends a signal to commands that have not ended, and to all that they have started. */
function signal({ child, code }, name) {
  try {
    if (code === undefined) process.kill(-child.pid, name);
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}

/** A text with the same names in the places of what is another in each run. */
export function normal(text) {
  return text
    .replaceAll(/\b[0-9a-f]{16}-(\d+)\b/g, "<epoch>-$1")
    .replaceAll(/\b(ep|dlv|evt|key)_[0-9a-f]+/g, "<$1>")
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, "<time>")
    .replaceAll(/\b(whsec|tk)_[A-Za-z0-9+/=_-]+/g, "<$1>");
}

/** Whether an output has these lines, in their order; `…` stands for any text. */
export function hasLines(output, expected) {
  const lines = normal(output).split("\n").map((line) => line.trimEnd());
  let from = 0;
  return normal(expected)
    .trimEnd()
    .split("\n")
    .every((line) => {
      const parts = line.trimEnd().split("…").map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
      const found = lines.findIndex((candidate, index) => index >= from && new RegExp(`^${parts.join(".*")}$`).test(candidate));
      from = found + 1;
      return found >= 0;
    });
}

/** The JSON documents in a text, each on lines of its own. */
export function documents(text) {
  const found = [];
  let open = "";
  for (const line of text.split("\n")) {
    if (open === "" && !/^\s*[[{]/.test(line)) continue;
    open += line;
    try {
      found.push(JSON.parse(normal(open)));
      open = "";
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
    }
  }
  return found;
}

/** Whether two documents have the same members, texts and kinds of values; `null` is of every kind, `…` any text. */
export function isLike(left, right) {
  if (left === null || right === null) return true;
  if (typeof left !== typeof right || Array.isArray(left) !== Array.isArray(right)) return false;
  if (typeof left === "string") return left.includes("…") || right.includes("…") || left === right;
  if (typeof left !== "object") return true;
  const names = Object.keys(left);
  if (!Array.isArray(left) && names.length !== Object.keys(right).length) return false;
  return names.every((name) => name in right && isLike(left[name], right[name]));
}
