// Starts the server, and talks to it as an application does.

import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../..", import.meta.url));
const binary = process.env.TIDINGS_BINARY ?? join(root, "target/debug/tidings");

export { Inbox, Tidings, TidingsError, compareIds, displayOf } from "../../../crates/tidings-server/src/client/tidings.js";

/** Past this a test has failed. */
const PATIENCE_MS = 30_000;

/** Waits until `condition` returns something other than false or undefined, and returns that. */
export async function until(what, condition) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const value = await condition();
    if (value !== false && value !== undefined) return value;
    if (Date.now() > end) throw new Error(`${what} did not happen`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** A database, on which servers are started one after another. */
export class Home {
  #folder = mkdtempSync(join(tmpdir(), "tidings-js-"));
  #servers = [];

  /** @param {import("node:test").TestContext} test the test that it ends with */
  constructor(test) {
    test.after(async () => {
      for (const server of this.#servers) await server.kill();
      rmSync(this.#folder, { recursive: true, force: true });
    });
  }

  async start({ address = "127.0.0.1:0", args = [] } = {}) {
    const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("TIDINGS_")));
    const database = `sqlite:${join(this.#folder, "tidings.db")}`;
    const all = ["serve", "--listen", address, "--dev", "--database", database, ...args];
    const child = spawn(binary, all, { env, stdio: ["ignore", "pipe", "inherit"] });
    const server = await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("exit", (code) => reject(new Error(`the server ended with ${code}`)));
      createInterface({ input: child.stdout }).on("line", (line) => {
        const url = line.match(/http:\/\/[^\s,]+/)?.[0];
        if (url !== undefined) resolve(new Server(child, url));
      });
    });
    this.#servers.push(server);
    return server;
  }
}

class Server {
  #child;
  #ended;

  constructor(child, url) {
    this.#child = child;
    this.url = url;
    this.address = new URL(url).host;
    this.#ended = new Promise((resolve) => child.once("exit", resolve));
  }

  kill() {
    this.#child.kill("SIGKILL");
    return this.#ended;
  }

  stop() {
    this.#child.kill("SIGTERM");
    return this.#ended;
  }

  async post(path, body, headers = {}) {
    const text = typeof body === "string" ? body : JSON.stringify(body);
    const response = await fetch(this.url + path, { method: "POST", body: text, headers });
    if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
    return response.json();
  }

  notify(user, payload, more = {}) {
    return this.post("/v1/notifications", { user_id: user, payload, ...more });
  }
}

/** A server whose replies the test writes: `serve` gets each request, and a function that replies. */
export async function script(test, serve) {
  const { createServer: createHttpServer } = await import("node:http");
  const server = createHttpServer(serve);
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  test.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${server.address().port}`;
}

/**
 * A TCP relay that can be cut, refuses connections while it is paused, and can freeze: the connections of that moment stay
 * open, and pass nothing on any more. All that a network may do.
 */
export async function relay(test, target) {
  const { connect } = await import("node:net");
  const pairs = new Set();
  let isPaused = false;
  const server = createServer((near) => {
    if (isPaused) return near.destroy();
    const far = connect(Number(target.split(":")[1]), target.split(":")[0]);
    const pair = [near, far];
    pairs.add(pair);
    near.pipe(far).pipe(near);
    for (const socket of pair) {
      socket.on("error", () => {});
      socket.on("close", () => {
        pairs.delete(pair);
        pair.forEach((other) => other.destroy());
      });
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const cut = () => pairs.forEach((pair) => pair.forEach((socket) => socket.destroy()));
  test.after(() => {
    cut();
    server.close();
  });
  const pause = (paused) => {
    isPaused = paused;
    if (paused) cut();
  };
  const freeze = () => {
    for (const [near, far] of pairs) {
      near.unpipe(far).resume();
      far.unpipe(near).resume();
    }
  };
  return { url: `http://127.0.0.1:${server.address().port}`, cut, pause, freeze };
}
