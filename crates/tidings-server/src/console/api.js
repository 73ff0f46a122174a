// Requests to the server. Every failure is an error whose message a person can read.

import { learnTime } from "./server-clock.js";
import { session } from "./session.js";

const TIMEOUT_MS = 20_000;

/** A refusal, or no reply. `status` is undefined without one. `reason` is the message without the field that it names. */
export class CallError extends Error {
  constructor(reason, status, code, field) {
    super(field ? `${field}: ${reason}` : reason);
    this.reason = reason;
    this.status = status;
    this.code = code;
    this.field = field;
  }
}

/** Called when the server does not know who calls. */
let onUnauthorized = () => {};
export const whenUnauthorized = (action) => {
  onUnauthorized = action;
};

/** Called when something is not for the caller, whom the server may know by a cookie. */
let onForbidden = () => {};
export const whenForbidden = (action) => {
  onForbidden = action;
};

/**
 * Whether the server would refuse the same request again: it is not for this caller, or what it asks for is not there. What
 * a proxy says has no code, and may be over soon.
 */
export const isFinal = ({ status, code }) => code !== undefined && status < 500 && ![401, 408, 429].includes(status);

/**
 * Calls a route and returns the text of the reply. A body that is text is sent as it is. A refused token is replaced
 * once, if there is another.
 */
export async function callForText(method, path, body, more = {}, canRenew = true) {
  const { credential, user, entry } = session;
  const headers = credential === "" ? more : { ...more, Authorization: `Bearer ${credential}` };
  const text = body === undefined || typeof body === "string" ? body : JSON.stringify(body);
  const signal = AbortSignal.timeout(TIMEOUT_MS);
  const askedAt = performance.now();
  let response;
  let reply;
  try {
    response = await fetch(path, { method, headers, body: text, signal, cache: "no-store" });
    learnTime(response.headers.get("date"), performance.now() - askedAt);
    reply = await response.text();
  } catch {
    throw new CallError(signal.aborted ? "the server did not reply in time" : "the server does not reply");
  }
  if (response.ok) return reply;
  const { status } = response;
  let error;
  try {
    ({ error } = JSON.parse(reply));
  } catch {
    // It is not from Tidings.
  }
  if (typeof error?.message !== "string") {
    throw new CallError(`the reply has the status ${status} and is not from Tidings; a proxy replies so while the server restarts`, status);
  }
  const refusal = new CallError(error.message, status, error.code, error.field);
  if (status === 401) {
    const isRenewed = canRenew && user !== undefined && (await session.renew(credential)) !== credential;
    // Of several requests that are refused, the first has signed out, and says why. None is sent as another caller.
    if (session.entry !== entry || session.user !== user) throw refusal;
    if (isRenewed) return callForText(method, path, body, more, false);
    onUnauthorized(refusal);
  }
  if (status === 403 && credential === "" && session.entry === entry) onForbidden();
  throw refusal;
}

/** Calls a route and returns its JSON; undefined if the reply is empty. */
export async function call(method, path, body, headers) {
  const text = await callForText(method, path, body, headers);
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    throw new CallError("the reply is not from Tidings");
  }
}

const MAX_UNANSWERED = 100;

/** The idempotency keys of requests that may have been done although there was no reply, by what they ask for. */
const unanswered = new Map();

/** Without `crypto.randomUUID`, which a page that came by plain HTTP does not have. */
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** Posts what must not be done twice, also if a person asks for it again because there was no reply. */
export async function postOnce(path, body) {
  const asked = JSON.stringify([session.entry, path, body]);
  const key = unanswered.get(asked) ?? newKey();
  unanswered.set(asked, key);
  if (unanswered.size > MAX_UNANSWERED) unanswered.delete(unanswered.keys().next().value);
  try {
    const made = await call("POST", path, body, { "Idempotency-Key": key });
    unanswered.delete(asked);
    return made;
  } catch (error) {
    if (isFinal(error) && error.code !== "request_running") unanswered.delete(asked);
    throw error;
  }
}

/** A part of a path. `.` and `..` would vanish from a URL, and lead to another route. */
export function part(name) {
  if (name === "." || name === "..") throw new CallError("expected a name other than `.` and `..`");
  return encodeURIComponent(name);
}

/** The routes of the endpoints of a user, or of the operator. */
export const endpointsOf = (user) => (user ? `/v1/users/${part(user)}/endpoints` : "/v1/endpoints");

/** Where one delivery is: to any endpoint, or to one of the user whose token is used. */
export const deliveryPath = (id) => (session.user ? `/v1/users/${part(session.user)}/deliveries/${part(id)}` : `/v1/deliveries/${part(id)}`);

/** Lists deliveries, newest first: to one endpoint, or to all of them. */
export function listDeliveries(endpoint, parameters) {
  const query = new URLSearchParams(parameters);
  if (session.user) return call("GET", `${endpointsOf(session.user)}/${part(endpoint)}/deliveries?${query}`);
  if (endpoint) query.set("endpoint_id", endpoint);
  return call("GET", `/v1/deliveries?${query}`);
}
