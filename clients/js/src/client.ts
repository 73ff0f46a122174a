import { Api, type Credentials } from "./api.js";
import { expect, expectOptions } from "./expect.js";
import { type EventId, expectEventId } from "./ids.js";
import { Inbox, type InboxOptions } from "./inbox.js";
import { type ConnectionOptions, Stream, type StreamOptions } from "./stream.js";
import { Tokens, type TokenSource } from "./tokens.js";
import { type Transport, TRANSPORTS } from "./transport.js";
import { type Counts, countsOf, type Page, pageOf, type Query } from "./wire.js";

/** Which user, of which server, with which token. */
export interface TidingsOptions {
  /** The user. With a token, its `sub`. */
  user: string;
  /** The address of the server. Default: where this module was loaded from, if it was loaded from a server. */
  url?: string;
  /**
   * Returns a new token of the user. It is called before the first request, before a token expires, and when the
   * server refuses one. Not needed with a cookie, and for a server with `--dev`.
   */
  token?: TokenSource;
  /** `sse` (default): Server-Sent Events. `websocket`: a WebSocket. */
  transport?: Transport;
  /** Whether the tabs of a browser share one connection; default `true`, where the browser can. */
  share?: boolean;
  /** `include` sends the cookie of `--jwt-cookie` to a server of another origin. Default `same-origin`. */
  credentials?: Credentials;
  /** The longest wait between two connections, in milliseconds, unless the server asks for a longer one; default 30,000. */
  maxWaitMs?: number;
}

/** The address of the server that this module was loaded from. */
function ownUrl(): string | undefined {
  const { url } = import.meta;
  return /^https?:/.test(url) ? new URL(".", url).href : undefined;
}

const CREDENTIALS: readonly Credentials[] = ["same-origin", "include", "omit"];

function isAddress(url: unknown): url is string {
  try {
    if (typeof url !== "string" || /[?#\s]/.test(url)) return false;
    const { protocol, username, password } = new URL(url);
    return /^https?:$/.test(protocol) && username === "" && password === "";
  } catch {
    return false;
  }
}

/** Whether the server takes this name. A URL would drop `.` and `..`, and lead to another route. */
function isUser(name: unknown): boolean {
  if (typeof name !== "string" || ["", ".", ".."].includes(name) || /^\p{White_Space}|\p{White_Space}$/u.test(name)) return false;
  if (/[\p{Cc}\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/u.test(name)) return false;
  return new TextEncoder().encode(name).length <= 255;
}

/**
 * One user of a Tidings server. Requests are sent again after failures that may be over soon; their errors are
 * {@link TidingsError}s.
 */
export class Tidings {
  readonly user: string;
  readonly #api: Api;
  readonly #connection: ConnectionOptions;

  /** Throws a TypeError that names the option, if one is wrong. */
  constructor(options: TidingsOptions) {
    expectOptions(options, "user", "url", "token", "transport", "share", "credentials", "maxWaitMs");
    const { user, token, url = ownUrl(), transport = "sse", share = true, credentials = "same-origin", maxWaitMs = 30_000 } = options;
    expect("user", isUser(user), "the name of a user: 1 to 255 bytes, no control characters, no space at either end, not `.` or `..`", user);
    expect("url", url !== undefined && isAddress(url), "the address of a Tidings server, with http or https, and without a query, a password or spaces", url);
    expect("token", token === undefined || typeof token === "function", "a function that returns a token", typeof token);
    expect("transport", TRANSPORTS.includes(transport), TRANSPORTS.join(" or "), transport);
    expect("share", typeof share === "boolean", "true or false", share);
    expect("credentials", CREDENTIALS.includes(credentials), CREDENTIALS.join(", "), credentials);
    expect("maxWaitMs", typeof maxWaitMs === "number" && maxWaitMs > 0, "a number of milliseconds", maxWaitMs);
    this.user = user;
    this.#api = new Api({ url, user, tokens: new Tokens(token), credentials });
    this.#connection = { transport, share, maxWaitMs };
  }

  /**
   * The time of the server, in milliseconds since 1970, to within about a second: what the times of notifications are
   * compared with. Before the first response, and of a server that sends no `date`, it is that of this machine.
   */
  now(): number {
    return this.#api.clock.now();
  }

  /** Opens a stream. Close it when it is no longer needed. Throws a TypeError that names the option, if one is wrong. */
  stream<Payload = unknown>(options: StreamOptions<Payload> = {}): Stream<Payload> {
    return new Stream<Payload>(this.#api, this.#connection, options);
  }

  /**
   * Opens the inbox: its list, and a stream that keeps it up to date. Close it when it is no longer needed. Throws a
   * TypeError that names the option, if one is wrong.
   */
  inbox<Payload = unknown>(options: InboxOptions<Payload> = {}): Inbox<Payload> {
    return new Inbox<Payload>(this, options);
  }

  /** Loads one page of the inbox. */
  async list<Payload = unknown>(query: Query = {}): Promise<Page<Payload>> {
    const parameters = new URLSearchParams();
    for (const [name, value] of Object.entries(query)) if (value !== undefined) parameters.set(name, String(value));
    return this.#api.call("GET", `notifications?${parameters}`, (text) => pageOf(text) as Page<Payload>);
  }

  /** Loads the counts alone. */
  counts(): Promise<Counts> {
    return this.#api.call("GET", "notifications/unread-count", countsOf<Counts>);
  }

  markRead(id: EventId): Promise<Counts> {
    return this.#changeOne(id, "read");
  }

  markUnread(id: EventId): Promise<Counts> {
    return this.#changeOne(id, "unread");
  }

  archive(id: EventId): Promise<Counts> {
    return this.#changeOne(id, "archive");
  }

  unarchive(id: EventId): Promise<Counts> {
    return this.#changeOne(id, "unarchive");
  }

  /** Marks all as read up to a notification, or all that there are. */
  markAllRead(upTo?: EventId): Promise<Counts> {
    return this.#change("read-all", upTo);
  }

  /** Marks all as seen up to a notification, or all that there are. */
  markSeen(upTo?: EventId): Promise<Counts> {
    return this.#change("seen", upTo);
  }

  async #changeOne(id: EventId, what: string): Promise<Counts> {
    expectEventId("id", id);
    return this.#change(`${id}/${what}`);
  }

  async #change(path: string, upTo?: EventId): Promise<Counts> {
    if (upTo !== undefined) expectEventId("upTo", upTo);
    const body = upTo === undefined ? undefined : { up_to: upTo };
    return this.#api.call("POST", `notifications/${path}`, countsOf<Counts>, body);
  }
}
