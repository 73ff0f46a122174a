import { Tidings } from "./client.js";
import { displayOf } from "./display.js";
import { icon, make } from "./dom.js";
import { Row } from "./element-row.js";
import { STYLE } from "./element-style.js";
import { asTidingsError, TidingsError } from "./error.js";
import type { EventId } from "./ids.js";
import type { Inbox, InboxState } from "./inbox.js";
import { ENGLISH, type Labels } from "./labels.js";
import { isToken, type TokenSource } from "./tokens.js";
import { wait } from "./wait.js";
import type { Notification } from "./wire.js";

/** How long a person may undo. */
const UNDO_MS = 8000;
/** How often the times are written anew while the list is open. */
const TICK_MS = 30_000;
/** The least time between two requests that say what a person has seen. */
const SEEN_MS = 1000;

/** A program without the types of a browser, as for Node, has no `HTMLElement`. */
type BaseClass = typeof globalThis extends { HTMLElement: infer Class } ? Class : new () => object;

/** Where there is no document, for instance on a server, the class exists and cannot be used. */
const Base: BaseClass = globalThis.HTMLElement ?? class {};

/**
 * `<tidings-inbox>`: a bell with the number of unseen notifications, and their list.
 *
 * Attributes: `user`, `server`, `token-url`, `theme`. Events: `tidings-notification` when a notification arrives (with
 * `isBacklog`, whether it was sent while there was no connection), `tidings-open` when a person follows one of its links
 * or clicks on it (`preventDefault()` keeps the page), and `tidings-error`. The detail is the notification, or the error.
 */
export class TidingsInboxElement extends Base {
  static readonly observedAttributes = ["user", "server", "token-url"];

  #token: TokenSource | undefined;
  #labels: Labels = ENGLISH;
  #client: Tidings | undefined;
  #inbox: Inbox | undefined;
  #unsubscribe: (() => void) | undefined;
  #parts: Parts | undefined;
  /** The rows of the list, as it was when it was shown last. */
  readonly #rows = new Map<EventId, Row>();
  /** The row that the tabulator reaches. */
  #reached: Row | undefined;
  /** The notification that has arrived last. */
  #arrived: Notification | undefined;
  /** How many notifications have arrived that the announcer has not said. */
  #unsaid = 0;
  #ticking: ReturnType<typeof setInterval> | undefined;
  #undoTimer: ReturnType<typeof setTimeout> | undefined;
  #badge = 0;
  #reported: TidingsError | undefined;
  /** Whether the stream of this inbox has been live. */
  #wasLive = false;
  /** What was wrong when a person asked for another try. If that fails, another error follows, which may read the same. */
  #tried: TidingsError | undefined;
  /** Whether it is to be said, when the list is opened, that notifications are missing. */
  #hasGap = false;
  /** The newest notification that was marked as seen. */
  #seen: EventId | undefined;
  /** The inbox that was told lately what is seen, and is told no more for the moment. */
  #seeing: Inbox | undefined;

  /** Returns a new token of the user. The attribute `token-url` is an alternative. */
  get token(): TokenSource | undefined {
    return this.#token;
  }

  set token(token: TokenSource | undefined) {
    const hadToken = this.#token !== undefined;
    this.#token = token;
    // A framework sets another function at each rendering: it is asked when the next token is needed.
    const isAnother = hadToken !== (token !== undefined);
    if (isAnother || this.#inbox === undefined || this.#lacksToken) this.#restart();
  }

  /** Whether the inbox has failed for want of a good token. After any other failure, each rendering would fail again. */
  get #lacksToken(): boolean {
    const { status, error } = this.#inbox?.state ?? {};
    return status === "failed" && error?.code === "unauthorized";
  }

  /** The texts. Those that are missing are English. */
  get labels(): Partial<Labels> {
    return this.#labels;
  }

  set labels(labels: Partial<Labels> | null | undefined) {
    const before = this.#labels;
    const given = Object.entries(labels ?? {}).filter(([, text]) => text !== undefined);
    this.#labels = { ...ENGLISH, ...(Object.fromEntries(given) as Partial<Labels>) };
    if (this.#parts === undefined) return;
    // Functions are called when their texts are needed.
    const names = Object.keys(ENGLISH) as (keyof Labels)[];
    if (names.every((name) => this.#labels[name] === before[name] || typeof before[name] === "function")) {
      this.#showBadgeOf(this.#inbox?.state);
      return;
    }
    const wasOpen = this.#isOpen;
    this.#stop();
    this.#onToggle(false);
    this.#build();
    if (this.isConnected) this.#start();
    if (wasOpen) this.open();
  }

  /** The inbox that is shown; `undefined` while the element is in no document, or has no user. */
  get inbox(): Inbox | undefined {
    return this.#inbox;
  }

  connectedCallback(): void {
    // Set before this class was loaded.
    for (const name of ["token", "labels"] as const) {
      if (!Object.hasOwn(this, name)) continue;
      const value = this[name];
      delete this[name];
      Object.assign(this, { [name]: value });
    }
    if (this.#parts === undefined) this.#build();
    this.#start();
  }

  disconnectedCallback(): void {
    this.#stop();
    // The browser closes the list, and does not say so.
    this.#onToggle(false);
  }

  attributeChangedCallback(_name: string, before: string | null, after: string | null): void {
    if (before !== after) this.#restart();
  }

  #restart(): void {
    if (!this.isConnected || this.#parts === undefined) return;
    this.#stop();
    this.#start();
  }

  #start(): void {
    const user = this.getAttribute("user");
    if (this.#inbox !== undefined) return;
    if (user === null || user === "") return this.#fail(new TypeError("<tidings-inbox> needs the attribute `user`"));
    const server = this.getAttribute("server");
    const tokenUrl = this.getAttribute("token-url");
    const source = this.#token ?? (tokenUrl === null ? undefined : () => fetchToken(tokenUrl));
    const token = source === undefined ? undefined : () => (this.#token ?? source)();
    try {
      this.#client = new Tidings({
        user,
        ...(token === undefined ? {} : { token }),
        ...(server === null ? {} : { url: new URL(server, document.baseURI).href }),
      });
      this.#inbox = this.#client.inbox({
        onNotification: (notification, { isBacklog }) => this.#takeArrived(notification, isBacklog),
        onCaughtUp: () => this.#announce(),
        onGap: () => this.#showGap(),
      });
    } catch (error) {
      return this.#fail(error);
    }
    this.#unsubscribe = this.#inbox.subscribe((state) => this.#show(state));
    this.#show(this.#inbox.state);
  }

  /** Nothing of this user stays. The list may stay open, for the next one. */
  #stop(): void {
    this.#unsubscribe?.();
    this.#inbox?.close();
    this.#inbox = undefined;
    this.#reported = undefined;
    this.#wasLive = false;
    this.#tried = undefined;
    this.#seen = undefined;
    this.#arrived = undefined;
    this.#unsaid = 0;
    this.#hasGap = false;
    clearTimeout(this.#undoTimer);
    const parts = this.#parts;
    if (parts === undefined) return;
    const { list, announcer, doneText } = parts;
    if (list.contains(this.shadowRoot?.activeElement ?? null)) parts.panel.focus();
    list.replaceChildren();
    this.#rows.clear();
    this.#reached = undefined;
    announcer.textContent = doneText.textContent = "";
    this.#showBadge(undefined);
    this.#showNotice();
    for (const name of ["done", "markAll", "more", "empty", "loading"] as const) this.#hide(parts[name]);
  }

  /** The element cannot be used as it is written in the page. */
  #fail(error: unknown): void {
    this.#showNotice(this.#labels.failed);
    console.error(error);
  }

  #build(): void {
    const root = this.shadowRoot ?? this.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
    const labels = this.#labels;
    const badge = make("span", { class: "badge", part: "badge", "aria-hidden": "true", hidden: true });
    const bell = make("button", { class: "bell", part: "bell", type: "button", "aria-haspopup": "dialog" }, icon("bell"), badge);
    const markAll = make("button", { class: "tool mark-all", type: "button" }, icon("checks"), labels.markAllRead);
    const close = make("button", { class: "tool close", type: "button", "aria-label": labels.close }, icon("close"));
    const list = make("ul", { role: "list", "aria-label": labels.notifications });
    const empty = make("div", { class: "empty", hidden: true }, icon("bell"), make("strong", {}, labels.empty), labels.emptyHint);
    const loading = make("div", { role: "status", "aria-label": labels.loading, hidden: true });
    for (let rows = 0; rows < 3; rows += 1) {
      loading.append(make("div", { class: "skeleton" }, make("i"), make("div", {}, make("b"), make("b"))));
    }
    const more = make("button", { class: "more", type: "button", hidden: true }, labels.loadMore);
    const scroll = make("div", { class: "scroll" }, list, empty, loading, more);
    const noticeText = make("span");
    const noticeAction = make("button", { type: "button", hidden: true });
    const notice = make("div", { class: "notice", role: "alert", hidden: true }, noticeText, noticeAction);
    const doneText = make("span");
    const doneAction = make("button", { type: "button", hidden: true });
    const done = make("div", { class: "notice done", role: "status", hidden: true }, doneText, doneAction);
    const header = make("header", {}, make("h2", {}, labels.notifications), markAll, close);
    const panel = make(
      "div",
      { class: "panel", part: "panel", popover: "auto", role: "dialog", tabindex: -1, "aria-label": labels.notifications },
      header,
      notice,
      scroll,
      done,
    );
    const announcer = make("div", { class: "hidden-text", role: "status", "aria-live": "polite" });
    bell.popoverTargetElement = panel;
    close.addEventListener("click", () => panel.hidePopover());
    markAll.addEventListener("click", () => this.#do((inbox) => inbox.markAllRead()));
    more.addEventListener("click", () => this.#do((inbox) => inbox.loadMore()));
    panel.addEventListener("beforetoggle", ({ newState }) => {
      if (newState === "open" && this.#inbox !== undefined) this.#showList(this.#inbox.state);
    });
    panel.addEventListener("toggle", () => {
      // The event comes later: who has opened the list may have removed the element since.
      const isOpen = this.#isOpen;
      this.#onToggle(isOpen);
      // Unless a click has put it elsewhere, the focus goes back to where it came from.
      const { activeElement } = document;
      if (!isOpen && (activeElement === document.body || activeElement === this)) bell.focus({ preventScroll: true });
    });
    panel.addEventListener("keydown", (event) => this.#onKey(event));
    root.replaceChildren(bell, announcer, panel);
    this.#parts = {
      bell, badge, markAll, list, empty, loading, more, notice, noticeText, noticeAction,
      done, doneText, doneAction, panel, announcer,
    };
    this.#showBadge(undefined);
  }

  /** Opens the list, if the element is in a document. */
  open(): void {
    if (this.isConnected) this.#parts?.panel.showPopover();
  }

  /** Closes the list. */
  close(): void {
    this.#parts?.panel.hidePopover();
  }

  #onToggle(isOpen: boolean): void {
    const { panel, bell } = this.#parts ?? {};
    if (panel === undefined || bell === undefined) return;
    clearInterval(this.#ticking);
    bell.setAttribute("aria-expanded", String(isOpen));
    if (!isOpen) {
      removeEventListener("resize", this.#place);
      removeEventListener("scroll", this.#place, { capture: true });
      document.removeEventListener("visibilitychange", this.#onVisible);
      return;
    }
    this.#place();
    addEventListener("resize", this.#place);
    addEventListener("scroll", this.#place, { capture: true, passive: true });
    document.addEventListener("visibilitychange", this.#onVisible);
    panel.focus({ preventScroll: true });
    this.#ticking = setInterval(() => this.#tick(), TICK_MS);
    this.#tick();
    this.#seen = undefined;
    if (this.#inbox !== undefined) this.#show(this.#inbox.state);
    if (this.#hasGap) this.#showGap();
  }

  /** Says that notifications are missing: where nothing can be read, when the list is opened. */
  #showGap(): void {
    this.#hasGap = !this.#isOpen;
    if (this.#isOpen) this.#notice(this.#labels.gap);
  }

  /** What came while the page was hidden is seen when the person comes back. */
  readonly #onVisible = (): void => {
    if (this.#inbox !== undefined) this.#see(this.#inbox.state);
  };

  /** Puts the panel below the bell, or above it where there is more room. */
  readonly #place = (): void => {
    const { panel, bell } = this.#parts ?? {};
    if (panel === undefined || bell === undefined) return;
    const { top, bottom, left, right } = bell.getBoundingClientRect();
    const { clientWidth, clientHeight } = document.documentElement;
    const margin = 8;
    const isBelow = clientHeight - bottom >= Math.min(420, top);
    const width = panel.offsetWidth;
    const isRightAligned = right >= width + margin || right > clientWidth - left;
    const wanted = isRightAligned ? right - width : left;
    const x = Math.max(margin, Math.min(wanted, clientWidth - width - margin));
    panel.style.left = `${x}px`;
    panel.style.top = isBelow ? `${bottom + 6}px` : "auto";
    panel.style.bottom = isBelow ? "auto" : `${clientHeight - top + 6}px`;
    const room = (isBelow ? clientHeight - bottom : top) - 6 - margin;
    panel.style.maxHeight = `${Math.max(200, Math.min(640, room))}px`;
  };

  /** The time of the server, whose times are shown. */
  get #now(): number {
    return this.#client?.now() ?? Date.now();
  }

  #tick(): void {
    for (const row of this.#rows.values()) row.tick(this.#now);
  }

  get #isOpen(): boolean {
    return this.#parts?.panel.matches(":popover-open") ?? false;
  }

  /** What is on the screen is seen. While much arrives, the server is told about once a second. */
  #see({ items, unseen }: InboxState): void {
    const newest = items[0]?.id;
    const inbox = this.#inbox;
    if (inbox === undefined || inbox === this.#seeing || !this.#isOpen || document.visibilityState !== "visible") return;
    // If that failed, it is not tried again before something else arrives.
    if (unseen === 0 || newest === this.#seen) return;
    this.#seen = newest;
    this.#seeing = inbox;
    const told = inbox.markSeen().catch((error: unknown) => {
      if (inbox === this.#inbox) this.#report(error);
    });
    void told.then(() => wait(SEEN_MS)).then(() => {
      if (inbox !== this.#inbox) return;
      this.#seeing = undefined;
      this.#see(inbox.state);
    });
  }

  /** Does what a person asks for, and says so if it fails, unless another inbox is shown by then. */
  #do(action: (inbox: Inbox) => Promise<void>): Promise<boolean> {
    const inbox = this.#inbox;
    if (inbox === undefined) return Promise.resolve(false);
    return action(inbox).then(
      () => inbox === this.#inbox,
      (error: unknown) => {
        if (inbox !== this.#inbox) return false;
        this.#report(error);
        this.#notice(this.#labels.notDone);
        return false;
      },
    );
  }

  #report(thrown: unknown): void {
    const error = asTidingsError(thrown);
    // For the developer of the page: the person is shown plain words.
    if (!error.isRetryable) console.error(error);
    this.dispatchEvent(new CustomEvent("tidings-error", { detail: error, bubbles: true, composed: true }));
  }

  #takeArrived(notification: Notification, isBacklog: boolean): void {
    this.#arrived = notification;
    this.#unsaid += 1;
    if (!isBacklog) this.#announce();
    const detail = { ...notification, isBacklog };
    this.dispatchEvent(new CustomEvent("tidings-notification", { detail, bubbles: true, composed: true }));
  }

  /** Says what has arrived: once for all that has come together, which may be a long backlog. */
  #announce(): void {
    queueMicrotask(() => {
      const { announcer } = this.#parts ?? {};
      if (announcer === undefined || this.#arrived === undefined || this.#unsaid === 0) return;
      const { arrived, arrivedMany } = this.#labels;
      announcer.textContent = this.#unsaid === 1 ? arrived(displayOf(this.#arrived).title) : arrivedMany(this.#unsaid);
      this.#unsaid = 0;
    });
  }

  #show(state: InboxState): void {
    this.#wasLive ||= state.status === "live";
    this.#showBadgeOf(state);
    if (state.error !== undefined && state.error !== this.#reported) {
      this.#reported = state.error;
      this.#report(state.error);
    }
    // A list that nobody sees is not kept up to date.
    if (this.#isOpen) this.#showList(state);
  }

  #showList(state: InboxState): void {
    const parts = this.#parts;
    const inbox = this.#inbox;
    if (parts === undefined || inbox === undefined) return;
    const { items, unread, hasMore, isLoading } = state;
    // The button that loads more goes, and who used it is in what it has loaded.
    const isDone = !hasMore && this.shadowRoot?.activeElement === parts.more;
    const before = this.#rows.size;
    this.#showRows(items);
    const loaded = this.#rows.get((items[before] ?? items.at(-1))?.id ?? "");
    if (isDone && loaded !== undefined) this.#focus(loaded);
    else if (isDone) parts.panel.focus();
    if (unread === 0) this.#hide(parts.markAll);
    else parts.markAll.hidden = false;
    parts.empty.hidden = isLoading || items.length > 0 || hasMore;
    parts.more.hidden = !hasMore;
    const [words, retry] = this.#explain(state, inbox);
    parts.loading.hidden = !isLoading || words !== undefined;
    this.#showNotice(words, retry);
    parts.noticeAction.ariaBusy = String(state.error !== undefined && state.error === this.#tried);
    // A person who archives everything wants to see the rest.
    if (hasMore && items.length < 5) void inbox.loadMore().catch(() => {});
    this.#see(state);
  }

  /** What is wrong, in plain words, and what a person can do. */
  #explain({ status, error, isLoading }: InboxState, inbox: Inbox): [words?: string, retry?: () => void] {
    const labels = this.#labels;
    if (error === undefined) return [];
    if (error === this.#tried) return [labels.trying, () => {}];
    const restart = () => this.#restart();
    const isFailed = status === "failed" || !error.isRetryable;
    // What an application says to who is signed out.
    const isOfToken = error.code === "token_unavailable";
    if (error.status === 401 || error.code === "unauthorized" || (isOfToken && error.status === 403)) {
      return isFailed ? [labels.signedOut, restart] : [labels.signedOut];
    }
    if (error.status === 403) return [labels.forbidden];
    if (isFailed) return [labels.failed, restart];
    if (error.status === 429 && !isOfToken) return [labels.tooManyRequests];
    const isListed = !isLoading && status !== "live";
    const words = !isListed ? labels.unreachable : this.#wasLive ? labels.reconnecting : labels.connecting;
    const retry = () => {
      this.#tried = error;
      inbox.retry();
      this.#showList(inbox.state);
    };
    // Nothing is tried while the server has asked to wait, or without a network.
    return error.retryAfterMs === undefined && navigator.onLine ? [words, retry] : [words];
  }

  #showNotice(words?: string, retry?: () => void): void {
    const { notice, noticeText, noticeAction } = this.#parts ?? {};
    if (notice === undefined || noticeText === undefined || noticeAction === undefined) return;
    if (words === undefined) this.#hide(notice);
    else notice.hidden = false;
    if (noticeText.textContent !== (words ?? "")) noticeText.textContent = words ?? "";
    if (retry === undefined) this.#hide(noticeAction);
    else noticeAction.hidden = false;
    noticeAction.textContent = this.#labels.retry;
    noticeAction.onclick = retry ?? null;
  }

  /** Says something for a moment. */
  #notice(words: string, undo?: () => void): void {
    const { done, doneText, doneAction } = this.#parts ?? {};
    if (done === undefined || doneText === undefined || doneAction === undefined) return;
    clearTimeout(this.#undoTimer);
    done.hidden = false;
    doneText.textContent = words;
    doneAction.hidden = undo === undefined;
    doneAction.textContent = this.#labels.undo;
    doneAction.onclick = () => {
      this.#hide(done);
      undo?.();
    };
    this.#hideDoneLater(done);
  }

  /** What a person points at, or has the focus in, stays. */
  #hideDoneLater(done: HTMLElement): void {
    this.#undoTimer = setTimeout(() => {
      if (done.matches(":hover, :focus-within")) this.#hideDoneLater(done);
      else this.#hide(done);
    }, UNDO_MS);
  }

  /** Hides a part. Who uses the keyboard and was in it is in the panel afterwards. */
  #hide(part: HTMLElement): void {
    const hadFocus = part.contains(this.shadowRoot?.activeElement ?? null);
    part.hidden = true;
    if (hadFocus) this.#parts?.panel.focus({ preventScroll: true });
  }

  #showBadgeOf(state: InboxState | undefined): void {
    this.#showBadge(state === undefined || state.isLoading ? undefined : state.unseen);
  }

  /** Shows how many are unseen; `undefined` if that is not known. */
  #showBadge(unseen: number | undefined): void {
    const { badge, bell } = this.#parts ?? {};
    if (badge === undefined || bell === undefined) return;
    const { notifications, unseen: words } = this.#labels;
    if (unseen === undefined) {
      badge.hidden = true;
      badge.textContent = "";
      this.#badge = 0;
      bell.setAttribute("aria-label", notifications);
      return;
    }
    badge.hidden = unseen === 0;
    badge.textContent = unseen > 99 ? "99+" : String(unseen);
    badge.classList.toggle("new", unseen > this.#badge);
    this.#badge = unseen;
    bell.setAttribute("aria-label", `${notifications}: ${words(unseen)}`);
  }

  /** Makes the list equal to the items, and keeps the elements of those that stay, and with them the focus. */
  #showRows(items: readonly Notification[]): void {
    const { list } = this.#parts ?? {};
    if (list === undefined) return;
    const wanted = new Set(items.map(({ id }) => id));
    for (const [id, row] of this.#rows) {
      if (wanted.has(id)) continue;
      this.#moveFocusFrom(row);
      row.element.remove();
      this.#rows.delete(id);
      if (this.#reached === row) this.#reached = undefined;
    }
    let before: Element | null = null;
    for (const item of items) {
      const row = this.#rows.get(item.id) ?? this.#addRow(item);
      row.update(item);
      const place: Element | null = before === null ? list.firstElementChild : before.nextElementSibling;
      if (place !== row.element) list.insertBefore(row.element, place);
      before = row.element;
    }
    const first = this.#rowOf(list.firstElementChild);
    if (this.#reached === undefined && first !== undefined) this.#reach(first);
  }

  #addRow(item: Notification): Row {
    const row = new Row(item, this.#labels, this.#now, {
      onOpen: (notification, event) => this.#open(notification, event),
      onOpenElsewhere: (notification) => this.#markRead(notification),
      onToggleRead: ({ id, read_at: readAt }) => {
        void this.#do((inbox) => (readAt === null ? inbox.markRead(id) : inbox.markUnread(id)));
      },
      onArchive: ({ id }) => this.#archive(id),
    });
    if (item.id === this.#arrived?.id) row.element.classList.add("arrived");
    this.#rows.set(item.id, row);
    return row;
  }

  #markRead({ id, read_at: readAt }: Notification): void {
    if (readAt === null) void this.#do((inbox) => inbox.markRead(id));
  }

  #open(notification: Notification, event: Event): void {
    this.#markRead(notification);
    const { currentTarget } = event;
    const url = currentTarget instanceof HTMLAnchorElement ? currentTarget.href : undefined;
    const options = { detail: { notification, url }, cancelable: true, bubbles: true, composed: true };
    if (!this.dispatchEvent(new CustomEvent("tidings-open", options))) {
      event.preventDefault();
      this.close();
    }
  }

  #archive(id: EventId): void {
    void this.#do((inbox) => inbox.archive(id)).then((isDone) => {
      const undo = () => void this.#do((inbox) => inbox.unarchive(id));
      if (isDone) this.#notice(this.#labels.archived, undo);
    });
  }

  #onKey(event: KeyboardEvent): void {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const { target } = event;
    const list = this.#parts?.list;
    const ends: Record<string, Element | null | undefined> = { Home: list?.firstElementChild, End: list?.lastElementChild };
    const row = target instanceof Element ? target.closest("li") : null;
    if (row === null) {
      // The list has just been opened.
      const first = target === this.#parts?.panel ? this.#rowOf({ ArrowDown: list?.firstElementChild, ...ends }[event.key]) : undefined;
      if (first === undefined) return;
      this.#focus(first);
      event.preventDefault();
      return;
    }
    const to = this.#rowOf({ ArrowDown: row.nextElementSibling, ArrowUp: row.previousElementSibling, ...ends }[event.key]);
    if (to !== undefined) this.#focus(to);
    else if (event.key === "Delete") {
      // A key that is held down archives one, not all below it.
      if (!event.repeat) this.#archive(row.dataset["id"] ?? "");
    } else if (event.key === "Enter" && target === row) (row.querySelector<HTMLElement>("a.title") ?? row).click();
    else return;
    event.preventDefault();
  }

  /** The row of an element of the list. */
  #rowOf(element: Element | null | undefined): Row | undefined {
    return element instanceof HTMLElement ? this.#rows.get(element.dataset["id"] ?? "") : undefined;
  }

  /** One row at a time, with what is in it, is reached by the tabulator. */
  #reach(row: Row): void {
    if (row === this.#reached) return;
    this.#reached?.reach(false);
    row.reach(true);
    this.#reached = row;
  }

  /** The arrow keys choose the row. */
  #focus(row: Row): void {
    this.#reach(row);
    row.element.focus();
  }

  #moveFocusFrom({ element }: Row): void {
    if (!element.contains(this.shadowRoot?.activeElement ?? null)) return;
    const next = this.#rowOf(element.nextElementSibling ?? element.previousElementSibling);
    if (next !== undefined) this.#focus(next);
    else this.#parts?.panel.focus();
  }
}

/** The elements that change. */
interface Parts {
  bell: HTMLButtonElement;
  badge: HTMLElement;
  markAll: HTMLElement;
  list: HTMLElement;
  empty: HTMLElement;
  loading: HTMLElement;
  more: HTMLElement;
  notice: HTMLElement;
  noticeText: HTMLElement;
  noticeAction: HTMLElement;
  done: HTMLElement;
  doneText: HTMLElement;
  doneAction: HTMLElement;
  panel: HTMLElement;
  announcer: HTMLElement;
}

/** Fetches a token from the application: as text, or as JSON with a member `token`. */
async function fetchToken(url: string): Promise<string> {
  const response = await fetch(url, { credentials: "same-origin", cache: "no-store" });
  if (!response.ok) {
    throw Object.assign(new Error(`the reply of ${url} has the status ${response.status}`), { status: response.status });
  }
  const text = (await response.text()).trim();
  const token = text.startsWith("{") ? (JSON.parse(text) as { token: string }).token : text;
  // So replies an application that sends who is signed out to another page.
  if (response.redirected && !isToken(token)) throw Object.assign(new Error(`${url} leads to a page`), { status: 401 });
  return token;
}

if (globalThis.customElements !== undefined && customElements.get("tidings-inbox") === undefined) {
  customElements.define("tidings-inbox", TidingsInboxElement);
}

declare global {
  interface HTMLElementTagNameMap {
    "tidings-inbox": TidingsInboxElement;
  }
}
