/** The texts of `<tidings-inbox>`. */
export interface Labels {
  notifications: string;
  /** For screen readers, beside the bell. */
  unseen(count: number): string;
  markAllRead: string;
  markRead: string;
  markUnread: string;
  archive: string;
  archived: string;
  undo: string;
  close: string;
  loadMore: string;
  loading: string;
  unread: string;
  /** How long ago: less than a minute. */
  now: string;
  empty: string;
  emptyHint: string;
  /** For screen readers, when a notification arrives. */
  arrived(title: string): string;
  /** When several arrive together. */
  arrivedMany(count: number): string;
  /** The list is there, and the stream has never been. */
  connecting: string;
  reconnecting: string;
  unreachable: string;
  signedOut: string;
  forbidden: string;
  tooManyRequests: string;
  failed: string;
  retry: string;
  /** While it does what a person has asked for with `retry`. */
  trying: string;
  /** The action of a person was not carried out, and was undone. */
  notDone: string;
  /** Notifications are missing, after a very long absence. */
  gap: string;
}

export const ENGLISH: Labels = {
  notifications: "Notifications",
  unseen: (count) => (count === 0 ? "no new ones" : `${count} new`),
  markAllRead: "Mark all as read",
  markRead: "Mark as read",
  markUnread: "Mark as unread",
  archive: "Archive",
  archived: "Archived.",
  undo: "Undo",
  close: "Close",
  loadMore: "Show older",
  loading: "Loading",
  unread: "Unread.",
  now: "now",
  empty: "You are up to date",
  emptyHint: "New notifications appear here.",
  arrived: (title) => `New notification: ${title}`,
  arrivedMany: (count) => `${count} new notifications`,
  connecting: "Connecting. The list may be out of date.",
  reconnecting: "Connecting again. The list may be out of date.",
  unreachable: "The notifications cannot be loaded at the moment. The next try follows soon.",
  signedOut: "You are signed out. Sign in again to see your notifications.",
  forbidden: "These notifications are not yours to see.",
  tooManyRequests: "Too many requests. The next try follows soon.",
  failed: "The notifications cannot be loaded.",
  retry: "Try again",
  trying: "Trying …",
  notDone: "That did not work. Please try again.",
  gap: "Some older notifications are no longer kept.",
};
