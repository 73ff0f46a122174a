// How times, durations and numbers are written.

import { make } from "./dom.js";
import { now } from "./server-clock.js";

/** The language of the page, with the day before the month and 24 hours. */
const LANGUAGE = "en-GB";

/** With the time zone. */
const DATE = new Intl.DateTimeFormat(LANGUAGE, { dateStyle: "medium", timeStyle: "long" });
const CLOCK = new Intl.DateTimeFormat(LANGUAGE, { timeStyle: "medium" });
const AGO = new Intl.RelativeTimeFormat(LANGUAGE, { numeric: "auto", style: "short" });
const NUMBER = new Intl.NumberFormat(LANGUAGE);

/** The time zone of the browser, in which all times are shown. */
export const TIME_ZONE = DATE.resolvedOptions().timeZone;

const UNITS = [["day", 86_400], ["hour", 3600], ["minute", 60], ["second", 1]];

/** How long ago a time is, or how long it takes until then. */
function relative(date) {
  const seconds = Math.round((date - now()) / 1000);
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
  return AGO.format(Math.trunc(seconds / size), unit);
}

/** A time in RFC 3339, as a person reads it: relative, and in full below the pointer. */
export function time(text) {
  if (text === null || text === undefined) return make("span", { class: "soft" }, "–");
  const date = new Date(text);
  return make("time", { datetime: text, title: DATE.format(date) }, relative(date));
}

/** The same in full. */
export const fullTime = (text) => make("time", { datetime: text }, DATE.format(new Date(text)));

/** The time of the day. */
export const clock = (at) => CLOCK.format(at);

/** Writes the relative times in an element anew. Those that read as before stay, and with them what is selected there. */
export function renewTimes(root) {
  for (const element of root.querySelectorAll("time[title]")) {
    const text = relative(new Date(element.dateTime));
    if (element.textContent !== text) element.textContent = text;
  }
}

/** A message as a sentence. */
export const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

export const count = (number) => NUMBER.format(number);

/** `1 attempt`, `2 attempts`. */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A number with about three digits. */
export function short(number) {
  if (number >= 1e6) return `${(number / 1e6).toFixed(1)}M`;
  if (number >= 1e4) return `${(number / 1e3).toFixed(number >= 1e5 ? 0 : 1)}k`;
  if (number >= 100 || Number.isInteger(number)) return String(Math.round(number));
  return number.toFixed(number >= 10 ? 1 : 2);
}

/** Seconds as a duration with about three digits. */
export function duration(seconds) {
  if (seconds >= 60) return `${(seconds / 60).toFixed(1)} min`;
  if (seconds >= 1) return `${seconds.toFixed(seconds >= 10 ? 0 : 2)} s`;
  if (seconds === 0) return "0 ms";
  const milliseconds = seconds * 1000;
  return `${milliseconds >= 100 ? Math.round(milliseconds) : milliseconds.toFixed(milliseconds >= 10 ? 1 : 2)} ms`;
}
