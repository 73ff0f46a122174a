import type { Status } from "./connection.js";
import { asTidingsError, reportUncaught, TidingsError } from "./error.js";
import { expect, expectHandlers, expectOptions } from "./expect.js";
import { type EventId, expectEventId } from "./ids.js";
import {
  type Action,
  afterAction,
  afterChange,
  afterNotification,
  carriesOut,
  concerns,
  type Contents,
  isOrdered,
  ofPage,
  saysWhat,
  trimmed,
  withNextPage,
} from "./inbox-state.js";
import type { Stream, StreamOptions } from "./stream.js";
import { Backoff, wait } from "./wait.js";
import type { Change, Counts, Gap, Notification, Page, Query } from "./wire.js";

/** What an inbox uses of a client. */
export interface InboxClient {
  list<P>(query?: Query): Promise<Page<P>>;
  stream<P>(options?: StreamOptions<P>): Stream<P>;
  markRead(id: EventId): Promise<Counts>;
  markUnread(id: EventId): Promise<Counts>;
  archive(id: EventId): Promise<Counts>;
  unarchive(id: EventId): Promise<Counts>;
  markAllRead(upTo?: EventId): Promise<Counts>;
  markSeen(upTo?: EventId): Promise<Counts>;
}

/** How an inbox begins, and what it calls. */
export interface InboxOptions<Payload = unknown> {
  /** Notifications of a page, 1 to 1000; default 50. */
  limit?: number;
  /**
   * Called with each new notification, for instance to show it for a moment. `isBacklog`: it was sent while there was no
   * connection, and may be one of many.
   */
  onNotification?(notification: Notification<Payload>, about: { isBacklog: boolean }): void;
  /** Called when the backlog is over, on each connection. */
  onCaughtUp?(): void;
  /** Called where notifications are missing, after a very long absence. The list is loaded again. */
  onGap?(gap: Gap): void;
}

/** An inbox at one moment. It is never changed in place. */
export interface InboxState<Payload = unknown> {
  /** What the stream does. While it is not `live`, the list may be behind. */
  readonly status: Status;
  /** The list was not loaded yet. */
  readonly isLoading: boolean;
  /** What is not archived, newest first, as far as it is loaded. */
  readonly items: readonly Notification<Payload>[];
  /** How many notifications of the whole inbox are unread. */
  readonly unread: number;
  /** How many are unread and came after the last `markSeen`: the number on a bell. */
  readonly unseen: number;
  /** Whether there may be older ones, for `loadMore`. */
  readonly hasMore: boolean;
  /** Why the inbox is not up to date, if it is not. */
  readonly error: TidingsError | undefined;
}

/** The most items that an inbox keeps by itself: `loadMore` adds to them. */
const MAX_ITEMS = 1000;

/** The most notifications of one page. */
const MAX_LIMIT = 1000;

/** The most archived items that are remembered, so that they can be put back without loading the list. */
const MAX_ARCHIVED = 100;

/** How long the stream may take to report an action that the server has carried out. Then the list is loaded again. */
const REPORT_MS = 3000;

/** Listeners are called at most once in so long: of many notifications that arrive together, each would cost as much as the list. */
const CALL_MS = 50;

/** An action of this screen that the stream has not reported yet. */
interface Pending {
  readonly action: Action;
  /** The server has carried it out. */
  isDone: boolean;
  /**
   * There may be no report: the stream has lost it, or given one that does not say what was changed; or the action
   * changed nothing, and what it is about was changed again.
   */
  isUncertain: boolean;
}

/**
 * A user's inbox that stays up to date: its list, its counts, and what a person does with them.
 *
 * The stream is opened first and the list loaded afterwards, so every change is in the list or comes by the stream.
 * Actions show at once, and are undone if the server refuses them: their promise is rejected then.
 */
export class Inbox<Payload = unknown> {
  readonly #client: InboxClient;
  readonly #options: InboxOptions<Payload>;
  readonly #limit: number;
  readonly #stream: Stream<Payload>;
  readonly #closed = new AbortController();
  readonly #listeners = new Set<(state: InboxState<Payload>) => void>();
  #contents: Contents<Payload> | undefined;
  #pending: Pending[] = [];
  /** Requests of actions to which the server has not replied yet. */
  readonly #requests = new Map<Promise<Counts>, Action>();
  /** One for each action that the server has carried out lately. */
  readonly #reportTimers = new Set<ReturnType<typeof setTimeout>>();
  /** What has arrived since a request for a page was sent, for each such request. */
  readonly #recordings = new Set<(Notification<Payload> | Change)[]>();
  readonly #archived = new Map<EventId, Notification<Payload>>();
  #maxItems = MAX_ITEMS;
  #isStale = false;
  #isReloading = false;
  readonly #backoff = new Backoff(30_000);
  /** The wait before the list is requested again. */
  #retryWait: AbortController | undefined;
  /** How often the server has begun a stream. */
  #hellos = 0;
  /** Whether what arrives was sent while there was no connection. */
  #isBacklog = true;
  #loadingMore: Promise<void> | undefined;
  /** Who waits until the list is there, or has failed. */
  readonly #waiting = new Set<() => void>();
  #status: Status = "connecting";
  #streamError: TidingsError | undefined;
  #listError: TidingsError | undefined;
  /** Made when it is asked for; `undefined` after a change. */
  #state: InboxState<Payload> | undefined;
  /** When the listeners were called last. */
  #calledAt = -Infinity;
  /** Whether the listeners will be called once the caller has finished. */
  #isCalling = false;
  /** Calls the listeners when they may be called again. */
  #callTimer: ReturnType<typeof setTimeout> | undefined;

  /** Use {@link Tidings.inbox}. */
  constructor(client: InboxClient, options: InboxOptions<Payload> = {}) {
    const handlers = ["onNotification", "onCaughtUp", "onGap"] as const;
    expectOptions(options, "limit", ...handlers);
    expectHandlers(options, ...handlers);
    const { limit = 50 } = options;
    expect("limit", Number.isInteger(limit) && limit >= 1 && limit <= MAX_LIMIT, "a whole number from 1 to 1000", limit);
    this.#client = client;
    this.#options = options;
    this.#limit = limit;
    this.#stream = client.stream<Payload>({
      onHello: () => {
        // The server is there again.
        this.#hellos += 1;
        this.#backoff.reset();
        this.#retryWait?.abort();
        this.#reloadAll();
      },
      onNotification: (notification) => this.#takeNotification(notification),
      onCaughtUp: () => {
        this.#isBacklog = false;
        this.#options.onCaughtUp?.();
      },
      onChange: (change) => this.#takeChange(change),
      onGap: (gap) => {
        this.#reload();
        this.#options.onGap?.(gap);
      },
      onStatus: (status, error) => this.#takeStatus(status, error),
    });
  }

  /** The inbox at this moment: the same object until something changes. */
  get state(): InboxState<Payload> {
    return (this.#state ??= this.#view());
  }

  /**
   * Calls the function after changes: after the first one at once, for all that follow within 50 milliseconds once.
   * Returns what ends that. It may be handed over without the inbox.
   */
  readonly subscribe = (listener: (state: InboxState<Payload>) => void): (() => void) => {
    expect("listener", typeof listener === "function", "a function", listener);
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  };

  /**
   * Loads the next page of older notifications, after the first one. Does nothing if there is none. Calls at the same time
   * load one page.
   */
  loadMore(): Promise<void> {
    this.#loadingMore ??= this.#loadNextPage().finally(() => {
      this.#loadingMore = undefined;
      this.#trim();
    });
    return this.#loadingMore;
  }

  markRead(id: EventId): Promise<void> {
    return this.#act({ kind: "read", id }, () => this.#client.markRead(id));
  }

  markUnread(id: EventId): Promise<void> {
    return this.#act({ kind: "unread", id }, () => this.#client.markUnread(id));
  }

  /** Takes a notification out of the inbox and its counts. */
  archive(id: EventId): Promise<void> {
    const item = this.#contents?.items.find((item) => item.id === id);
    if (item !== undefined) this.#remember([item]);
    return this.#act({ kind: "archive", id }, () => this.#client.archive(id));
  }

  /** Puts an archived notification back. */
  unarchive(id: EventId): Promise<void> {
    const item = this.#archived.get(id);
    return this.#act({ kind: "unarchive", id, item }, () => this.#client.unarchive(id));
  }

  /** Marks all as read that this screen has heard of, once the list is loaded. Later ones stay unread. */
  async markAllRead(): Promise<void> {
    const { cursor: upTo } = this.#contents ?? (await this.#firstContents());
    await this.#act({ kind: "read-all", upTo }, () => this.#client.markAllRead(upTo));
  }

  /** Marks all as seen that this screen has heard of, once the list is loaded: call it when the list is shown. */
  async markSeen(): Promise<void> {
    const { cursor: upTo } = this.#contents ?? (await this.#firstContents());
    await this.#act({ kind: "seen", upTo }, () => this.#client.markSeen(upTo));
  }

  /**
   * Connects, and loads the list, at once if the inbox waits for the next try, unless the server has asked to wait. Does
   * nothing otherwise.
   */
  retry(): void {
    this.#stream.retry();
    if (this.#listError?.retryAfterMs === undefined) this.#retryWait?.abort();
  }

  /**
   * Ends the stream. The state stays as it is, with the status `closed`. Promises that wait for the list or for a page are
   * rejected with the code `closed`.
   */
  close(): void {
    this.#stream.close();
    this.#state = this.#view();
    this.#closed.abort();
    if (this.#callTimer !== undefined && !this.#isCalling) queueMicrotask(() => this.#callListeners());
    clearTimeout(this.#callTimer);
    this.#retryWait?.abort();
    this.#wake();
    for (const timer of this.#reportTimers) clearTimeout(timer);
  }

  #takeStatus(status: Status, error: TidingsError | undefined): void {
    this.#status = status;
    if (status !== "live") this.#isBacklog = true;
    this.#streamError = status === "live" ? undefined : (error ?? this.#streamError);
    // Without a stream there is still a list.
    if ((status === "waiting" || status === "failed") && this.#contents === undefined) this.#reload();
    this.#wake();
    this.#publish();
  }

  #takeNotification(notification: Notification<Payload>): void {
    for (const recording of this.#recordings) recording.push(notification);
    if (this.#contents !== undefined) this.#apply(afterNotification(this.#contents, notification));
    this.#options.onNotification?.(notification, { isBacklog: this.#isBacklog });
  }

  #takeChange(change: Change): void {
    for (const recording of this.#recordings) recording.push(change);
    this.#pending = this.#pending.filter(({ action }) => !carriesOut(change, action));
    for (const pending of this.#pending) pending.isUncertain ||= concerns(change, pending.action);
    if (!saysWhat(change)) return this.#reloadAll();
    if (this.#contents === undefined) return;
    this.#updateArchived(change);
    if (change.change === "archived") {
      // What was remembered when a person archived it may have changed before the server did so.
      for (const id of change.ids ?? []) this.#archived.delete(id);
      this.#remember(this.#contents.items.filter(({ id }) => change.ids?.includes(id)));
    }
    this.#apply(afterChange(this.#contents, change, now(), (id) => this.#archived.get(id)));
  }

  /** Loads the list again, because it is not known what was changed. */
  #reloadAll(): void {
    this.#archived.clear();
    for (const pending of this.#pending) pending.isUncertain = true;
    this.#reload();
  }

  /** Takes in the new contents, or loads them. */
  #apply(contents: Contents<Payload> | undefined): void {
    if (contents === undefined) return this.#reload();
    this.#contents = contents;
    this.#trim();
    this.#publish();
  }

  /** A page that is under way continues the list where it ends now: until it is there, nothing is cut off. */
  #trim(): void {
    if (this.#contents === undefined || this.#loadingMore !== undefined) return;
    const contents = trimmed(this.#contents, this.#maxItems);
    if (contents === this.#contents) return;
    this.#contents = contents;
    this.#publish();
  }

  #remember(items: readonly Notification<Payload>[]): void {
    // What is shown may be behind.
    if (this.#isReloading) return;
    for (const item of items) this.#archived.set(item.id, item);
    for (const id of this.#archived.keys()) {
      if (this.#archived.size <= MAX_ARCHIVED) break;
      this.#archived.delete(id);
    }
  }

  /** What is archived can still be read and unread, one by one. */
  #updateArchived({ change, ids = [] }: Change): void {
    if (change !== "read" && change !== "unread") return;
    for (const id of ids) {
      const item = this.#archived.get(id);
      if (item !== undefined) this.#archived.set(id, { ...item, read_at: change === "read" ? (item.read_at ?? now()) : null });
    }
  }

  /** Loads the list again, now or after the request that is under way. */
  #reload(): void {
    this.#isStale = true;
    if (!this.#isReloading) void this.#reloadUntilFresh();
  }

  async #reloadUntilFresh(): Promise<void> {
    const { signal } = this.#closed;
    this.#isReloading = true;
    while (this.#isStale && !signal.aborted) {
      this.#isStale = false;
      const done = this.#pending.filter(({ isDone }) => isDone);
      const recording: (Notification<Payload> | Change)[] = [];
      this.#recordings.add(recording);
      const hellos = this.#hellos;
      try {
        const contents = await this.#listAgain();
        if (signal.aborted) return;
        this.#contents = contents;
        // The list has these actions.
        this.#pending = this.#pending.filter((pending) => !done.includes(pending));
        for (const happened of recording) this.#replay(happened);
        this.#listError = undefined;
        this.#backoff.reset();
      } catch (thrown) {
        if (signal.aborted) return;
        const error = asTidingsError(thrown);
        this.#listError = error;
        this.#publish();
        if (error.isRetryable) {
          this.#isStale = true;
          this.#retryWait = new AbortController();
          // What a server asked for before it was there again counts no more.
          const hint = hellos === this.#hellos ? error.retryAfterMs : undefined;
          await wait(this.#backoff.next(hint), this.#retryWait.signal);
        }
      } finally {
        this.#recordings.delete(recording);
      }
      this.#publish();
    }
    this.#isReloading = false;
    this.#wake();
  }

  /** The contents once there are some. Throws if the inbox is closed, or the list or the stream has failed for good. */
  async #firstContents(): Promise<Contents<Payload>> {
    for (;;) {
      this.#expectOpen();
      if (this.#contents !== undefined) return this.#contents;
      const failure = this.#listError ?? (this.#status === "failed" ? this.#streamError : undefined);
      if (failure !== undefined && !this.#isReloading) throw failure;
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
    }
  }

  #wake(): void {
    for (const look of this.#waiting) look();
    this.#waiting.clear();
  }

  #expectOpen(): void {
    if (this.#closed.signal.aborted) throw new TidingsError("the inbox was closed", { code: "closed" });
  }

  /** Requests as much of the list as there is. A page may end early, because its payloads are large. */
  async #listAgain(): Promise<Contents<Payload>> {
    const shown = () => this.#contents?.items.length ?? 0;
    const first = { limit: Math.min(Math.max(shown(), this.#limit), MAX_LIMIT) };
    let contents = ofPage(await this.#client.list<Payload>(first));
    while (contents.next !== null && contents.items.length < shown() && !this.#closed.signal.aborted) {
      const query = { limit: Math.min(shown() - contents.items.length, MAX_LIMIT), cursor: contents.next };
      const { data, next } = await this.#client.list<Payload>(query);
      contents = { ...contents, items: [...contents.items, ...data], next };
    }
    return contents;
  }

  /** Applies what came while the list was requested. The list may have it already. */
  #replay(happened: Notification<Payload> | Change): void {
    if (this.#contents === undefined) return;
    const next =
      "change" in happened
        ? afterChange(this.#contents, happened, now(), (id) => this.#archived.get(id))
        : afterNotification(this.#contents, happened);
    if (next === undefined) this.#isStale = true;
    else this.#contents = next;
  }

  async #loadNextPage(): Promise<void> {
    await this.#firstContents();
    while (!(await this.#addNextPage()));
  }

  /** Whether the next page is in the list, or there is none. Otherwise the list has changed meanwhile so that the page does not fit. */
  async #addNextPage(): Promise<boolean> {
    const cursor = this.#contents?.next ?? null;
    if (cursor === null) return true;
    const recording: (Notification<Payload> | Change)[] = [];
    this.#recordings.add(recording);
    try {
      const page = await this.#client.list<Payload>({ limit: this.#limit, cursor });
      this.#expectOpen();
      const contents = this.#contents;
      // The list was loaded again meanwhile, and ends elsewhere.
      if (contents?.next !== cursor) return false;
      const longer = withNextPage(contents, page, recording, now());
      if (longer === undefined) return false;
      this.#maxItems = Math.max(MAX_ITEMS, longer.items.length);
      this.#apply(longer);
      return true;
    } finally {
      this.#recordings.delete(recording);
    }
  }

  /** Shows an action at once, carries it out, and undoes it if that fails. */
  async #act(action: Action, request: () => Promise<Counts>): Promise<void> {
    if ("id" in action) expectEventId("id", action.id);
    // A request that is sent again must not undo what was done after it, also if the stream has reported it by then.
    const before = [...this.#requests].filter(([, earlier]) => isOrdered(earlier, action)).map(([response]) => response);
    const response = before.length === 0 ? request() : Promise.allSettled(before).then(request);
    this.#requests.set(response, action);
    const pending: Pending = { action, isDone: false, isUncertain: false };
    this.#pending = [...this.#pending, pending];
    this.#publish();
    const settle = () => {
      this.#pending = this.#pending.filter((other) => other !== pending);
      this.#publish();
    };
    try {
      await response;
    } catch (error) {
      settle();
      throw error;
    } finally {
      this.#requests.delete(response);
    }
    if (this.#closed.signal.aborted) return;
    pending.isDone = true;
    // The server reports only what has changed something.
    if (this.#contents === undefined || changesNothing(this.#contents, action)) return settle();
    if (pending.isUncertain) return this.#reload();
    const timer = setTimeout(() => {
      this.#reportTimers.delete(timer);
      if (this.#pending.includes(pending)) this.#reload();
    }, REPORT_MS);
    this.#reportTimers.add(timer);
  }

  /** Something has changed. The listeners are called once the caller has finished, or a little later if they have just been. */
  #publish(): void {
    if (this.#closed.signal.aborted) return;
    this.#state = undefined;
    if (this.#isCalling) return;
    const ms = this.#calledAt + CALL_MS - performance.now();
    if (ms > 0) {
      this.#callTimer ??= setTimeout(() => this.#callListeners(), ms);
      return;
    }
    this.#isCalling = true;
    queueMicrotask(() => this.#callListeners());
  }

  #callListeners(): void {
    clearTimeout(this.#callTimer);
    this.#callTimer = undefined;
    this.#isCalling = false;
    this.#calledAt = performance.now();
    const { state } = this;
    for (const listener of this.#listeners) {
      try {
        listener(state);
      } catch (error) {
        reportUncaught(error);
      }
    }
  }

  #view(): InboxState<Payload> {
    const status = this.#status;
    const error = this.#listError ?? this.#streamError;
    if (this.#contents === undefined) {
      return { status, isLoading: true, items: [], unread: 0, unseen: 0, hasMore: false, error };
    }
    const at = now();
    const contents = this.#pending.reduce((sum, { action }) => afterAction(sum, action, at), this.#contents);
    const { items, unread, unseen, next } = contents;
    return { status, isLoading: false, items, unread, unseen, hasMore: next !== null, error };
  }
}

const now = () => new Date().toISOString();

function changesNothing(contents: Contents, action: Action): boolean {
  const after = afterAction(contents, action, now());
  const { items, unread, unseen } = contents;
  return after.items === items && after.unread === unread && after.unseen === unseen;
}
