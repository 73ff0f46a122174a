// One user: the inbox with all its states, what happens live, presence, and a form to send.

import { displayOf } from "/tidings.js";

import { call, part, postOnce } from "./api.js";
import { field, line, pointTo, unmark } from "./dialog.js";
import { button, make, retire } from "./dom.js";
import { clock, count, fullTime, sentence, time } from "./format.js";
import { keep, kept } from "./place.js";
import { now } from "./server-clock.js";
import { session } from "./session.js";
import { restoreTyped } from "./typed.js";

/** The most lines of the live feed; the inbox has older ones. */
const MAX_LINES = 200;

/** The most notifications that a screen reader says when they arrive together. */
const MAX_SAID = 3;

/** How much it says of a payload. */
const MAX_SAID_LENGTH = 200;

/** The most notifications of one page. */
const MAX_PAGE = 1000;

/** How long the server may count a stream that this page has closed. */
const OWN_STREAM_MS = 3000;

/** How long the inbox waits for who else is online. */
const PRESENCE_MS = 2000;

/** How long a list that could not be loaded waits for the next try. */
const RETRY_MS = 5000;

/** The least time between two loads of a list because of what others do. */
const RELOAD_MS = 1000;

/** The longest such wait that a server may ask for. */
const MAX_RETRY_MS = 600_000;

/** The user who was shown last, until when, and whether and when they were online elsewhere. */
let wasOpen = {};

/** What a person reads of each status of a stream. */
const STATUS = { connecting: "connecting", live: "live", waiting: "reconnecting", failed: "failed", closed: "closed" };

/** What the server replies, or an error if that takes too long. */
const inTime = (reply) => Promise.race([reply, new Promise((_, reject) => setTimeout(reject, PRESENCE_MS, new Error("it took too long")))]);

const FILTERS = [["inbox", "Inbox"], ["unread", "Unread"], ["archived", "Archived"], ["live", "Live"]];

/** What people read of a notification. Relative addresses are of pages of the application, and lead nowhere from here. */
const readable = (notification) => displayOf(notification, "about:blank");

/** A link of a notification, which must not replace the page around a portal. */
const linkTo = (url, ...words) => make("a", { href: url, target: "_blank", rel: "noopener noreferrer", dir: "auto" }, ...words);

/** What is shown of a notification: what people read, with the payload byte by byte below it, or that alone. */
function shown(notification) {
  const { title, body, url, icon, actions, isRaw } = readable(notification);
  const payload = make("pre", {}, notification.payload_text);
  if (isRaw) return payload;
  return make("div", { class: "said" },
    make("div", { class: "main" }, icon?.text && `${icon.text} `, url === undefined ? make("span", { dir: "auto" }, title) : linkTo(url, title)),
    body !== undefined && make("div", { class: "words", dir: "auto" }, body),
    actions.length > 0 && make("div", { class: "chips" }, actions.map(({ label, url }) => linkTo(url, label))),
    make("details", {}, make("summary", {}, "JSON"), payload));
}

/** Asks for a user, where none is in the address. */
export function choose(root) {
  const name = line("user", { required: true, maxlength: 255, placeholder: "anna", autofocus: true });
  const form = make("form", { id: "choose", class: "inline" }, field("User", name), make("button", { class: "primary" }, "Open"));
  const error = make("p", { class: "error", role: "alert" });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const user = name.value.trim();
    if (user === "") {
      error.textContent = "Type the name of a user.";
      name.focus();
      return;
    }
    location.hash = `#/users/${encodeURIComponent(user)}`;
  });
  root.append(
    make("header", { class: "head" }, make("h1", {}, "Users")),
    make("section", { class: "card" },
      make("p", {}, "A user is any name under which notifications are sent. Type one to see their inbox, and what arrives, live."),
      form, error),
  );
  name.focus();
}

export function open(root, user, query) {
  part(user);
  const tidings = session.clientOf(user);
  const isByCookie = session.user !== undefined && session.credential === "";
  const filter = FILTERS.some(([name]) => name === query.get("show")) ? query.get("show") : "inbox";
  const type = query.get("type") ?? "";

  const status = make("span", { id: "status", class: "chip", role: "status", "data-state": "connecting" }, "connecting");
  const tryNow = button("Try now", retry, { id: "retry", hidden: true });
  // A person in their own inbox knows that they are online.
  const presence = session.user === undefined && make("span", { id: "presence", class: "chip" }, "…");
  const unread = make("span", { id: "unread", class: "badge", hidden: true });
  const readAll = button("Mark all read", () => inbox.markAllRead(), { id: "read-all", hidden: true });
  const seen = button("Mark all seen", () => inbox.markSeen(), { id: "seen", hidden: true });
  // The times in the rows of the inbox change, which a live region would say each time. The lines of the live feed stay.
  const list = make("ol", { id: "feed", class: "items", "aria-live": filter === "live" ? "polite" : undefined });
  const arrived = make("p", { id: "arrived", class: "hidden-text", role: "status" });
  const problem = make("p", { class: "problem", role: "status", hidden: true });
  const empty = make("p", { id: "empty", class: "empty" }, "Loading …");
  const more = button("Load more", () => loadMore(), { id: "more", hidden: true });

  const addressOf = (show, type) => `#/users/${encodeURIComponent(user)}${show === "inbox" && !type ? "" : `?${new URLSearchParams({ show, ...(type ? { type } : {}) })}`}`;
  const tabs = make("nav", { class: "tabs", "aria-label": "What is shown" },
    FILTERS.map(([name, words]) => make("a", { href: addressOf(name, type), "aria-current": name === filter ? "page" : undefined }, words)));
  const ofType = line("type", { placeholder: "every type", value: type, "aria-label": "Type", maxlength: 255 });
  const byType = make("form", { class: "filter" }, ofType);
  byType.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = addressOf(filter, ofType.value.trim());
  });

  root.append(
    make("header", { class: "head" }, make("h1", {}, session.user === undefined ? user : "Your inbox"), unread, status, tryNow, presence, make("span", { class: "actions" }, seen, readAll)),
    make("div", { class: session.may("publish") ? "columns" : "column" },
      make("section", { class: "card wide", "aria-label": "Notifications" },
        make("div", { class: "bar" }, tabs, byType),
        problem, empty, arrived, list, more),
      session.may("publish") && sendForm(user)),
  );

  // Asked before the stream is open: this page makes the user online, too.
  const isOwnLeft = wasOpen.user === user && performance.now() - wasOpen.until < OWN_STREAM_MS;
  // Their own portal, which may have been here before, has not asked.
  const asked = presence && ((isOwnLeft && wasOpen.asked) || askPresence(user));
  const whether = Promise.resolve(asked).then(
    (found) => found && showPresence(presence, found),
    () => presence.remove(),
  );

  /** Who uses the keyboard is in the first of what was loaded last. */
  const showMore = (hasMore, before) => {
    if (hasMore) more.hidden = false;
    else retire(more, list.children[before]?.querySelector("button:not([hidden])") ?? tabs.querySelector("a"));
  };

  const rows = new Map();
  /** Which notifications are listed, unless the inbox itself is shown. */
  let ownList;
  let inbox;
  let stream;
  let closed = false;
  let isListed = false;
  let wasLive = false;
  /** What a person tries: the error of before, and what ends the try. */
  let trying;
  let triedAt;

  /** `detail` is a text, or what is shown. */
  function addLine(words, detail) {
    list.prepend(make("li", {}, make("div", { class: "item-head" }, make("span", { class: "type" }, words), fullTime(new Date(now()).toISOString())), typeof detail === "string" ? make("pre", {}, detail) : detail));
    while (list.children.length > MAX_LINES) list.lastElementChild.remove();
    empty.hidden = true;
  }

  /** Shows these notifications, and reuses what is there, so that the focus stays where it is. */
  function show(items, nothing) {
    const held = list.contains(document.activeElement) ? document.activeElement : undefined;
    const heldAt = [...list.children].indexOf(held?.closest("li"));
    const ids = new Set(items.map(({ id }) => id));
    if (isListed) sayArrived(items);
    isListed = true;
    for (const [id, row] of rows) {
      if (ids.has(id)) continue;
      row.element.remove();
      rows.delete(id);
    }
    items.forEach((item, index) => {
      const row = rows.get(item.id) ?? rowOf(item);
      rows.set(item.id, row);
      row.update(item);
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
    });
    empty.hidden = items.length > 0;
    empty.textContent = nothing;
    if (held !== undefined && (held.hidden || !held.isConnected)) moveFocus(held, heldAt);
  }

  /** Lets a screen reader say what is above the rows that are there. What is below them is a page of the list, and not new. */
  function sayArrived(items) {
    const known = items.findIndex(({ id }) => rows.has(id));
    const added = items.slice(0, known < 0 ? items.length : known);
    if (added.length === 0 || added.length > MAX_SAID) return;
    const words = added.map((notification) => {
      const { title, body, isRaw } = readable(notification);
      const said = isRaw ? notification.payload_text : [title, body].filter(Boolean).join(". ");
      return `${notification.type}: ${said.slice(0, MAX_SAID_LENGTH)}`;
    });
    arrived.replaceChildren(...words.map((said) => make("span", {}, said, " ")));
  }

  /** Moves the focus from a button that is gone to the same one of its row, or of the row that took its place. */
  function moveFocus(held, at) {
    const row = held.isConnected ? held.closest("li") : (list.children[at] ?? list.lastElementChild);
    const next = row?.querySelector(`[data-pair="${held.dataset.pair}"]:not([hidden])`);
    if (next) next.focus();
    else focusTabs();
  }

  function rowOf(notification) {
    const { id, type: name, timestamp, key } = notification;
    const read = button("Mark read", () => change("markRead", id), { "data-pair": "read" });
    const unreadAgain = button("Mark unread", () => change("markUnread", id), { "data-pair": "read" });
    const archive = button("Archive", () => change("archive", id), { "data-pair": "archive" });
    const back = button("Move to inbox", () => change("unarchive", id), { "data-pair": "archive" });
    const element = make("li", { "data-id": id },
      make("div", { class: "item-head" }, make("span", { class: "type" }, name), key !== null && make("span", { class: "chip", title: "The event key" }, key), time(timestamp), make("span", { class: "actions" }, read, unreadAgain, archive, back)),
      shown(notification));
    return {
      element,
      update({ read_at: readAt, archived_at: archivedAt }) {
        element.classList.toggle("unread", readAt === null);
        read.hidden = readAt !== null;
        unreadAgain.hidden = readAt === null;
        archive.hidden = archivedAt !== null;
        back.hidden = archivedAt === null;
      },
    };
  }

  async function change(action, id) {
    await inbox[action](id);
    if (ownList !== undefined) await reload();
  }

  function showCounts(counts) {
    unread.hidden = counts.unread === 0;
    unread.textContent = `${count(counts.unread)} unread`;
    for (const [button, left] of [[readAll, counts.unread], [seen, counts.unseen]]) {
      if (left > 0) button.hidden = false;
      else retire(button, tabs.querySelector("[aria-current]") ?? tabs.firstElementChild);
    }
  }

  const focusTabs = () => (tabs.querySelector("[aria-current]") ?? tabs.firstElementChild).focus();

  /** Each failure is another error, also if it reads the same. */
  function retry() {
    return new Promise((end) => {
      const { status, error } = inbox.state;
      trying = { error, end };
      inbox.retry();
      showStatus(status, error);
    });
  }

  function showStatus(state, error, isSaid) {
    if (closed) return;
    if (trying !== undefined && (state !== "waiting" || error !== trying.error)) {
      trying.end();
      trying = undefined;
      triedAt = clock(now());
    }
    wasLive ||= state === "live";
    status.dataset.state = state;
    if (state === "failed") readAll.hidden = seen.hidden = true;
    // Nothing is tried while the server has asked to wait or has refused the credential, or without a network.
    const canTry = error === undefined || (error.retryAfterMs === undefined && error.isRetryable && navigator.onLine);
    if (state === "waiting" && canTry) tryNow.hidden = false;
    else retire(tryNow, tabs.querySelector("[aria-current]") ?? tabs.firstElementChild);
    if (state === "live") triedAt = undefined;
    const words = STATUS[state === "waiting" && !wasLive ? "connecting" : state];
    const why = [triedAt && `tried at ${triedAt}`, state !== "live" && !isSaid && error?.message].filter(Boolean).join(", ");
    const said = trying !== undefined ? "Trying …" : why === "" ? words : `${words}: ${why}`;
    // Said once, and not with each change of the list.
    if (status.textContent !== said) status.textContent = said;
    // An inbox asks for nothing else, so nothing else would notice. The error may be of another tab, with another
    // credential: this asks with that of this tab, and signs out if it is refused. A token in a cookie ends with its
    // stream, and the next one may be of another user.
    const isOver = isByCookie && state === "failed" && (error?.code === "ended" || error?.status === 403);
    if (state !== "live" && (error?.code === "unauthorized" || isOver)) askOnceMore();
  }

  /**
   * Asks for something small. If that gets another token of the page around this one, or the cookie has another one, the
   * view begins again with it.
   */
  async function askOnceMore() {
    const { credential } = session;
    try {
      await call("GET", `/v1/users/${part(user)}/notifications/unread-count`);
    } catch {
      return;
    }
    if (!closed && (session.credential !== credential || isByCookie)) dispatchEvent(new Event("hashchange"));
  }

  // A list of its own, for what the inbox does not have: loaded again after each change.
  let items = [];
  let next = null;
  /** As many as there were before the person left and came back, or none. */
  const returned = Math.min(kept().shown ?? 0, MAX_PAGE);
  /** How many to begin with. */
  const begun = returned || 50;
  let isStale = false;
  let retrying;
  let turn = Promise.resolve();
  /** Runs one request for the list after another: a page that follows another list would repeat rows, or lack some. */
  const inTurn = (task) => (turn = turn.then(task, task));

  /** The reload that waits for its turn: one is enough for all that changes meanwhile. */
  let queued;
  /** The timer of the next reload because of what others do. */
  let soon;
  let reloadedAt = -Infinity;
  /** Something has happened while nobody looked. */
  let isMissed = false;

  function reload() {
    isStale = true;
    reloadedAt = performance.now();
    queued ??= inTurn(() => {
      queued = undefined;
      return reloadIfStale();
    });
    return queued;
  }

  /** Loads the list for all that others do within a while, and once somebody looks. */
  function reloadSoon() {
    soon ??= setTimeout(reloadIfShown, Math.max(0, reloadedAt + RELOAD_MS - performance.now()));
  }

  function reloadIfShown() {
    soon = undefined;
    isMissed = document.hidden;
    if (!isMissed) reload();
  }

  const onShow = () => isMissed && reloadIfShown();
  document.addEventListener("visibilitychange", onShow);

  async function reloadIfStale() {
    if (!isStale || closed) return;
    isStale = false;
    clearTimeout(retrying);
    let error;
    try {
      const least = Math.max(items.length, returned);
      const found = [];
      let cursor = null;
      // The server ends a page early if its payloads are large, and what a person reads must not go.
      do {
        const limit = Math.min(Math.max(least, begun) - found.length, MAX_PAGE);
        const page = await tidings.list({ ...ownList, limit, ...(cursor === null ? {} : { cursor }) });
        if (closed) return;
        found.push(...page.data);
        cursor = page.next;
      } while (cursor !== null && found.length < least);
      [items, next] = [found, cursor];
      show(items, nothing);
      showMore(next !== null, 0);
    } catch (thrown) {
      if (closed) return;
      error = thrown;
      isStale = true;
      if (error.isRetryable) retrying = setTimeout(reload, Math.min(Math.max(error.retryAfterMs ?? 0, RETRY_MS), MAX_RETRY_MS));
      if (items.length === 0) empty.hidden = true;
    }
    problem.hidden = error === undefined;
    const said = error === undefined ? "" : `${sentence(error.message)}${error.isRetryable ? " Trying again." : ""}`;
    // Said once, and not with each attempt.
    if (problem.textContent !== said) problem.textContent = said;
  }

  /** Loads of the inbox what there was before. What cannot be loaded now, the button loads. */
  async function loadAgain() {
    try {
      while (!closed && inbox.state.hasMore && inbox.state.items.length < begun) await inbox.loadMore();
    } catch (error) {
      console.warn("not loaded again:", error.message);
    }
  }

  async function loadMore() {
    if (ownList === undefined) {
      try {
        await inbox.loadMore();
      } catch (error) {
        // Who has left the view does not wait for it any more.
        if (!closed) throw error;
        return;
      }
      keep({ shown: inbox.state.items.length });
      return;
    }
    await inTurn(loadNextPage);
  }

  async function loadNextPage() {
    if (next === null || closed) return;
    const page = await tidings.list({ ...ownList, cursor: next });
    if (closed) return;
    const before = items.length;
    items = [...items, ...page.data];
    next = page.next;
    keep({ shown: items.length });
    show(items, nothing);
    showMore(next !== null, before);
  }

  if (filter === "unread" || filter === "archived" || type !== "") {
    ownList = { ...(filter === "unread" ? { unread: true } : {}), ...(filter === "archived" ? { archived: true } : {}), ...(type ? { type } : {}) };
  }
  const what = filter === "archived" ? "archived" : filter === "unread" ? "unread" : "in the inbox";
  const nothing = `Nothing ${type === "" ? "" : `of the type ${type} `}is ${what}.`;
  byType.hidden = filter === "live";

  whether.finally(() => {
    if (closed) return;
    inbox = tidings.inbox();
    if (filter === "live") {
      stream = tidings.stream({
        onNotification: (notification) => addLine(`notification · ${notification.type}`, shown(notification)),
        onChange: ({ change: what, ids, up_to: upTo, unread: left }) => addLine(`${what} · ${count(left)} unread`, ids?.join("\n") ?? (upTo && `up to ${upTo}`)),
        onGap: ({ reason }) => addLine(`gap · notifications are missing here (${reason})`),
        onHello: ({ cursor }) => addLine("connected", `after ${cursor}`),
      });
    }
    let isFirst = true;
    inbox.subscribe((state) => {
      // Until something is listed, what is wrong stands where the list would be.
      showStatus(state.status, state.error, state.isLoading && !empty.hidden);
      if (state.isLoading) {
        if (state.error) empty.textContent = state.error.message;
        return;
      }
      showCounts(state);
      if (filter === "live") empty.textContent = "What happens from now on appears here.";
      if (ownList !== undefined) {
        // Whatever changes the inbox may change this list.
        reloadSoon();
      } else if (filter === "inbox") {
        const before = list.children.length;
        show(state.items, nothing);
        showMore(state.hasMore, before);
        if (isFirst) loadAgain();
        isFirst = false;
      }
    });
  });

  return () => {
    closed = true;
    clearTimeout(retrying);
    clearTimeout(soon);
    document.removeEventListener("visibilitychange", onShow);
    wasOpen = { user, asked, until: performance.now() };
    inbox?.close();
    stream?.close();
  };
}

/** Whether a user is online, with the time of the question. */
async function askPresence(user) {
  const { online } = await inTime(call("GET", `/v1/users/${part(user)}/presence`));
  return { online, at: new Date(now()).toISOString() };
}

/** What was so is shown with its age: from now on this page counts as a screen of the user. */
function showPresence(chip, { online, at }) {
  // One span: the parts of a chip are set apart.
  chip.replaceChildren(make("span", {}, ...(online ? ["online ", time(at)] : ["not online"])));
  chip.dataset.state = online ? "live" : "idle";
  chip.title = online ? "Another screen of this user was open when this page asked" : "No other screen of this user was open when this page asked. This page counts as one.";
}

/** The form that sends to the user. JSON is sent as it was typed: a parsed value would lose digits of large numbers. */
function sendForm(user) {
  const sent = make("p", { id: "sent", role: "status" });
  const text = make("textarea", { name: "text", required: true, rows: 5, placeholder: "Hello" });
  const send = make("button", { class: "primary" }, "Send");
  const form = make("form", { id: "send", "data-typed": "Send" },
    field("Type", line("type", { maxlength: 255, placeholder: "notification" })),
    field("Event key", line("key", { maxlength: 255, placeholder: "none" }), "replaces earlier ones with the same key"),
    field("Text or JSON", text),
    send, sent);
  if (restoreTyped(form)) sent.textContent = "What you typed before is still here.";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const typed = text.value;
    let payload = typed;
    let isText = false;
    try {
      JSON.parse(typed);
    } catch {
      payload = JSON.stringify({ message: typed });
      isText = true;
    }
    const { type, key } = form.elements;
    const rest = JSON.stringify({ user_id: user, type: type.value || undefined, key: key.value || undefined });
    try {
      send.disabled = true;
      unmark(form);
      const { id } = await postOnce("/v1/notifications", `${rest.slice(0, -1)},"payload":${payload}}`);
      sent.dataset.state = "done";
      sent.textContent = `Stored as ${id}${isText && /^\s*[{[]/.test(typed) ? ", as text: it looks like JSON, but is not valid" : ""}`;
      // What was typed meanwhile was not sent.
      if (text.value === typed) text.value = "";
    } catch (error) {
      sent.dataset.state = "failed";
      sent.textContent = pointTo(form, error)?.text ?? sentence(error.message);
    } finally {
      send.disabled = false;
      if (form.isConnected && document.activeElement === document.body) send.focus();
    }
  });
  return make("section", { class: "card narrow", "aria-labelledby": "send-title" }, make("h2", { id: "send-title" }, "Send"), form);
}
