import type { Api } from "./api.js";
import { Connection, type Feed, type FeedOptions, type Status } from "./connection.js";
import { reportUncaught, type TidingsError } from "./error.js";
import { expect, expectHandlers, expectOptions } from "./expect.js";
import type { EventId } from "./ids.js";
import { canShare, SharedFeed } from "./shared.js";
import { type Change, type Frame, type Gap, type Hello, helloOf, type Notification, notificationOf } from "./wire.js";

/** Where a stream begins, and what it calls. */
export interface StreamOptions<Payload = unknown> {
  /** The stream gives what comes after this event. It takes precedence over `since`. */
  cursor?: EventId | undefined;
  /**
   * `now` (default): only new notifications; `start`: all that are kept; `undelivered`: those that were not sent to
   * any connection of the user; or a time in RFC 3339.
   */
  since?: "now" | "start" | "undelivered" | (string & {});
  /** Called with each notification, once and in order. The cursor moves when it returns; a promise is not awaited. */
  onNotification?(notification: Notification<Payload>): void;
  /** Called where notifications are missing. The stream continues after `gap.to`. */
  onGap?(gap: Gap): void;
  /** Called when the inbox was changed, on any screen. What changes while there is no connection is not repeated. */
  onChange?(change: Change): void;
  /** Called with the first document of each connection. */
  onHello?(hello: Hello): void;
  /** Called when the backlog is over, on each connection. */
  onCaughtUp?(): void;
  /** Called with `connecting` first, and when the status changes. `error` is why the stream waits or has failed. */
  onStatus?(status: Status, error?: TidingsError): void;
}

/** A time in RFC 3339. */
const TIME = /^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)$/;

/** Whether a stream can begin there. The server checks more of a time. */
function isStart(since: unknown): boolean {
  if (typeof since !== "string") return false;
  if (["now", "start", "undelivered"].includes(since)) return true;
  // JavaScript knows no leap seconds.
  const known = since.toUpperCase().replace(" ", "T").replace(/:60(?=[.Z+-])/, ":59");
  return TIME.test(since) && !Number.isNaN(Date.parse(known));
}

/** How streams of a client connect. */
export type ConnectionOptions = Omit<FeedOptions, "cursor" | "since"> & { share: boolean };

/**
 * A user's notifications as they happen. The stream reconnects by itself, and gives each notification once and in
 * order until it is closed. An error that a function of the application throws is reported as an uncaught one, and
 * the stream continues.
 */
export class Stream<Payload = unknown> {
  readonly #api: Api;
  readonly #connection: ConnectionOptions;
  readonly #options: StreamOptions<Payload>;
  readonly #closed = new AbortController();
  #feed: Feed;
  #status: Status = "connecting";

  /** Use {@link Tidings.stream}. */
  constructor(api: Api, connection: ConnectionOptions, options: StreamOptions<Payload>) {
    const handlers = ["onNotification", "onGap", "onChange", "onHello", "onCaughtUp", "onStatus"] as const;
    expectOptions(options, "cursor", "since", ...handlers);
    expectHandlers(options, ...handlers);
    const { cursor, since } = options;
    // One that is no id, or of another log, begins with a gap: an application may have kept it for years.
    expect("cursor", cursor === undefined || (typeof cursor === "string" && cursor !== ""), "the id of an event", cursor);
    expect("since", since === undefined || isStart(since), "now, start, undelivered or a time in RFC 3339", since);
    this.#api = api;
    this.#connection = connection;
    this.#options = options;
    this.#feed = this.#open(options.cursor);
    // The caller has the stream by then.
    queueMicrotask(() => {
      if (this.#status === "connecting") this.#call(() => options.onStatus?.("connecting"));
    });
    if (typeof document !== "undefined") this.#followPage();
  }

  /** What the stream does at this moment. */
  get status(): Status {
    return this.#status;
  }

  /** The last event that the stream gave, or where it begins; `undefined` before the first connection. */
  get cursor(): EventId | undefined {
    return this.#feed.cursor;
  }

  /**
   * Connects at once if the stream is `waiting`, unless the server has asked to wait (then the error has `retryAfterMs`), has
   * refused the token, or the browser has no network. Does nothing otherwise.
   */
  retry(): void {
    this.#feed.hurry();
  }

  /** Ends the stream. Nothing is called any more. */
  close(): void {
    if (this.#closed.signal.aborted) return;
    this.#setStatus("closed");
    this.#closed.abort();
    this.#feed.close();
  }

  #open(cursor: EventId | undefined): Feed {
    const { share, ...connection } = this.#connection;
    const { since = "now" } = this.#options;
    // Where a stream begins without a cursor is known to the server alone, so it cannot be compared with other tabs.
    const isComparable = cursor !== undefined || since === "now";
    const FeedClass = share && isComparable && canShare() ? SharedFeed : Connection;
    return new FeedClass(
      this.#api,
      { ...connection, cursor, since: cursor === undefined ? since : undefined },
      {
        onFrame: (frame) => this.#take(frame),
        onStatus: (status, error) => this.#setStatus(status, error),
      },
    );
  }

  /**
   * A page that a browser freezes, or keeps for the way back, must have no connection and no lock. While it is frozen, it
   * would still reply to other tabs, although it receives nothing.
   */
  #followPage(): void {
    const { signal } = this.#closed;
    let isAway = false;
    const leave = () => {
      isAway = true;
      this.#feed.close();
    };
    const comeBack = () => {
      if (!isAway || this.#status === "failed") return;
      isAway = false;
      this.#feed = this.#open(this.#feed.cursor ?? this.#options.cursor);
      this.#setStatus("waiting");
    };
    addEventListener("pagehide", leave, { signal });
    addEventListener("pageshow", comeBack, { signal });
    document.addEventListener("freeze", leave, { signal });
    document.addEventListener("resume", comeBack, { signal });
  }

  #setStatus(status: Status, error?: TidingsError): void {
    if (this.#closed.signal.aborted) return;
    if (status === this.#status && error === undefined) return;
    this.#status = status;
    this.#call(() => this.#options.onStatus?.(status, error));
  }

  #take({ event, text }: Frame): void {
    const { onNotification, onGap, onChange, onHello, onCaughtUp } = this.#options;
    switch (event) {
      case "notification":
        if (onNotification) this.#call(() => onNotification(notificationOf(text) as Notification<Payload>));
        return;
      case "gap":
        if (onGap) this.#call(() => onGap(JSON.parse(text) as Gap));
        return;
      case "changed":
        if (onChange) this.#call(() => onChange(JSON.parse(text) as Change));
        return;
      case "hello":
        if (onHello) this.#call(() => onHello(helloOf(text)));
        return;
      case "caught_up":
        if (onCaughtUp) this.#call(onCaughtUp);
    }
  }

  #call(handler: () => void): void {
    if (this.#closed.signal.aborted) return;
    try {
      handler();
    } catch (error) {
      reportUncaught(error);
    }
  }
}
