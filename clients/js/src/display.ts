import { memberText } from "./json.js";
import type { Notification } from "./wire.js";

/** A link of a notification. */
export interface Action {
  label: string;
  url: string;
}

/** What people are shown of a notification. Each text is plain text, each URL is safe to follow. */
export interface Display {
  title: string;
  body: string | undefined;
  url: string | undefined;
  /** An image, or one or two characters such as an emoji. */
  icon: { url: string } | { text: string } | undefined;
  actions: Action[];
  /** There was nothing to read: the title is the type, and the body the payload. */
  isRaw: boolean;
}

const MAX_ACTIONS = 3;
/** A longer text is cut: nobody reads more of it in a list. */
const MAX_TEXT = 2000;

/** The address if it is one of the web or of mail: not `javascript:`, `data:` and others that could run code. */
function safeUrl(value: unknown, base: string): string | undefined {
  if (typeof value !== "string" || value.trim() === "") return undefined;
  try {
    const url = new URL(value, base);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : undefined;
  } catch {
    return undefined;
  }
}

function text(value: unknown): string | undefined {
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (typeof value !== "string") return undefined;
  const trimmed = value.trim();
  if (trimmed === "") return undefined;
  return trimmed.length > MAX_TEXT ? `${trimmed.slice(0, MAX_TEXT)}…` : trimmed;
}

function iconOf(value: unknown, base: string): Display["icon"] {
  const icon = text(value);
  if (icon === undefined) return undefined;
  if (/^(https?:|\/|\.)/i.test(icon)) {
    const url = safeUrl(icon, base);
    return url === undefined ? undefined : { url };
  }
  // An emoji may have many code units, and no letter or digit.
  const isShort = [...icon].length <= 2 || (icon.length <= 16 && !/[\p{L}\p{N}]/u.test(icon));
  return isShort ? { text: icon } : undefined;
}

/**
 * What a notification shows by the conventions for payloads: title, body or message, url, icon, actions. Relative addresses
 * are those of the page, or of `base`. With `about:blank`, and by default where there is no page, as in Node and in workers,
 * they are left out.
 */
export function displayOf({ payload, payload_text: payloadText, type }: Notification, base = pageAddress()): Display {
  const isObject = typeof payload === "object" && payload !== null && !Array.isArray(payload);
  const fields: Record<string, unknown> = isObject ? (payload as Record<string, unknown>) : {};
  // A large number is exact only as text.
  const member = (name: string) => (typeof fields[name] === "number" ? memberText(payloadText, name) : text(fields[name]));
  const title = member("title");
  const body = member("body") ?? member("message") ?? member("text");
  const shown = {
    url: safeUrl(fields["url"], base),
    icon: iconOf(fields["icon"], base),
    actions: actionsOf(fields["actions"], base),
    isRaw: false,
  };
  if (title !== undefined) return { title, body, ...shown };
  if (body !== undefined) return { title: body, body: undefined, ...shown };
  const whole = typeof payload === "string" ? text(payload) : undefined;
  if (whole !== undefined) return { title: whole, body: undefined, ...shown };
  // Nothing to read: the type says what happened, and the payload is shown as it is.
  return { title: type, body: payload === null ? undefined : text(payloadText), ...shown, isRaw: true };
}

function actionsOf(value: unknown, base: string): Action[] {
  if (!Array.isArray(value)) return [];
  const actions = value.flatMap((action: unknown) => {
    const { label, url } = (action ?? {}) as { label?: unknown; url?: unknown };
    const [shown, safe] = [text(label), safeUrl(url, base)];
    return shown !== undefined && safe !== undefined ? [{ label: shown, url: safe }] : [];
  });
  return actions.slice(0, MAX_ACTIONS);
}

function pageAddress(): string {
  return typeof document === "undefined" ? "about:blank" : document.baseURI;
}

/** The language of the page; `undefined`, which is that of the browser, if the page has none or one that does not exist. */
export function pageLanguage(): string | undefined {
  try {
    return Intl.getCanonicalLocales(document.documentElement.lang)[0];
  } catch {
    // `en_US`, for instance, is not well-formed.
    return undefined;
  }
}

const DAY_MS = 86_400_000;

/** The day of a person, counted from some day on. */
function dayOf(date: Date): number {
  return Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / DAY_MS;
}

/** How long before the time `clock` something was, in a few words; a date after a week. */
export function ago(timestamp: string, now: string, language: string | undefined, clock: number): string {
  const date = new Date(timestamp);
  const seconds = (clock - date.getTime()) / 1000;
  if (seconds < 45) return now;
  const today = new Date(clock);
  if (clock - date.getTime() > 7 * DAY_MS) {
    const isThisYear = date.getFullYear() === today.getFullYear();
    const year = isThisYear ? {} : ({ year: "numeric" } as const);
    return date.toLocaleDateString(language, { day: "numeric", month: "short", ...year });
  }
  const format = new Intl.RelativeTimeFormat(language, { numeric: "auto", style: "short" });
  const days = dayOf(today) - dayOf(date);
  // The words for days, such as "yesterday", mean days and not twenty-four hours.
  if (days > 0 && seconds >= 18 * 3600) return format.format(-days, "day");
  if (seconds >= 45 * 60) return format.format(-Math.max(1, Math.round(seconds / 3600)), "hour");
  return format.format(-Math.max(1, Math.round(seconds / 60)), "minute");
}
