// Random histories of an inbox against a model of the server: what is delivered late, twice, or in another order than
// it was committed, as the server may do it, must end in what the server has.

import assert from "node:assert/strict";
import { test } from "node:test";
import { Inbox, TidingsError } from "./support.mjs";

/** Numbers that are the same for a seed. */
function random(seed) {
  let state = seed * 2654435761 + 1;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 2246822519) + 374761393) | 0;
    return ((state ^ (state >>> 13)) >>> 0) % below;
  };
}

const id = (seq) => `00000000000000aa-${seq}`;
const seqOf = (id) => Number(id.split("-")[1]);

/** The log of a user, and a connection to it. */
class Model {
  events = [];
  #seen = 0;
  #pick;
  /** What the connection has not delivered yet. */
  #changes = [];
  #delivered = 0;
  #handlers;
  #isConnected = false;
  /** Requests whose place in the history, or whose response, is to come. */
  #waiting = [];

  constructor(pick) {
    this.#pick = pick;
  }

  get counts() {
    const unread = this.events.filter(({ read, archived }) => !read && !archived);
    return { unread: unread.length, unseen: unread.filter(({ seq }) => seq > this.#seen).length, cursor: id(this.events.length) };
  }

  page({ limit = 50, cursor }) {
    const before = cursor === undefined ? Infinity : seqOf(cursor);
    const all = this.events.filter(({ seq, archived }) => seq < before && !archived).toReversed();
    const data = all.slice(0, limit).map((event) => this.#notification(event));
    return { data, next: all.length > data.length ? data.at(-1).id : null, ...this.counts };
  }

  /** A page that may end early, as those of a server do if payloads are large. */
  #somePage({ limit, cursor }) {
    return this.page({ limit: this.#pick(4) === 0 ? Math.ceil(limit / 2) : limit, cursor });
  }

  #notification({ seq, read, archived, key }) {
    const at = "2026-11-21T10:00:00Z";
    return { id: id(seq), user_id: "anna", type: "t", payload: seq, payload_text: String(seq), timestamp: at, read_at: read ? at : null, archived_at: archived ? at : null, key };
  }

  #changed(change, more) {
    const isElsewhere = this.#pick(8) === 0;
    if (this.#isConnected) this.#changes.push({ ...(isElsewhere ? { change: "unknown" } : { change, ...more }), ...this.counts });
  }

  append(key) {
    const seq = this.events.length + 1;
    const replaced = key === null ? [] : this.events.filter((event) => event.key === key && !event.archived);
    for (const event of replaced) event.archived = true;
    this.events.push({ seq, read: false, archived: false, key });
    if (key !== null) this.#changed("replaced", {});
  }

  change(name, upTo) {
    const seq = upTo === undefined ? this.events.length : seqOf(upTo);
    const event = this.events[seq - 1];
    const set = (field, value, change) => {
      if (event === undefined) throw new TidingsError("unknown", { code: "not_found", status: 404 });
      if (event[field] === value) return;
      event[field] = value;
      this.#changed(change, { ids: [id(seq)] });
    };
    if (name === "markRead") set("read", true, "read");
    else if (name === "markUnread") set("read", false, "unread");
    else if (name === "archive") set("archived", true, "archived");
    else if (name === "unarchive") set("archived", false, "unarchived");
    else if (name === "markSeen") {
      if (seq <= this.#seen) return this.counts;
      this.#seen = seq;
      this.#changed("seen", { up_to: id(seq) });
    } else {
      const unread = this.events.filter((event) => event.seq <= seq && !event.read && !event.archived);
      if (unread.length === 0) return this.counts;
      for (const event of unread) event.read = true;
      this.#changed("read", { up_to: id(seq) });
    }
    return this.counts;
  }

  /** What the inbox uses. */
  client() {
    const request = (act) => new Promise((resolve, reject) => this.#waiting.push({ act, resolve, reject }));
    const changes = ["markRead", "markUnread", "archive", "unarchive", "markSeen", "markAllRead"];
    const actions = changes.map((name) => [name, (upTo) => request(() => this.#refuseOr(() => this.change(name, upTo)))]);
    return {
      ...Object.fromEntries(actions),
      list: (query) => request(() => this.#somePage(query)),
      stream: (handlers) => {
        this.#handlers = handlers;
        return { close() {} };
      },
    };
  }

  #refuseOr(act) {
    if (this.#pick(6) === 0) throw new TidingsError("refused", { code: "forbidden", status: 403 });
    return act();
  }

  connect() {
    // A new connection repeats events, and no changes.
    this.#changes = [];
    this.#isConnected = true;
    this.#handlers.onHello({});
  }

  get isBusy() {
    return this.#waiting.length > 0 || this.#changes.length > 0 || this.#delivered < this.events.length;
  }

  /** Delivers something. A change waits for the events that its counts include, and may come after later ones. */
  deliver() {
    const [change] = this.#changes;
    const canChange = change !== undefined && seqOf(change.cursor) <= this.#delivered;
    const canEvent = this.#delivered < this.events.length;
    if (!this.#isConnected || (!canChange && !canEvent)) return;
    if (canChange && (!canEvent || this.#pick(2) === 0)) {
      this.#changes.shift();
      this.#handlers.onChange(change);
    } else {
      const event = this.events[this.#delivered];
      this.#delivered += 1;
      // A copy may be of the time when it was appended, or have what was set since.
      const copy = this.#pick(2) === 0 || this.#changes.length === 0 ? event : { ...event, read: false, archived: false };
      this.#handlers.onNotification(this.#notification(copy));
    }
  }

  /** A request gets its place in the history, or one that had it gets its response. */
  reply() {
    if (this.#waiting.length === 0) return;
    const index = this.#pick(this.#waiting.length);
    const request = this.#waiting[index];
    if (request.outcome === undefined) {
      try {
        const value = request.act();
        request.outcome = () => request.resolve(value);
      } catch (error) {
        request.outcome = () => request.reject(error);
      }
      return;
    }
    this.#waiting.splice(index, 1);
    request.outcome();
  }
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

async function history(seed, timers) {
  const pick = random(seed);
  const model = new Model(pick);
  const limit = [3, 10, 1000][pick(3)];
  const inbox = new Inbox(model.client(), { limit });
  const trail = [];
  const anyId = () => id(1 + pick(Math.max(1, model.events.length)));
  const names = ["markRead", "markUnread", "archive", "unarchive", "markSeen", "markAllRead"];
  model.connect();
  const steps = [
    () => model.append(pick(3) === 0 ? `key-${pick(2)}` : null),
    () => model.events.length > 0 && model.change(names[pick(6)], anyId()),
    () => {
      const name = names[pick(6)];
      inbox[name](anyId()).catch(() => {});
      trail.push(name);
    },
    () => model.deliver(),
    () => model.deliver(),
    () => model.reply(),
    () => model.reply(),
    () => pick(10) === 0 && model.connect(),
    () => pick(3) === 0 && inbox.loadMore().catch(() => {}),
  ];
  for (let step = 0; step < 120; step += 1) {
    const index = pick(steps.length);
    trail.push(index);
    steps[index]();
    if (pick(2) === 0) await settle();
  }
  const rest = async () => {
    await settle();
    for (let turns = 0; model.isBusy; turns += 1) {
      assert.ok(turns < 10_000, `seed ${seed} does not come to rest`);
      model.deliver();
      model.reply();
      await settle();
    }
  };
  await rest();
  // An action without a report makes the inbox load its list after a while.
  timers.tick(3000);
  await rest();
  const { items, unread, unseen, hasMore } = inbox.state;
  const shape = (list) => list.map(({ id, read_at: readAt }) => [id, readAt !== null]);
  const all = model.page({ limit: 1000 });
  const message = `seed ${seed}, limit ${limit}: ${trail.join(" ")}`;
  inbox.close();
  assert.deepEqual({ items: shape(items), unread, unseen }, { items: shape(all.data.slice(0, items.length)), unread: all.unread, unseen: all.unseen }, message);
  assert.ok(hasMore || items.length === all.data.length, message);
}

test("random histories end in what the server has", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const first = Number(process.env.TIDINGS_SEED ?? 1);
  const count = Number(process.env.TIDINGS_HISTORIES ?? 500);
  for (let seed = first; seed < first + count; seed += 1) await history(seed, t.mock.timers);
});
