import { expect } from "./expect.js";

/** The id of an event, `<epoch>-<seq>`, or a cursor: the id of the last event that a reader has. */
export type EventId = string;

/** The cursor of a log that does not exist yet. It is before every event. */
export const ORIGIN = "0000000000000000-0";

/**
 * Compares two ids: negative if `a` is before `b`, 0 if they are equal, positive if `a` is after `b`.
 * Returns `undefined` if the ids are of different logs, and therefore have no order.
 */
export function compareIds(a: EventId, b: EventId): number | undefined {
  if (a === b) return 0;
  if (a === ORIGIN) return -1;
  if (b === ORIGIN) return 1;
  const [epochOfA, seqOfA = ""] = a.split("-");
  const [epochOfB, seqOfB = ""] = b.split("-");
  if (epochOfA !== epochOfB) return undefined;
  // Numbers of up to 20 digits, without leading zeros: compared as text, so that none is rounded.
  if (seqOfA.length !== seqOfB.length) return seqOfA.length - seqOfB.length;
  return seqOfA < seqOfB ? -1 : 1;
}

/** Whether `a` is an event after `b` in the same log. */
export function isAfter(a: EventId, b: EventId): boolean {
  const order = compareIds(a, b);
  return order !== undefined && order > 0;
}

/** Whether `a` is `b`, or an event before it in the same log. */
export function isUpTo(a: EventId, b: EventId): boolean {
  const order = compareIds(a, b);
  return order !== undefined && order <= 0;
}

/** Throws a TypeError unless a value has the form of an id. The server says whether there is such an event. */
export function expectEventId(option: string, value: unknown): asserts value is EventId {
  const isId = typeof value === "string" && /^[0-9a-f]{16}-\d{1,20}$/.test(value);
  expect(option, isId, "the id of an event, such as 6f1c0a52d3e84b97-17", value);
}
