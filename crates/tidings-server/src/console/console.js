// The console: one user's feed through a native EventSource, and a form to send.

/** Maximum number of entries on the page; the inbox has older ones. */
const MAX_ENTRIES = 200;

const element = (id) => document.getElementById(id);
const [status, feed, empty, unread, readAll, sent] =
  ["status", "feed", "empty", "unread", "read-all", "sent"].map(element);

/** What the page says when the server wants to know who calls. */
const NEEDS_CREDENTIAL = "this server requires an API key or a token: type it under Access";

/** The API key or the token, if one was typed. It is kept in memory only, and gone after a reload. */
let credential = "";

const headers = () => (credential ? { Authorization: `Bearer ${credential}` } : {});

let source = null;
let watched = null;

/** The routes of a user. `.` and `..` would vanish from a URL, and lead to another route. */
function routesOf(user) {
  if (user === "." || user === "..") {
    throw new Error("expected a name other than `.` and `..`");
  }
  return `/v1/users/${encodeURIComponent(user)}`;
}

const inboxOf = (user) => `${routesOf(user)}/notifications`;

function setStatus(state, text) {
  status.dataset.state = state;
  status.textContent = text;
}

/** Calls the server and returns its JSON, read and as text; an error response becomes an Error with its message. */
async function call(path, body) {
  const options = body === undefined ? {} : { method: "POST", body };
  const response = await fetch(path, { ...options, headers: headers() }).catch(() => {
    throw new Error("the server does not reply");
  });
  if (response.status === 401 && !credential) throw new Error(NEEDS_CREDENTIAL);
  const text = await response.text().catch(() => "");
  let reply;
  try {
    reply = JSON.parse(text);
  } catch {
    throw new Error(`the reply has the status ${response.status} and is not from Tidings`);
  }
  if (!response.ok) {
    const { field, message } = reply.error;
    throw new Error(field ? `${field}: ${message}` : message);
  }
  return { reply, text };
}

/** The items of a JSON array, or the members of an object, as the server wrote them. */
function partsOf(text) {
  const parts = [];
  let depth = 0;
  let isString = false;
  let start = 1;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (isString) {
      if (character === "\\") at += 1;
      else isString = character !== '"';
    } else if (character === '"') {
      isString = true;
    } else if (character === "{" || character === "[") {
      depth += 1;
    } else if (character === "}" || character === "]") {
      depth -= 1;
    }
    const isEnd = depth === 0 || (depth === 1 && character === "," && !isString);
    if (isEnd && at > start) {
      parts.push(text.slice(start, at));
      start = at + 1;
    }
  }
  return parts;
}

/** The text of one member of an object. */
function memberOf(text, name) {
  const begin = `"${name}":`;
  return partsOf(text).find((part) => part.startsWith(begin)).slice(begin.length);
}

/**
 * Reads a notification. Its payload stays the text that was stored: a parsed value would lose digits of large
 * numbers, the order of keys and the escapes.
 */
function notificationOf(text) {
  return { ...JSON.parse(text), payload: memberOf(text, "payload") };
}

/** What is shown of a payload: the message if it has nothing else, otherwise the payload as it was stored. */
function textOf(payload) {
  const value = JSON.parse(payload);
  const keys = value && Object.keys(value);
  return keys?.length === 1 && typeof value.message === "string" ? value.message : payload;
}

function showUnread(count) {
  unread.hidden = readAll.hidden = count === 0;
  unread.textContent = `${count} unread`;
}

/** Fetches the exact count, at most one request at a time. */
let asking = false;
let askAgain = false;
async function refreshUnread() {
  if (asking) {
    askAgain = true;
    return;
  }
  asking = true;
  const user = watched;
  await attempt(async () => {
    const { reply } = await call(`${inboxOf(user)}/unread-count`);
    if (watched === user) showUnread(reply.unread);
  });
  asking = false;
  if (askAgain) {
    askAgain = false;
    refreshUnread();
  }
}

function addEntry(entry) {
  empty.hidden = true;
  feed.prepend(entry);
  while (feed.children.length > MAX_ENTRIES) feed.lastElementChild.remove();
}

function make(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function entryOf(notification) {
  const entry = document.createElement("li");
  entry.dataset.id = notification.id;
  if (notification.key !== null) entry.dataset.key = notification.key;
  const head = make("div", "head", "");
  const time = make("time", "", new Date(notification.timestamp).toLocaleString());
  time.dateTime = notification.timestamp;
  head.append(make("span", "type", notification.type), time);
  entry.append(head, make("pre", "", textOf(notification.payload)));
  if (notification.read_at === null) {
    entry.className = "unread";
    const read = make("button", "quiet", "Mark read");
    read.type = "button";
    const path = `${inboxOf(notification.user_id)}/${notification.id}/read`;
    read.addEventListener("click", () => attempt(() => call(path, "")));
    head.append(read);
  }
  return entry;
}

/** Unmarks entries that were read, here or on another screen. */
function markRead(isRead) {
  for (const entry of feed.querySelectorAll(".unread")) {
    if (isRead(entry.dataset.id)) {
      entry.classList.remove("unread");
      entry.querySelector("button").remove();
    }
  }
}

/** Removes entries that were archived, or replaced by a notification with their key. */
function removeEntries(isGone) {
  for (const entry of [...feed.children]) if (isGone(entry)) entry.remove();
}

function showChange({ change, ids, up_to: upTo, unread: count }) {
  showUnread(count);
  const seq = (id) => Number(id.split("-")[1]);
  if (change === "read") {
    markRead((id) => (ids ? ids.includes(id) : seq(id) <= seq(upTo)));
  } else if (change === "archived") {
    removeEntries((entry) => ids.includes(entry.dataset.id));
  } else if (change !== "seen" && change !== "replaced") {
    // Entries come back, or it is unknown what changed.
    attempt(() => watch(watched));
  }
}

/**
 * A stream with the credential in a header, which an EventSource cannot send: in its URL, a proxy might log it.
 * It looks like an EventSource that does not reconnect by itself.
 */
class HeaderStream extends EventTarget {
  #abort = new AbortController();
  readyState = EventSource.CONNECTING;

  constructor(path) {
    super();
    this.#run(path).catch(() => {}).finally(() => {
      const isWanted = !this.#abort.signal.aborted;
      this.readyState = EventSource.CLOSED;
      if (isWanted) this.onerror({ target: this });
    });
  }

  close() {
    this.#abort.abort();
  }

  async #run(path) {
    const response = await fetch(path, { headers: headers(), signal: this.#abort.signal });
    if (!response.ok) return;
    this.readyState = EventSource.OPEN;
    this.onopen();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (text + value).split("\n\n");
      text = events.pop();
      for (const event of events) this.#dispatch(event.split("\n"));
    }
  }

  #dispatch(lines) {
    const field = (name) => {
      const found = lines.filter((line) => line.startsWith(`${name}: `));
      return found.map((line) => line.slice(name.length + 2)).join("\n");
    };
    const data = field("data");
    if (!data) return;
    const type = field("event");
    if (type) this.dispatchEvent(new MessageEvent(type, { data }));
    else this.onmessage({ data });
  }
}

/** Counts the calls of watch: only the newest may open a stream. */
let generation = 0;

async function watch(user) {
  const current = ++generation;
  source?.close();
  if (watched !== user) {
    // What is shown belongs to the user before.
    feed.replaceChildren();
    showUnread(0);
    empty.hidden = false;
    empty.textContent = `The notifications of ${user} appear here, newest first.`;
  }
  watched = user;
  setStatus("waiting", "connecting");
  const { reply: inbox, text } = await call(`${inboxOf(user)}?limit=50`);
  if (current !== generation) return;
  feed.replaceChildren();
  empty.hidden = inbox.data.length > 0;
  empty.textContent = `Nothing has been sent to ${user} yet.`;
  for (const item of partsOf(memberOf(text, "data")).toReversed()) addEntry(entryOf(notificationOf(item)));
  showUnread(inbox.unread);

  // The stream continues right after the page of the inbox, so that nothing is lost between them.
  const { cursor } = inbox;
  const path = `${routesOf(user)}/events?last_event_id=${cursor}`;
  source = credential ? new HeaderStream(path) : new EventSource(path);
  source.onopen = () => setStatus("live", `watching ${user}`);
  source.onerror = ({ target }) => {
    setStatus("waiting", "reconnecting");
    if (target.readyState === EventSource.CLOSED) watchLater(user, current);
  };
  source.onmessage = ({ data }) => {
    const entry = entryOf(notificationOf(data));
    const { key } = entry.dataset;
    if (key !== undefined) removeEntries(({ dataset }) => dataset.key === key);
    addEntry(entry);
    refreshUnread();
  };
  source.addEventListener("tidings.hello", ({ data }) => showUnread(JSON.parse(data).unread));
  source.addEventListener("tidings.changed", ({ data }) => showChange(JSON.parse(data)));
  source.addEventListener("tidings.gap", ({ data }) => {
    const { reason } = JSON.parse(data);
    addEntry(make("li", "gap", `Some notifications are missing here (${reason}).`));
  });
}

/**
 * Watches again after a moment, unless another user is watched by then. An EventSource does not
 * reconnect after a status other than 200, such as the 502 of a proxy while the server restarts.
 */
function watchLater(user, before) {
  setTimeout(async () => {
    if (before !== generation) return;
    try {
      await watch(user);
    } catch (error) {
      setStatus("failed", error.message);
      watchLater(user, generation);
    }
  }, 2000);
}

/** Runs an action, and shows the error if it fails. */
async function attempt(action) {
  try {
    await action();
  } catch (error) {
    setStatus("failed", error.message);
  }
}

readAll.addEventListener("click", () => attempt(() => call(`${inboxOf(watched)}/read-all`, "")));

element("send").addEventListener("submit", async (event) => {
  event.preventDefault();
  const { to, type, text } = event.target.elements;
  // JSON is sent as it was typed: a parsed value would lose digits of large numbers.
  let payload = text.value;
  try {
    JSON.parse(payload);
  } catch {
    payload = JSON.stringify({ message: payload });
  }
  try {
    const rest = JSON.stringify({ user_id: to.value, type: type.value || undefined });
    const { reply } = await call("/v1/notifications", `${rest.slice(0, -1)},"payload":${payload}}`);
    sent.dataset.state = "done";
    sent.textContent = `Stored as ${reply.id}`;
    text.value = "";
  } catch (error) {
    sent.dataset.state = "failed";
    sent.textContent = error.message;
  }
});

/** The address names the watched user, so that a reload or a bookmark shows the same user. */
function watchAddress() {
  attempt(async () => {
    const user = decodeURIComponent(location.hash.slice(1));
    if (!user) return;
    element("watch").elements.user.value = user;
    // It follows the watched user, unless another one was typed.
    const { to } = element("send").elements;
    if (to.value === "" || to.value === watched) to.value = user;
    await watch(user);
  });
}

element("watch").addEventListener("submit", (event) => {
  event.preventDefault();
  const hash = `#${encodeURIComponent(event.target.elements.user.value)}`;
  if (location.hash === hash) watchAddress();
  else location.hash = hash;
});

element("access").addEventListener("submit", (event) => {
  event.preventDefault();
  credential = event.target.elements.credential.value.trim();
  if (location.hash.length > 1) watchAddress();
  else setStatus("idle", credential ? "the next requests are sent with it" : "not watching");
});

addEventListener("hashchange", watchAddress);
watchAddress();
