// The documents of the server, as docs/http.md describes them. A server may add fields.

import type { EventId } from "./ids.js";
import { elementTexts, memberText } from "./json.js";

/** A notification. `Payload` is the type of its payload: the server does not check it. */
export interface Notification<Payload = unknown> {
  readonly id: EventId;
  readonly user_id: string;
  readonly type: string;
  /** The payload as `JSON.parse` reads it: numbers beyond 2^53 and most long fractions are rounded. */
  readonly payload: Payload;
  /** The payload as the server keeps it: every digit, and the order of the members. */
  readonly payload_text: string;
  /** RFC 3339. */
  readonly timestamp: string;
  /** RFC 3339; `null` while it is unread. An {@link Inbox} sets it to the time of this machine until it loads again. */
  readonly read_at: string | null;
  /** RFC 3339; `null` while it is in the inbox. */
  readonly archived_at: string | null;
  /** The event key. */
  readonly key: string | null;
}

/** How many notifications of the whole inbox are unread and unseen, and the newest event that is counted. */
export interface Counts {
  readonly unread: number;
  readonly unseen: number;
  readonly cursor: EventId;
}

/** A page of the inbox, newest first. */
export interface Page<Payload = unknown> extends Counts {
  readonly data: readonly Notification<Payload>[];
  /** The `cursor` of the next page; `null` on the last. */
  readonly next: EventId | null;
}

/** Which notifications a page has. */
export interface Query {
  /** 1 to 1000; default 50. */
  limit?: number;
  /** The `next` of the page before. */
  cursor?: EventId;
  /** Only unread notifications. */
  unread?: boolean;
  /** Only archived notifications, instead of those that are not. */
  archived?: boolean;
  /** Only notifications of this type. */
  type?: string;
}

/** First on every connection. */
export interface Hello {
  readonly user_id: string;
  /** The stream gives what comes after this event. */
  readonly cursor: EventId;
  readonly ping_interval_ms: number;
}

/** The backlog is over. */
export interface CaughtUp {
  readonly cursor: EventId;
}

/** Events are missing after the cursor `from`. The stream continues after `to`. */
export interface Gap {
  readonly from: EventId | null;
  readonly to: EventId;
  readonly reason: "invalid" | "unknown_epoch" | "expired" | "ahead" | (string & {});
}

/** The inbox was changed: the notifications in `ids`, or all up to `up_to`. */
export interface Change extends Counts {
  readonly change: "read" | "unread" | "archived" | "unarchived" | "seen" | "replaced" | "unknown" | (string & {});
  readonly ids?: readonly EventId[];
  readonly up_to?: EventId;
}

/** Last on a connection that the server ends. */
export interface Bye {
  readonly code: number;
  readonly reason: string;
  readonly reconnect_after_ms: number;
}

/** What a connection sends: the name of the document, and its JSON. */
export interface Frame {
  readonly event: string;
  readonly text: string;
}

/** Reads a hello. The counts in it are those of the whole log, and not of `cursor`, so they are left out. */
export function helloOf(text: string): Hello {
  const { user_id, cursor, ping_interval_ms } = JSON.parse(text) as Hello;
  return { user_id, cursor, ping_interval_ms };
}

/** Reads a notification, and keeps the text of its payload. */
export function notificationOf(text: string): Notification {
  return { ...(JSON.parse(text) as Notification), payload_text: memberText(text, "payload") ?? "null" };
}

/** Reads counts. Throws a TypeError if the text is other JSON, and a SyntaxError if it is none. */
export function countsOf<T extends Counts>(text: string): T {
  const counts = JSON.parse(text) as Partial<T> | null;
  const isOurs = typeof counts?.unread === "number" && typeof counts.unseen === "number" && typeof counts.cursor === "string";
  if (!isOurs) throw new TypeError("expected counts");
  return counts as T;
}

/** Reads a page of the inbox, and keeps the text of each payload. Throws as {@link countsOf}. */
export function pageOf(text: string): Page {
  const { data, ...rest } = countsOf<Page>(text);
  if (!Array.isArray(data)) throw new TypeError("expected a page");
  return { ...rest, data: elementTexts(memberText(text, "data") ?? "[]").map(notificationOf) };
}
