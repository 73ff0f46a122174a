import type { Api } from "./api.js";
import { Connection, type Feed, type FeedListener, type FeedOptions, type Status } from "./connection.js";
import { type ErrorDetails, TidingsError } from "./error.js";
import { compareIds, isUpTo, type EventId } from "./ids.js";
import type { Frame, Gap, Hello } from "./wire.js";

/** How long the leading tab may take to reply. After it, it is taken for frozen, and another tab leads. */
const REPLY_MS = 4000;

/** How often a visible tab looks whether the leading tab is alive. */
const PING_MS = 20_000;

/** The most frames that a tab keeps while it fetches what it has missed. */
const MAX_KEPT = 1000;

/** An error that can be sent to another tab. */
type SentError = ErrorDetails & { message: string };

/** What tabs say to each other. `term` names the time during which one tab leads. */
type Message =
  /** To the leading tab: I am here. The reply is `state`. */
  | { kind: "join"; from: string }
  /** To all tabs: I lead from now on. */
  | { kind: "lead"; term: string }
  /** To the tab `to`: what you get from now on comes after `cursor`. */
  | { kind: "state"; to: string; term: string; status: Status; error?: SentError; cursor?: EventId; hello?: string }
  /** To all tabs: what the connection has sent. */
  | { kind: "frame"; term: string; frame: Frame }
  | { kind: "status"; term: string; status: Status; error?: SentError };

/** Whether this platform lets tabs share a connection: a page, in a secure context. It may still refuse locks. */
export function canShare(): boolean {
  if (typeof document === "undefined" || typeof BroadcastChannel !== "function" || navigator.locks === undefined) return false;
  try {
    new BroadcastChannel("tidings").close();
    return true;
  } catch {
    // Where a person has blocked what sites keep, a browser may refuse channels.
    return false;
  }
}

/**
 * One connection for all tabs of an origin. The tab that holds a lock leads: it has the connection, and broadcasts each
 * frame. When it ends, another tab gets the lock and continues from its own cursor. Every tab compares what it gets
 * with its own cursor, fetches what is missing, and skips what it has had.
 */
export class SharedFeed implements Feed {
  cursor: EventId | undefined;
  readonly #api: Api;
  readonly #options: FeedOptions;
  readonly #listener: FeedListener;
  readonly #name: string;
  readonly #channel: BroadcastChannel;
  readonly #tab = crypto.randomUUID();
  readonly #closed = new AbortController();
  /** Whom this tab follows, once it has the state of that tab. */
  #term: string | undefined;
  #leading: Leading | undefined;
  /** Fetches what this tab has missed. */
  #catchUp: CatchUp | undefined;
  #replyTimer: ReturnType<typeof setTimeout> | undefined;
  /** What the leading tab said last of its connection. */
  #followed: [status: Status, error: TidingsError | undefined] = ["connecting", undefined];
  /** This tab has led, and its connection failed for good. */
  #hasFailed = false;
  /** This tab gets no locks, so it has a connection of its own. */
  #isAlone = false;

  constructor(api: Api, options: FeedOptions, listener: FeedListener) {
    this.#api = api;
    this.#options = options;
    this.#listener = listener;
    this.cursor = options.cursor;
    this.#name = `tidings ${api.base}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }: MessageEvent<Message>) => this.#hear(data);
    void this.#compete();
    this.#join();
    const { signal } = this.#closed;
    const ping = setInterval(() => this.#checkLeader(), PING_MS);
    signal.addEventListener("abort", () => clearInterval(ping));
    document.addEventListener("visibilitychange", () => this.#checkLeader(), { signal });
  }

  close(): void {
    this.#closed.abort();
    clearTimeout(this.#replyTimer);
    this.#endCatchUp();
    this.#leading?.end();
    this.#channel.close();
  }

  /** Waits for the lock, and leads while it has it. */
  async #compete(steal = false): Promise<void> {
    const { signal } = this.#closed;
    const options: LockOptions = steal ? { steal } : { signal };
    try {
      await navigator.locks.request(this.#name, options, () => this.#lead());
    } catch (error) {
      this.#leading?.end();
      this.#leading = undefined;
      if (signal.aborted) return;
      this.#term = undefined;
      if (error instanceof DOMException && error.name === "AbortError") {
        // Another tab has taken the lock.
        void this.#compete();
        this.#join();
      } else {
        // A frame in a sandbox, and a page whose data a person has blocked, get no locks.
        this.#isAlone = true;
        void this.#lead();
      }
    }
  }

  /** Leads until the connection fails for good, the lock is taken away, or the feed is closed. */
  async #lead(): Promise<void> {
    if (this.#closed.signal.aborted || this.#leading !== undefined || this.#hasFailed) return;
    clearTimeout(this.#replyTimer);
    this.#endCatchUp();
    const term = crypto.randomUUID();
    this.#term = term;
    await new Promise<void>((resolve) => {
      const leading = new Leading(term, this.#api, { ...this.#options, cursor: this.cursor }, resolve, {
        onFrame: (frame) => {
          this.#say({ kind: "frame", term, frame });
          this.#take(frame);
        },
        onStatus: (status, error) => {
          this.#say({ kind: "status", term, status, ...sent(error) });
          // Other tabs may have a better token: each tries once.
          if (status === "failed") {
            this.#hasFailed = true;
            leading.end();
          }
          this.#listener.onStatus(status, error);
        },
      });
      this.#leading = leading;
      this.#say({ kind: "lead", term });
    });
    this.#leading = undefined;
  }

  #say(message: Message): void {
    if (!this.#closed.signal.aborted && !this.#isAlone) this.#channel.postMessage(message);
  }

  /** Asks the leading tab where it is. */
  #join(): void {
    if (this.#leading !== undefined || this.#isAlone || this.#closed.signal.aborted) return;
    this.#say({ kind: "join", from: this.#tab });
    clearTimeout(this.#replyTimer);
    this.#replyTimer = setTimeout(() => {
      if (document.visibilityState === "visible" && !this.#hasFailed) void this.#compete(true);
    }, REPLY_MS);
  }

  #checkLeader(): void {
    if (document.visibilityState === "visible") this.#join();
  }

  #hear(message: Message): void {
    if (this.#isAlone) return;
    switch (message.kind) {
      case "join":
        this.#leading?.welcome(message.from, (state) => this.#say(state));
        return;
      case "lead":
        if (this.#leading === undefined) this.#join();
        return;
      case "state":
        if (message.to === this.#tab && this.#leading === undefined) this.#follow(message);
        return;
    }
    if (message.term !== this.#term || this.#leading !== undefined) return;
    if (message.kind === "status") {
      this.#followed = [message.status, received(message.error)];
      if (this.#catchUp === undefined) this.#listener.onStatus(...this.#followed);
    } else if (this.#catchUp !== undefined) this.#catchUp.keep(message.frame);
    else this.#hearFrame(message.frame);
  }

  #hearFrame(frame: Frame): void {
    if (frame.event === "hello" && this.cursor !== undefined) {
      const { cursor } = JSON.parse(frame.text) as Hello;
      // The leading tab had no cursor, and began later than this one.
      if (!isUpTo(cursor, this.cursor)) return this.#fetchMissed(this.cursor, cursor, frame.text);
    }
    this.#take(frame);
  }

  /** Everything after this state comes by the channel. What is before it, and was missed, is fetched. */
  #follow({ term, status, error, cursor, hello }: Message & { kind: "state" }): void {
    clearTimeout(this.#replyTimer);
    const isNew = this.#term !== term;
    this.cursor ??= cursor;
    const own = this.cursor;
    const hasMissed = own !== undefined && cursor !== undefined && !isUpTo(cursor, own);
    this.#term = term;
    this.#followed = [status, received(error)];
    if (!isNew && this.#catchUp !== undefined) return;
    this.#endCatchUp();
    if (hasMissed) this.#fetchMissed(own, cursor, hello);
    else if (isNew) {
      this.#listener.onStatus(...this.#followed);
      if (hello !== undefined) this.#take({ event: "hello", text: hello });
    }
  }

  #fetchMissed(from: EventId, to: EventId, hello: string | undefined): void {
    const catchUp = new CatchUp(this.#api, { ...this.#options, cursor: from }, {
      onFrame: (frame) => {
        if (frame.event === "notification" || frame.event === "gap") this.#take(frame);
        const isComplete = this.cursor !== undefined && isUpTo(to, this.cursor);
        if (frame.event !== "hello" && isComplete) this.#finishCatchUp(catchUp, hello);
      },
      onStatus: (status, error) => {
        // What comes after what was missed would leave a hole.
        if (status === "failed") this.close();
        if (status !== "live") this.#listener.onStatus(status, error);
      },
    });
    this.#catchUp = catchUp;
  }

  #finishCatchUp(catchUp: CatchUp, hello: string | undefined): void {
    if (this.#catchUp !== catchUp) return;
    this.#endCatchUp();
    this.#listener.onStatus(...this.#followed);
    if (hello !== undefined) this.#take({ event: "hello", text: hello });
    if (catchUp.isComplete) for (const frame of catchUp.kept) this.#take(frame);
    else {
      this.#term = undefined;
      this.#join();
    }
  }

  #endCatchUp(): void {
    this.#catchUp?.close();
    this.#catchUp = undefined;
  }

  /** Hands over a frame, unless this tab has had it. */
  #take(frame: Frame): void {
    switch (frame.event) {
      case "hello":
        this.cursor ??= (JSON.parse(frame.text) as Hello).cursor;
        break;
      case "notification": {
        const { id } = JSON.parse(frame.text) as { id: EventId };
        if (this.cursor !== undefined && isUpTo(id, this.cursor)) return;
        this.#listener.onFrame(frame);
        this.cursor = id;
        return;
      }
      case "gap": {
        const { to } = JSON.parse(frame.text) as Gap;
        // Of the leading tab: this one may have had what follows.
        const order = this.cursor === undefined ? undefined : compareIds(to, this.cursor);
        if (order !== undefined && order < 0) return;
        this.#listener.onFrame(frame);
        this.cursor = to;
        return;
      }
    }
    this.#listener.onFrame(frame);
  }
}

/** The connection of the leading tab, and what it says to tabs that join. */
class Leading {
  readonly #term: string;
  readonly #connection: Connection;
  readonly #release: () => void;
  #status: Status = "connecting";
  #error: TidingsError | undefined;
  #hello: string | undefined;

  constructor(term: string, api: Api, options: FeedOptions, release: () => void, listener: FeedListener) {
    this.#term = term;
    this.#release = release;
    this.#connection = new Connection(api, options, {
      onFrame: (frame) => {
        if (frame.event === "hello") this.#hello = frame.text;
        listener.onFrame(frame);
      },
      onStatus: (status, error) => {
        this.#status = status;
        this.#error = error;
        listener.onStatus(status, error);
      },
    });
  }

  welcome(to: string, say: (state: Message) => void): void {
    const isLive = this.#status === "live";
    const { cursor } = this.#connection;
    const message: Message = { kind: "state", to, term: this.#term, status: this.#status, ...sent(this.#error) };
    if (cursor !== undefined) message.cursor = cursor;
    if (isLive && this.#hello !== undefined) message.hello = this.#hello;
    say(message);
  }

  end(): void {
    this.#connection.close();
    this.#release();
  }
}

/** A connection that fetches what a tab has missed, and the frames of the leading tab that come meanwhile. */
class CatchUp {
  readonly kept: Frame[] = [];
  isComplete = true;
  readonly #connection: Connection;

  constructor(api: Api, options: FeedOptions, listener: FeedListener) {
    this.#connection = new Connection(api, options, listener);
  }

  keep(frame: Frame): void {
    if (this.kept.length < MAX_KEPT) this.kept.push(frame);
    else this.isComplete = false;
  }

  close(): void {
    this.#connection.close();
  }
}

function sent(error: TidingsError | undefined): { error?: SentError } {
  if (error === undefined) return {};
  const { message, code, status, field, requestId, retryAfterMs } = error;
  return { error: { message, code, status, field, requestId, retryAfterMs } };
}

function received(error: SentError | undefined): TidingsError | undefined {
  return error && new TidingsError(error.message, error);
}
