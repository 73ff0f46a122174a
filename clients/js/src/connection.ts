import type { Api } from "./api.js";
import { asTidingsError, TidingsError } from "./error.js";
import { isUpTo, type EventId } from "./ids.js";
import { type Closed, receiveEvents, receiveFrames, type Transport } from "./transport.js";
import { Backoff, hinted, silenceOf, wait } from "./wait.js";
import type { Bye, Frame, Gap, Hello } from "./wire.js";

/**
 * What a stream does:
 *
 * - `connecting`: the first connection is being opened;
 * - `live`: notifications arrive;
 * - `waiting`: the connection is lost, and another one will be opened;
 * - `failed`: it ended for good, see the error;
 * - `closed`: by the application.
 */
export type Status = "connecting" | "live" | "waiting" | "failed" | "closed";

/** Who hears what arrives. */
export interface FeedListener {
  onFrame(frame: Frame): void;
  /** `error` is why the stream waits or has failed. */
  onStatus(status: Status, error?: TidingsError): void;
}

/** Frames of one user, over one connection after another. */
export interface Feed {
  /** The last event that was received, or where the feed begins. */
  readonly cursor: EventId | undefined;
  /** Connects at once if the feed waits, unless the server has asked to wait. */
  hurry(): void;
  close(): void;
}

/** Hands over a frame, unless the reader at this cursor has had it, and moves the cursor: of a notification and a gap, afterwards. */
export function handOver(reader: { cursor: EventId | undefined }, { event, text }: Frame, onFrame: () => void): void {
  if (event === "hello") reader.cursor ??= (JSON.parse(text) as Hello).cursor;
  const id = event === "notification" ? (JSON.parse(text) as { id: EventId }).id : undefined;
  if (id !== undefined && reader.cursor !== undefined && isUpTo(id, reader.cursor)) return;
  onFrame();
  if (id !== undefined) reader.cursor = id;
  if (event === "gap") reader.cursor = (JSON.parse(text) as Gap).to;
}

/** Where a feed begins, and how it connects. */
export interface FeedOptions {
  transport: Transport;
  cursor: EventId | undefined;
  since: string | undefined;
  /** The limit of the wait between two connections. */
  maxWaitMs: number;
}

/** How long a connection may take until its first frame. */
const OPENING_MS = 20_000;

/** A connection that lasted so long was no failure: the next wait is a short one. */
const STABLE_MS = 10_000;

/** How often it is noted that a person looks at the page. */
const LOOK_MS = 10_000;

/** After nobody has looked for so long, because another application was in front or the machine slept, a connection may be dead. */
const AWAY_MS = 30_000;

/** The least time between two tries of a connection on which something arrives although the browser has no network. */
const TRY_MS = 1000;

/**
 * After so many refused tokens in a row the application has no good one. It is more than a few, because a server may
 * refuse good tokens for some seconds after a new key was added to a key set.
 */
const MAX_REFUSALS = 8;

/**
 * After so many replies in a row that are not from Tidings, and of which none says that the server is away, the address
 * may be a wrong one. It is not certain: a proxy replies so as well while the server restarts or moves.
 */
const MANY_FOREIGN = 5;

/** How a connection ended. */
interface End {
  error?: TidingsError;
  bye?: Bye;
  /** When its first frame came. */
  openedAt?: number;
  token: string | undefined;
}

/** What follows a connection. */
interface Plan {
  ms: number;
  /** Whether the wait may be ended. */
  canHurry: boolean;
  /** Why it waits, if not because of how the connection ended. */
  error?: TidingsError;
}

/** One connection. */
interface Attempt {
  controller: AbortController;
  /** Its first frame has come. */
  isOpen: boolean;
  ended: Promise<End>;
}

/**
 * A feed with a connection of its own. It reconnects from the last event that it has received, so that each event
 * arrives once and in order.
 */
export class Connection implements Feed {
  cursor: EventId | undefined;
  readonly #api: Api;
  readonly #options: FeedOptions;
  readonly #listener: FeedListener;
  readonly #backoff: Backoff;
  readonly #closed = new AbortController();
  #current: Attempt;
  #successor: Attempt | undefined;
  #refusals = 0;
  #foreign = 0;
  /** The page has lost the network, as the browser says, and nothing has arrived since. */
  #isOffline = false;
  #triedAt = -Infinity;
  /** When a person looked last: by the clock, which goes on while the machine sleeps. */
  #lookedAt = Date.now();
  /** Ends the wait for the next connection, if it may be ended. */
  #hurried: AbortController | undefined;

  constructor(api: Api, options: FeedOptions, listener: FeedListener) {
    this.#api = api;
    this.#options = options;
    this.#listener = listener;
    this.#backoff = new Backoff(options.maxWaitMs);
    this.cursor = options.cursor;
    this.#current = this.#open();
    if (typeof document !== "undefined") this.#watchPage();
    void this.#run();
  }

  close(): void {
    this.#closed.abort();
    this.#current.controller.abort();
    this.#successor?.controller.abort();
  }

  hurry(): void {
    this.#hurried?.abort();
  }

  /** A person looks at a page of this browser. After a while in which nobody did, the connection is tried. */
  look(): void {
    const now = Date.now();
    if (now - this.#lookedAt > AWAY_MS) this.#try();
    this.#lookedAt = now;
  }

  /** A connection may be dead for a while before its silence shows that: the browser knows earlier when to look. */
  #watchPage(): void {
    const { signal } = this.#closed;
    const isVisible = () => document.visibilityState === "visible";
    const timer = setInterval(() => {
      if (isVisible()) this.look();
    }, LOOK_MS);
    signal.addEventListener("abort", () => clearInterval(timer));
    const onShow = () => {
      if (!isVisible()) return;
      this.look();
      this.hurry();
    };
    document.addEventListener("visibilitychange", onShow, { signal });
    const onOnline = () => {
      this.#try();
      if (isVisible()) this.hurry();
    };
    addEventListener("online", onOnline, { signal });
    const onOffline = () => {
      if (!this.#current.isOpen || this.#isOffline) return;
      this.#isOffline = true;
      this.#listener.onStatus("waiting", new TidingsError("the browser has no network", { code: "unreachable" }));
    };
    addEventListener("offline", onOffline, { signal });
  }

  /** Opens another connection beside one that may be dead, and that goes on until the other one is open. */
  #try(): void {
    if (!this.#current.isOpen || this.#successor !== undefined) return;
    this.#triedAt = performance.now();
    this.#openSuccessor();
  }

  async #run(): Promise<void> {
    while (!this.#closed.signal.aborted) {
      const attempt = this.#current;
      const end = await attempt.ended;
      // What still asks for its next token stops.
      attempt.controller.abort();
      if (this.#closed.signal.aborted) return;
      // Another connection has taken over.
      if (attempt !== this.#current) continue;
      this.#successor?.controller.abort();
      this.#successor = undefined;
      this.#isOffline = false;
      const { reason = "the connection was closed", reconnect_after_ms: retryAfterMs } = end.bye ?? {};
      const error = this.#counted(end.error ?? new TidingsError(reason, { code: "ended", retryAfterMs }));
      const next = await this.#planAfter(end, error);
      if (this.#closed.signal.aborted) return;
      if (next === undefined) return this.#listener.onStatus("failed", error);
      this.#listener.onStatus("waiting", next.error ?? error);
      await this.#waitForRetry(next.ms, next.canHurry);
      if (this.#closed.signal.aborted) return;
      this.#current = this.#open();
    }
  }

  /** Counts replies that are not from Tidings, and says after many what to check. */
  #counted(error: TidingsError): TidingsError {
    const { code, status, retryAfterMs, message } = error;
    const isForeign = code === "unexpected_response" && status !== undefined && status < 500 && status !== 408;
    this.#foreign = isForeign ? this.#foreign + 1 : 0;
    if (this.#foreign < MANY_FOREIGN) return error;
    const advice = "check the url, and whether a proxy passes its routes on to the server";
    return new TidingsError(`${message}, ${this.#foreign} times in a row: ${advice}`, { code, status, retryAfterMs, cause: error });
  }

  /** When to connect again; `undefined` if it is of no use. */
  async #planAfter(end: End, error: TidingsError): Promise<Plan | undefined> {
    const { bye, token, openedAt } = end;
    const isStable = openedAt !== undefined && performance.now() - openedAt >= STABLE_MS;
    if (isStable) this.#backoff.reset();
    // The server has accepted the token.
    if (openedAt !== undefined) this.#refusals = 0;
    const isRefused = (error.status === 401 && error.code !== "token_unavailable") || bye?.code === EXPIRED || bye?.code === REVOKED;
    // The browser sends a cookie that the application may have renewed.
    if (bye?.code === EXPIRED && !this.#api.tokens.canRenew) return { ms: this.#backoff.next(), canHurry: false };
    if (isRefused) {
      this.#refusals += 1;
      this.#api.tokens.refuse(token);
      if (!this.#api.tokens.canRenew || this.#refusals >= MAX_REFUSALS) return undefined;
      try {
        const isNew = (await this.#api.tokens.current()) !== token;
        return { ms: isNew && this.#refusals === 1 ? 0 : this.#backoff.next(), canHurry: false };
      } catch (thrown) {
        // The next connection asks again. That the application has no token is no refusal.
        return { ms: this.#backoff.next(), canHurry: true, error: asTidingsError(thrown) };
      }
    }
    if (bye !== undefined) {
      if (bye.code < 4100) return undefined;
      const hint = bye.reconnect_after_ms;
      // The server has spread these waits. Another one soon afterwards gets a longer wait.
      const isAtOnce = bye.code >= 4200 && this.#backoff.isFresh;
      const later = this.#backoff.next(hint);
      return { ms: isAtOnce ? hinted(hint) : later, canHurry: false };
    }
    if (!error.isRetryable) return undefined;
    const hint = error.retryAfterMs;
    return { ms: this.#backoff.next(hint), canHurry: hint === undefined };
  }

  /** Waits, or until somebody is in a hurry. */
  async #waitForRetry(ms: number, canHurry: boolean): Promise<void> {
    const hurried = new AbortController();
    const { signal } = hurried;
    this.#closed.signal.addEventListener("abort", () => hurried.abort(), { signal });
    if (canHurry) this.#hurried = hurried;
    if (!this.#closed.signal.aborted) await wait(ms, signal);
    hurried.abort();
    this.#hurried = undefined;
  }

  #open(): Attempt {
    const controller = new AbortController();
    const attempt: Attempt = { controller, isOpen: false, ended: Promise.resolve({ token: undefined }) };
    // It begins after `attempt` is known to the caller.
    attempt.ended = Promise.resolve().then(() => this.#receive(attempt));
    return attempt;
  }

  async #receive(attempt: Attempt): Promise<End> {
    const { signal } = attempt.controller;
    const end: End = { token: undefined };
    let silenceMs = OPENING_MS;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const onActivity = () => {
      clearTimeout(timer);
      timer = setTimeout(() => attempt.controller.abort(new DOMException("silence", "TimeoutError")), silenceMs);
    };
    try {
      end.token = await this.#api.tokens.current();
      if (signal.aborted) return end;
      onActivity();
      const receive = this.#options.transport === "websocket" ? receiveFrames : receiveEvents;
      const closed = await receive(this.#api, {
        cursor: this.cursor,
        since: this.#options.since,
        token: end.token,
        signal,
        onActivity: () => {
          onActivity();
          // The network is there after all.
          const isThere = this.#isOffline && attempt === this.#current;
          if (isThere && performance.now() - this.#triedAt >= TRY_MS) this.#try();
        },
        onRetry: (ms) => {
          this.#backoff.baseMs = Math.max(ms, 100);
        },
        onFrame: (frame) => {
          if (signal.aborted) return;
          if (frame.event === "hello") {
            end.openedAt = performance.now();
            attempt.isOpen = true;
            const { ping_interval_ms: pingMs } = JSON.parse(frame.text) as Hello;
            silenceMs = silenceOf(pingMs);
            onActivity();
            this.#takeOver(attempt);
          }
          if (frame.event === "bye") end.bye = JSON.parse(frame.text) as Bye;
          if (attempt === this.#current) this.#take(frame, end.token);
        },
      });
      if (closed !== undefined) end.bye ??= byeOf(closed);
    } catch (thrown) {
      end.error = asTidingsError(thrown);
    } finally {
      clearTimeout(timer);
      attempt.isOpen = false;
    }
    return end;
  }

  /** A connection that was opened beside another one replaces it. */
  #takeOver(attempt: Attempt): void {
    if (attempt !== this.#successor) return;
    this.#successor = undefined;
    const before = this.#current;
    this.#current = attempt;
    this.#refusals = 0;
    this.#isOffline = false;
    before.controller.abort();
  }

  #take(frame: Frame, token: string | undefined): void {
    if (frame.event === "expiring") void this.#replace(token);
    if (["expiring", "bye", "ping"].includes(frame.event)) return;
    handOver(this, frame, () => {
      if (frame.event === "hello") this.#listener.onStatus("live");
      this.#listener.onFrame(frame);
    });
  }

  /** Opens a connection with a new token beside the one whose token expires. While that is open, asks until there is one. */
  async #replace(token: string | undefined): Promise<void> {
    if (!this.#api.tokens.canRenew) return;
    const { signal } = this.#current.controller;
    const backoff = new Backoff(this.#options.maxWaitMs);
    let renewed: string | undefined;
    while (renewed === undefined && !signal.aborted) {
      renewed = await this.#api.tokens.renew(token).catch(() => undefined);
      if (renewed === undefined) await wait(backoff.next(), signal);
    }
    // With the same token, the other connection would expire at the same time.
    if (renewed !== token && !signal.aborted && this.#successor === undefined) this.#openSuccessor();
  }

  /** Opens a connection that takes over once it is open. If it fails, the present one goes on. */
  #openSuccessor(): void {
    const successor = this.#open();
    this.#successor = successor;
    void successor.ended.then(() => {
      if (this.#successor === successor) this.#successor = undefined;
    });
  }
}

/** The token has expired. */
const EXPIRED = 4003;
/** The API key was revoked. */
const REVOKED = 4004;

/** A close of a WebSocket by the server, whose `bye` may be missing. */
function byeOf({ code, reason }: Closed): Bye | undefined {
  const isOurs = code >= 4000 && code < 4300;
  return isOurs ? { code, reason, reconnect_after_ms: 0 } : undefined;
}
