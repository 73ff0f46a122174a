// A browser of its own, driven over WebDriver, and pages for it.

import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { script } from "./support.mjs";

const ELEMENT = "element-6066-11e4-a52e-4f735466cecf";

/** How often a driver is started: the port that it gets for IPv4 may be in use for IPv6, and then it ends. */
const STARTS = 5;

/** A driver, its end, and its port. */
async function startDriver() {
  let said = "";
  for (let start = 0; start < STARTS; start += 1) {
    const driver = spawn("chromedriver", ["--port=0"], { stdio: ["ignore", "pipe", "ignore"] });
    const ended = new Promise((resolve) => driver.once("close", resolve));
    const port = await new Promise((resolve, reject) => {
      driver.once("error", reject);
      void ended.then(() => resolve(undefined));
      createInterface({ input: driver.stdout }).on("line", (line) => {
        const found = line.match(/started successfully on port (\d+)/)?.[1];
        if (found === undefined) said = line;
        else resolve(found);
      });
    });
    if (port !== undefined) return { driver, ended, port };
  }
  throw new Error(`chromedriver starts; it said: ${said}`);
}

/** Starts a browser with an empty profile. It ends with the test. */
export async function browse(test, { args = [] } = {}) {
  const profile = mkdtempSync(join(tmpdir(), "tidings-chromium-"));
  const { driver, ended, port } = await startDriver();
  const browser = new Browser(`http://127.0.0.1:${port}/session`);
  test.after(async () => {
    await browser.quit().catch(() => {});
    driver.kill();
    await ended;
    rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
  });
  await browser.start([
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1000,800",
    "--force-device-scale-factor=2",
    `--user-data-dir=${profile}`,
    ...args,
  ]);
  return browser;
}

class Browser {
  #driver;

  constructor(driver) {
    this.#driver = driver;
  }

  async start(args) {
    const alwaysMatch = { "goog:chromeOptions": { args }, timeouts: { script: 60_000 } };
    const { sessionId } = await this.#send("POST", "", { capabilities: { alwaysMatch } });
    this.#driver += `/${sessionId}`;
  }

  quit() {
    return this.#send("DELETE", "");
  }

  async #send(method, path, body) {
    const init = body === undefined ? { method } : { method, body: JSON.stringify(body) };
    const response = await fetch(this.#driver + path, init);
    const { value } = await response.json();
    if (!response.ok) throw new Error(`${value.error}: ${value.message}`);
    return value;
  }

  goto(url) {
    return this.#send("POST", "/url", { url });
  }

  /** Goes back to the page before, and waits until it is there. */
  back() {
    return this.#send("POST", "/back", {});
  }

  /** Opens another tab, and shows it. */
  async openTab(url) {
    const { handle } = await this.#send("POST", "/window/new", { type: "tab" });
    await this.show(handle);
    await this.goto(url);
    return handle;
  }

  /** Runs what follows in a frame of the page. */
  enterFrame(id) {
    return this.#send("POST", "/frame", { id });
  }

  show(handle) {
    return this.#send("POST", "/window", { handle });
  }

  tab() {
    return this.#send("GET", "/window");
  }

  /** Closes the tab that is shown. */
  closeTab() {
    return this.#send("DELETE", "/window");
  }

  /** Runs a function in the page, and returns what it returns or resolves with. */
  run(code, ...args) {
    const script = `return (${code})(...arguments)`;
    return this.#send("POST", "/execute/sync", { script, args });
  }

  /** Waits until a function in the page returns something other than false or nothing, and returns that. */
  async until(what, code, ...args) {
    const waiting = `async (...args) => {
      const check = ${code};
      const end = Date.now() + 30000;
      for (;;) {
        const isOver = Date.now() > end;
        try {
          const value = await check(...args);
          if (value) return value;
        } catch (error) {
          // What it looks for may not be there yet.
          if (isOver) throw error;
        }
        if (isOver) return undefined;
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
    }`;
    const value = await this.run(waiting, ...args);
    if (!value) throw new Error(`${what} did not happen`);
    return value;
  }

  /** An element that a function in the page returns. */
  async find(code, ...args) {
    const found = await this.until(`finding ${code}`, code, ...args);
    return found[ELEMENT];
  }

  async click(code, ...args) {
    await this.#send("POST", `/element/${await this.find(code, ...args)}/click`, {});
  }

  /** What a screen reader calls an element. */
  async nameOf(code, ...args) {
    return this.#send("GET", `/element/${await this.find(code, ...args)}/computedlabel`);
  }

  /** Moves the pointer over an element. */
  async hover(code, ...args) {
    const origin = { [ELEMENT]: await this.find(code, ...args) };
    const move = { type: "pointerMove", duration: 0, origin, x: 0, y: 0 };
    await this.#send("POST", "/actions", { actions: [{ type: "pointer", id: "mouse", actions: [move] }] });
  }

  /** Clicks on a point of the page, with the left button (0) or the middle one (1). */
  async clickAt({ x, y }, button = 0) {
    const steps = [{ type: "pointerMove", duration: 0, x: Math.round(x), y: Math.round(y) }, { type: "pointerDown", button }, { type: "pointerUp", button }];
    await this.#send("POST", "/actions", { actions: [{ type: "pointer", id: "mouse", actions: steps }] });
  }

  /** Types keys, one after another, where the focus is. */
  async type(...keys) {
    const actions = keys.flatMap((value) => [{ type: "keyDown", value }, { type: "keyUp", value }]);
    await this.#send("POST", "/actions", { actions: [{ type: "key", id: "keyboard", actions }] });
  }

  resize(width, height) {
    return this.#send("POST", "/window/rect", { width, height });
  }

  /** Sends a command of the protocol for developers. */
  command(cmd, params) {
    return this.#send("POST", "/goog/cdp/execute", { cmd, params });
  }

  async screenshot(path) {
    writeFileSync(path, Buffer.from(await this.#send("GET", "/screenshot"), "base64"));
  }
}

/** What WebDriver calls keys. */
export const KEYS = { tab: "\ue004", enter: "\ue007", escape: "\ue00c", down: "\ue015", up: "\ue013", delete: "\ue017", end: "\ue010" };

const client = new URL("../../../crates/tidings-server/src/client/tidings.js", import.meta.url);

/** Serves pages of an application, of an origin other than the server's: a text, or the text or status that a function returns. */
export function pages(test, routes) {
  const all = { "/tidings.js": readFileSync(client, "utf8"), ...routes };
  return script(test, (request, response) => {
    const { pathname } = new URL(request.url, "http://app");
    const route = all[pathname];
    const body = typeof route === "function" ? route(request) : route;
    const isPage = typeof body === "string" && body.startsWith("<!doctype");
    const type = pathname.endsWith(".js") ? "text/javascript" : isPage ? "text/html; charset=utf-8" : "text/plain";
    response.writeHead(typeof body === "number" ? body : body === undefined ? 404 : 200, { "content-type": type });
    response.end(typeof body === "string" ? body : "not this");
  });
}
