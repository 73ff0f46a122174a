// The inbox as data: what it is after a notification, a change, or an action of this screen. Nothing here has
// effects, and no value is changed in place.

import { compareIds, isAfter, isUpTo, type EventId } from "./ids.js";
import type { Change, Notification, Page } from "./wire.js";

/** The newest notifications of an inbox, without holes, and the counts of the whole inbox. */
export interface Contents<Payload = unknown> {
  /** Newest first. */
  readonly items: readonly Notification<Payload>[];
  readonly unread: number;
  readonly unseen: number;
  /** The last event that was taken in. */
  readonly cursor: EventId;
  /** The newest event of the counts that the server sent last. Those after it were counted here. */
  readonly counted: EventId;
  /** The cursor of the page after `items`; `null` if there is none. */
  readonly next: EventId | null;
}

/** What a person does. */
export type Action =
  | { readonly kind: "read" | "unread" | "archive"; readonly id: EventId }
  | { readonly kind: "unarchive"; readonly id: EventId; readonly item: Notification | undefined }
  | { readonly kind: "read-all" | "seen"; readonly upTo: EventId };

/** The contents as a page says. */
export function ofPage<P>({ data, unread, unseen, cursor, next }: Page<P>): Contents<P> {
  return { items: data, unread, unseen, cursor, counted: cursor, next };
}

const isUnread = ({ read_at }: Notification) => read_at === null;

/** The unseen items: the newest unread ones, of which there are `unseen`. */
function unseenOf<P>({ items, unseen }: Contents<P>): Set<Notification<P>> {
  return new Set(items.filter(isUnread).slice(0, unseen));
}

/** The contents with other items, whose unread ones are counted. */
function without<P>(contents: Contents<P>, isGone: (item: Notification<P>) => boolean): Contents<P> {
  const gone = contents.items.filter(isGone);
  if (gone.length === 0) return contents;
  const unseen = unseenOf(contents);
  return {
    ...contents,
    items: contents.items.filter((item) => !isGone(item)),
    unread: Math.max(0, contents.unread - gone.filter(isUnread).length),
    unseen: Math.max(0, contents.unseen - gone.filter((item) => unseen.has(item)).length),
  };
}

function withReadState<P>(contents: Contents<P>, isMarked: (item: Notification<P>) => boolean, at: string | null): Contents<P> {
  const changes = (item: Notification<P>) => isMarked(item) && isUnread(item) === (at !== null);
  const marked = contents.items.filter(changes);
  if (marked.length === 0) return contents;
  const items = contents.items.map((item) => (changes(item) ? { ...item, read_at: at } : item));
  if (at === null) return { ...contents, items, unread: contents.unread + marked.length };
  const unseen = unseenOf(contents);
  return {
    ...contents,
    items,
    unread: Math.max(0, contents.unread - marked.length),
    unseen: Math.max(0, contents.unseen - marked.filter((item) => unseen.has(item)).length),
  };
}

function withItem<P>(contents: Contents<P>, item: Notification<P>): Contents<P> {
  const { items, next } = contents;
  if (items.some(({ id }) => id === item.id)) return contents;
  // It belongs to a page that was not loaded.
  if (next !== null && isUpTo(item.id, next)) return contents;
  const at = items.findIndex(({ id }) => isAfter(item.id, id));
  const index = at < 0 ? items.length : at;
  return { ...contents, items: [...items.slice(0, index), item, ...items.slice(index)] };
}

/** The contents after a notification; `undefined` if it is of another log, so that the list must be loaded again. */
export function afterNotification<P>(contents: Contents<P>, notification: Notification<P>): Contents<P> | undefined {
  const order = compareIds(notification.id, contents.cursor);
  if (order === undefined) return undefined;
  // It was in the page.
  if (order <= 0) return contents;
  const { key, id } = notification;
  const replaced = key === null ? contents : without(contents, (item) => item.key === key);
  const isListed = notification.archived_at === null;
  const listed = { ...replaced, cursor: id, items: isListed ? [notification, ...replaced.items] : replaced.items };
  // A change has counted it already.
  if (isUpTo(id, contents.counted)) return { ...listed, unread: contents.unread, unseen: contents.unseen };
  const added = isListed && isUnread(notification) ? 1 : 0;
  return { ...listed, unread: replaced.unread + added, unseen: replaced.unseen + added };
}

/**
 * The contents with the items of the next page, which was requested before `since` happened: what happened is applied
 * to the new items. `undefined` if the list must be loaded again.
 */
export function withNextPage<P>(
  contents: Contents<P>,
  page: Page<P>,
  since: readonly (Notification<P> | Change)[],
  at: string,
): Contents<P> | undefined {
  let older: Contents<P> | undefined = ofPage(page);
  for (const happened of since) {
    if ("change" in happened) older = afterChange(older, happened, at, () => undefined);
    else if (happened.key !== null && isAfter(happened.id, page.cursor)) older = without(older, ({ key }) => key === happened.key);
    if (older === undefined) return undefined;
  }
  return { ...contents, items: [...contents.items, ...older.items], next: page.next };
}

/** The contents with at most `max` items. The others belong to the next page again. */
export function trimmed<P>(contents: Contents<P>, max: number): Contents<P> {
  const { items } = contents;
  const last = items[max - 1];
  if (items.length <= max || last === undefined) return contents;
  return { ...contents, items: items.slice(0, max), next: last.id };
}

/**
 * The contents after a change of the inbox. `at` is the time for what is read now. `undefined` if the list must be
 * loaded again, because the change does not say what was changed, or because `known` does not have the item.
 */
export function afterChange<P>(
  contents: Contents<P>,
  change: Change,
  at: string,
  known: (id: EventId) => Notification<P> | undefined,
): Contents<P> | undefined {
  const order = compareIds(change.cursor, contents.counted);
  if (order === undefined) return undefined;
  // The log has grown between the change and the page, so the page has it.
  if (order < 0) return contents;
  const changed = itemsAfter(contents, change, at, known);
  if (changed === undefined) return undefined;
  // The counts of the change do not include what came after its cursor.
  const later = changed.items.filter((item) => isUnread(item) && isAfter(item.id, change.cursor)).length;
  return { ...changed, unread: change.unread + later, unseen: change.unseen + later, counted: change.cursor };
}

function itemsAfter<P>(
  contents: Contents<P>,
  change: Change,
  at: string,
  known: (id: EventId) => Notification<P> | undefined,
): Contents<P> | undefined {
  const ids = new Set(change.ids);
  const { up_to: upTo } = change;
  const isNamed = ({ id }: Notification) => ids.has(id);
  switch (change.change) {
    case "read":
      return withReadState(contents, upTo === undefined ? isNamed : ({ id }) => isUpTo(id, upTo), at);
    case "unread":
      return withReadState(contents, isNamed, null);
    case "archived":
      return without(contents, isNamed);
    case "unarchived": {
      // An item that is there already is of a list that is newer than this change. An "all read" from before it, which
      // did not include the archived item, may have been applied to it.
      if (contents.items.some(isNamed)) return undefined;
      return [...ids].reduce<Contents<P> | undefined>((sum, id) => {
        const item = known(id);
        // One with a key may have been replaced again.
        return sum && item?.key === null ? withItem(sum, { ...item, archived_at: null }) : undefined;
      }, contents);
    }
    case "seen":
    case "replaced":
      return contents;
    default:
      return undefined;
  }
}

/** The contents as they will be if an action succeeds. */
export function afterAction<P>(contents: Contents<P>, action: Action, at: string): Contents<P> {
  switch (action.kind) {
    case "read":
      return withReadState(contents, ({ id }) => id === action.id, at);
    case "unread":
      return withReadState(contents, ({ id }) => id === action.id, null);
    case "archive":
      return without(contents, ({ id }) => id === action.id);
    case "unarchive": {
      const item = action.item as Notification<P> | undefined;
      if (item === undefined) return contents;
      const listed = withItem(contents, { ...item, archived_at: null });
      return isUnread(item) && listed !== contents ? { ...listed, unread: listed.unread + 1 } : listed;
    }
    case "read-all":
    case "seen": {
      const oldest = contents.items.at(-1);
      // So many have come since that it is not known how many.
      if (contents.next !== null && oldest !== undefined && isAfter(oldest.id, action.upTo)) return contents;
      const later = contents.items.filter((item) => isUnread(item) && isAfter(item.id, action.upTo)).length;
      const unseen = Math.min(contents.unseen, later);
      if (action.kind === "seen") return { ...contents, unseen };
      const read = withReadState(contents, ({ id }) => isUpTo(id, action.upTo), at);
      return { ...read, unread: later, unseen };
    }
  }
}

/** Whether the order of two actions matters. */
export function isOrdered(one: Action, other: Action): boolean {
  if (one.kind === "seen" || other.kind === "seen") return false;
  return !("id" in one) || !("id" in other) || one.id === other.id;
}

/** Whether a change says which notifications were changed. */
export function saysWhat({ change, ids, up_to: upTo }: Change): boolean {
  return ids !== undefined || upTo !== undefined || change === "replaced";
}

/** Whether a change is about what an action is about. */
export function concerns({ ids, up_to: upTo }: Change, action: Action): boolean {
  if (!("id" in action)) return true;
  return ids?.includes(action.id) === true || (upTo !== undefined && isUpTo(action.id, upTo));
}

/** Whether a change carries out an action, or does at least as much. */
export function carriesOut(change: Change, action: Action): boolean {
  const { change: name, up_to: upTo, ids } = change;
  switch (action.kind) {
    case "read":
      return name === "read" && (ids?.includes(action.id) === true || (upTo !== undefined && isUpTo(action.id, upTo)));
    case "unread":
      return name === "unread" && ids?.includes(action.id) === true;
    case "archive":
      return name === "archived" && ids?.includes(action.id) === true;
    case "unarchive":
      return name === "unarchived" && ids?.includes(action.id) === true;
    case "read-all":
      return name === "read" && upTo !== undefined && isUpTo(action.upTo, upTo);
    case "seen":
      return name === "seen" && upTo !== undefined && isUpTo(action.upTo, upTo);
  }
}
