import { asTidingsError, errorOf, notFromTidings } from "./error.js";
import { ServerClock } from "./server-clock.js";
import type { Tokens } from "./tokens.js";
import { Backoff, wait } from "./wait.js";

/** How long a response to a request may take. */
const REQUEST_TIMEOUT_MS = 20_000;

/** How often a request is sent if it fails in a way that may be over soon. */
const MAX_TRIES = 3;

/** The longest wait between two tries: beyond it, the caller decides. */
const MAX_WAIT_MS = 5000;

/** With which requests a browser sends cookies. */
export type Credentials = "same-origin" | "include" | "omit";

/** Where requests of a user go, and with which credential. */
export interface ApiOptions {
  url: string;
  user: string;
  tokens: Tokens;
  credentials: Credentials;
}

/** Requests to the routes of one user. */
export class Api {
  readonly user: string;
  readonly tokens: Tokens;
  readonly clock = new ServerClock();
  /** `…/v1/users/<user>/`. */
  readonly base: string;
  readonly #credentials: Credentials;

  constructor({ url, user, tokens, credentials }: ApiOptions) {
    const server = new URL(url.endsWith("/") ? url : `${url}/`);
    this.user = user;
    this.tokens = tokens;
    this.base = new URL(`v1/users/${encodeURIComponent(user)}/`, server).href;
    this.#credentials = credentials;
  }

  /**
   * Sends one request. A response with any other status than 2xx becomes an error.
   *
   * @internal
   */
  async send(path: string, token: string | undefined, init: RequestInit): Promise<Response> {
    const headers = new Headers(init.headers);
    if (token !== undefined) headers.set("Authorization", `Bearer ${token}`);
    const askedAt = performance.now();
    let response: Response;
    try {
      response = await fetch(this.base + path, { ...init, headers, credentials: this.#credentials, cache: "no-store" });
    } catch (error) {
      throw asTidingsError(error);
    }
    this.clock.learn(response.headers.get("date"), performance.now() - askedAt);
    if (response.ok) return response;
    throw errorOf(response, await response.text().catch(() => ""));
  }

  /**
   * Sends a request that may be repeated, and returns what `read` makes of the text of the response. It is sent again
   * after a failure that may be over soon, which includes a response that `read` does not accept, and with a new token
   * after a 401.
   */
  async call<T>(method: "GET" | "POST", path: string, read: (text: string) => T, body?: object): Promise<T> {
    const backoff = new Backoff(MAX_WAIT_MS);
    let isRefused = false;
    for (let tries = 1; ; tries += 1) {
      const token = await this.tokens.current();
      try {
        const signal = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
        const init: RequestInit = { method, signal, headers: { Accept: "application/json" } };
        // What a click marks must arrive although the click leaves the page.
        if (method === "POST") init.keepalive = true;
        if (body !== undefined) init.body = JSON.stringify(body);
        const response = await this.send(path, token, init);
        const text = await response.text().catch((error: unknown) => {
          throw asTidingsError(error);
        });
        try {
          return read(text);
        } catch (cause) {
          throw notFromTidings(response.status, { cause });
        }
      } catch (thrown) {
        const error = asTidingsError(thrown);
        const hint = error.retryAfterMs ?? 0;
        if (error.status === 401) this.tokens.refuse(token);
        if (tries === MAX_TRIES || hint > MAX_WAIT_MS) throw error;
        if (error.status === 401 && !isRefused && token !== undefined) {
          isRefused = true;
          continue;
        }
        if (!error.isRetryable) throw error;
        await wait(backoff.next(hint));
      }
    }
  }
}
