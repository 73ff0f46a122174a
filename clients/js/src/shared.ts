import type { Api } from "./api.js";
import { Connection, type Feed, type FeedListener, type FeedOptions, handOver, type Status } from "./connection.js";
import { type ErrorDetails, TidingsError } from "./error.js";
import { compareIds, isUpTo, ORIGIN, type EventId } from "./ids.js";
import { Backoff, wait } from "./wait.js";
import { type CaughtUp, type Frame, type Gap, type Hello, helloOf } from "./wire.js";

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
  /** To the leading tab: I am here. The reply is `state`. `isUrgent`: a person has begun to look at me, or the network is back. */
  | { kind: "join"; from: string; isVisible: boolean; isUrgent: boolean }
  /** To all tabs: I lead from now on. */
  | { kind: "lead"; term: string }
  /** To the tab `to`: what you get from now on comes after `cursor`. */
  | ({ kind: "state"; to: string; term: string; cursor: EventId | undefined } & Progress)
  /** To all tabs: what the connection has sent. */
  | { kind: "frame"; term: string; frame: Frame }
  | { kind: "status"; term: string; status: Status; error: SentError | undefined };

/** How far a connection is. */
interface Progress {
  status: Status;
  error: SentError | undefined;
  /** The text of its hello, while it is live. */
  hello: string | undefined;
  isCaughtUp: boolean;
}

const CONNECTING: Progress = { status: "connecting", error: undefined, hello: undefined, isCaughtUp: false };

/** How far a connection is after another status. */
function afterStatus(progress: Progress, status: Status, error: SentError | undefined): Progress {
  return status === "live" ? { ...progress, status, error } : { ...CONNECTING, status, error };
}

/** How far a connection is after another frame. */
function afterFrame(progress: Progress, { event, text }: Frame): Progress {
  if (event === "hello") return { ...progress, hello: text, isCaughtUp: false };
  return event === "caught_up" ? { ...progress, isCaughtUp: true } : progress;
}

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
  /** Who has said last that it leads. One that was replaced while it was frozen may still reply. */
  #latestTerm: string | undefined;
  #leading: Leading | undefined;
  /** Fetches what this tab has missed. */
  #catchUp: CatchUp | undefined;
  #replyTimer: ReturnType<typeof setTimeout> | undefined;
  /** A cursor of the leading tab that is not of the present log. */
  #gone: EventId | undefined;
  /** How far the connection of the leading tab is. */
  #followed = CONNECTING;
  /** This tab gets no locks, so it has a connection of its own. */
  #isAlone = false;
  /** Ends the wait of a tab that has stepped down, because its application had no token. */
  #steppedDown: AbortController | undefined;
  readonly #backoff: Backoff;

  constructor(api: Api, options: FeedOptions, listener: FeedListener) {
    this.#api = api;
    this.#options = options;
    this.#listener = listener;
    this.#backoff = new Backoff(options.maxWaitMs);
    this.cursor = options.cursor;
    this.#name = `tidings ${api.base}`;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }: MessageEvent<Message>) => this.#hear(data);
    void this.#compete();
    this.#join();
    const { signal } = this.#closed;
    const ping = setInterval(() => this.#checkLeader(false), PING_MS);
    signal.addEventListener("abort", () => clearInterval(ping));
    document.addEventListener("visibilitychange", () => this.#checkLeader(true), { signal });
    addEventListener("online", () => this.#checkLeader(true), { signal });
  }

  hurry(): void {
    this.#steppedDown?.abort();
    this.#leading?.hurry();
    this.#catchUp?.hurry();
    this.#join(true);
  }

  close(): void {
    this.#closed.abort();
    clearTimeout(this.#replyTimer);
    this.#steppedDown?.abort();
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

  /** Leads until the connection fails for good or lacks a token, the lock is taken away, or the feed is closed. */
  async #lead(): Promise<void> {
    if (this.#closed.signal.aborted || this.#leading !== undefined || this.#steppedDown !== undefined) return;
    clearTimeout(this.#replyTimer);
    this.#endCatchUp();
    const term = crypto.randomUUID();
    this.#term = term;
    await new Promise<void>((resolve) => {
      const leading = new Leading(term, this.#api, { ...this.#options, cursor: this.cursor }, resolve, {
        onFrame: (frame) => {
          this.#say({ kind: "frame", term, frame });
          this.#takeOwn(frame);
        },
        onStatus: (status, error) => {
          const lacksToken = error?.code === "token_unavailable";
          // The other tabs have tokens of their own.
          this.#say({ kind: "status", term, status, error: lacksToken ? undefined : sent(error) });
          // Another tab, which may have a better token, gets the lock.
          if (status === "failed") this.close();
          else if (lacksToken && !this.#isAlone) void this.#stepDown();
          if (status === "live") this.#backoff.reset();
          this.#listener.onStatus(status, error);
        },
      });
      this.#leading = leading;
      this.#say({ kind: "lead", term });
    });
    this.#leading = undefined;
  }

  /**
   * Lets a tab lead that has a token. This one competes again after a wait, and has no lock meanwhile: of tabs without
   * tokens, each asks its application at its own pace.
   */
  async #stepDown(): Promise<void> {
    const steppedDown = new AbortController();
    this.#steppedDown = steppedDown;
    this.#leading?.end();
    await wait(this.#backoff.next(), steppedDown.signal);
    this.#steppedDown = undefined;
    void this.#compete();
  }

  #say(message: Message): void {
    if (!this.#closed.signal.aborted && !this.#isAlone) this.#channel.postMessage(message);
  }

  /** Asks the leading tab where it is. */
  #join(isUrgent = false): void {
    if (this.#leading !== undefined || this.#isAlone || this.#closed.signal.aborted) return;
    this.#say({ kind: "join", from: this.#tab, isVisible: document.visibilityState === "visible", isUrgent });
    clearTimeout(this.#replyTimer);
    this.#replyTimer = setTimeout(() => {
      if (document.visibilityState === "visible" && this.#steppedDown === undefined) void this.#compete(true);
    }, REPLY_MS);
  }

  #checkLeader(isUrgent: boolean): void {
    if (document.visibilityState !== "visible") return;
    if (isUrgent) this.#steppedDown?.abort();
    this.#join(isUrgent);
  }

  #hear(message: Message): void {
    if (this.#isAlone) return;
    switch (message.kind) {
      case "join":
        this.#leading?.welcome(message, (state) => this.#say(state));
        return;
      case "lead":
        this.#latestTerm = message.term;
        this.#join();
        return;
      case "state":
        if (message.to === this.#tab && this.#leading === undefined) this.#follow(message);
        return;
    }
    if (message.term !== this.#term || this.#leading !== undefined) return;
    if (message.kind === "status") this.#hearStatus(message.status, message.error);
    else this.#hearFrame(message.frame);
  }

  #hearStatus(status: Status, error: SentError | undefined): void {
    this.#followed = afterStatus(this.#followed, status, error);
    // Without a cursor this tab is live once it has one.
    if (this.#catchUp === undefined && (status !== "live" || this.cursor !== undefined)) this.#reportStatus();
  }

  #hearFrame(frame: Frame): void {
    this.#followed = afterFrame(this.#followed, frame);
    if (this.#catchUp !== undefined) return this.#catchUp.keep(frame);
    if (this.cursor === undefined) {
      // What came before was not new when this tab began.
      if (frame.event === "caught_up") this.#begin((JSON.parse(frame.text) as CaughtUp).cursor);
      return;
    }
    if (frame.event === "hello") {
      const { cursor } = JSON.parse(frame.text) as Hello;
      // The leading tab had no cursor, and began later than this one.
      if (!isUpTo(cursor, this.cursor)) this.#fetchMissed(this.cursor, cursor);
      else this.#take(helloAt(this.cursor, frame.text));
    } else this.#take(frame);
  }

  /** Everything after this state comes by the channel. What is before it, and was missed, is fetched. */
  #follow({ term, cursor, status, error, hello, isCaughtUp }: Message & { kind: "state" }): void {
    if (this.#latestTerm !== undefined && term !== this.#latestTerm) return;
    clearTimeout(this.#replyTimer);
    const isNew = this.#term !== term;
    this.#term = term;
    this.#followed = { status, error, hello, isCaughtUp };
    if (!isNew && this.#catchUp !== undefined) return;
    this.#endCatchUp();
    const own = this.cursor;
    if (own === undefined) {
      if (isCaughtUp && cursor !== undefined) this.#begin(cursor);
      else if (isNew && status !== "live") this.#reportStatus();
    } else if (cursor !== undefined && cursor !== this.#gone && !isUpTo(cursor, own)) this.#fetchMissed(own, cursor);
    else if (isNew) this.#begin(own);
  }

  /** Follows from this cursor on: the leading tab is there or behind. `kept` is what it has sent meanwhile. */
  #begin(cursor: EventId, kept: readonly Frame[] = []): void {
    this.cursor = cursor;
    this.#reportStatus();
    const { hello, isCaughtUp } = this.#followed;
    if (hello !== undefined) this.#take(helloAt(cursor, hello));
    for (const frame of kept) if (!["hello", "caught_up"].includes(frame.event)) this.#take(frame);
    if (isCaughtUp) this.#take({ event: "caught_up", text: JSON.stringify({ cursor: this.cursor } satisfies CaughtUp) });
  }

  /** To this tab the failure of another one is a wait: the next one that leads may have a better token. */
  #reportStatus(): void {
    const { status, error } = this.#followed;
    // This tab has said that it has no token, and what others without one try does not change that. Behind one that is
    // live, it waits for the lock.
    if (status === "live") this.#steppedDown?.abort();
    else if (this.#steppedDown !== undefined) return;
    this.#listener.onStatus(status === "failed" ? "waiting" : status, received(error));
  }

  #fetchMissed(from: EventId, to: EventId): void {
    const catchUp = new CatchUp(this.#api, { ...this.#options, cursor: from }, {
      onFrame: (frame) => {
        if (frame.event === "notification" || frame.event === "gap") this.#takeOwn(frame);
        const cursor = this.cursor ?? from;
        const isThere = frame.event !== "hello" && isUpTo(to, cursor);
        // The leading tab has a cursor that is not of the present log, and will hear so when it connects again.
        if (!isThere && frame.event === "caught_up") this.#gone = to;
        if (isThere || frame.event === "caught_up") this.#finishCatchUp(catchUp, cursor);
      },
      onStatus: (status, error) => {
        // What comes after what was missed would leave a hole.
        if (status === "failed") this.close();
        if (status !== "live") this.#listener.onStatus(status, error);
      },
    });
    this.#catchUp = catchUp;
  }

  #finishCatchUp(catchUp: CatchUp, cursor: EventId): void {
    if (this.#catchUp !== catchUp) return;
    this.#endCatchUp();
    if (catchUp.isComplete) this.#begin(cursor, catchUp.kept);
    else {
      this.#term = undefined;
      this.#join();
    }
  }

  #endCatchUp(): void {
    this.#catchUp?.close();
    this.#catchUp = undefined;
  }

  /** Hands over a frame of the leading tab, unless this tab has had it. */
  #take(frame: Frame): void {
    if (frame.event === "gap" && this.cursor !== undefined) {
      const { to, reason } = JSON.parse(frame.text) as Gap;
      const order = compareIds(to, this.cursor);
      // This tab has had it, or what follows. A gap that leads back, or to a log without events, is for all.
      const leadsBack = to === ORIGIN || reason === "ahead";
      if (order === 0 || (order !== undefined && order < 0 && !leadsBack)) return;
    }
    this.#takeOwn(frame);
  }

  /** Hands over a frame of a connection of this tab, unless it has had it. */
  #takeOwn(frame: Frame): void {
    handOver(this, frame, () => this.#listener.onFrame(frame));
  }
}

/** The connection of the leading tab, and what it says to tabs that join. */
class Leading {
  readonly #term: string;
  readonly #connection: Connection;
  readonly #release: () => void;
  #progress = CONNECTING;

  constructor(term: string, api: Api, options: FeedOptions, release: () => void, listener: FeedListener) {
    this.#term = term;
    this.#release = release;
    this.#connection = new Connection(api, options, {
      onFrame: (frame) => {
        this.#progress = afterFrame(this.#progress, frame);
        listener.onFrame(frame);
      },
      onStatus: (status, error) => {
        this.#progress = afterStatus(this.#progress, status, sent(error));
        listener.onStatus(status, error);
      },
    });
  }

  welcome({ from, isVisible, isUrgent }: Message & { kind: "join" }, say: (state: Message) => void): void {
    if (isVisible) this.#connection.look();
    if (isUrgent) this.hurry();
    say({ kind: "state", to: from, term: this.#term, cursor: this.#connection.cursor, ...this.#progress });
  }

  hurry(): void {
    this.#connection.hurry();
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

  hurry(): void {
    this.#connection.hurry();
  }

  close(): void {
    this.#connection.close();
  }
}

/** The hello of the leading tab for one that is at this cursor. */
function helloAt(cursor: EventId, text: string): Frame {
  return { event: "hello", text: JSON.stringify({ ...helloOf(text), cursor }) };
}

function sent(error: TidingsError | undefined): SentError | undefined {
  if (error === undefined) return undefined;
  const { message, code, status, field, requestId, retryAfterMs } = error;
  return { message, code, status, field, requestId, retryAfterMs };
}

function received(error: SentError | undefined): TidingsError | undefined {
  return error && new TidingsError(error.message, error);
}
