import type { Api } from "./api.js";
import { asTidingsError, errorOf, TidingsError } from "./error.js";
import type { EventId } from "./ids.js";
import { memberText } from "./json.js";
import { EventParser } from "./sse.js";
import type { Frame } from "./wire.js";

/** How frames may arrive. */
export const TRANSPORTS = ["sse", "websocket"] as const;

/** How frames arrive. */
export type Transport = (typeof TRANSPORTS)[number];

/** Where a connection begins, and who hears what it sends. */
export interface Listener {
  cursor: EventId | undefined;
  since: string | undefined;
  token: string | undefined;
  /** @internal */
  signal: AbortSignal;
  onFrame(frame: Frame): void;
  /** Anything has arrived, if only a comment that keeps the connection alive. */
  onActivity(): void;
  /** The server asks to wait so long before a reconnect. */
  onRetry(ms: number): void;
}

/** A WebSocket has closed. */
export class Closed {
  constructor(
    readonly code: number,
    readonly reason: string,
  ) {}
}

/** Receives until the connection ends. Returns how a WebSocket was closed. Throws a TidingsError if it fails. */
export type Receive = (api: Api, listener: Listener) => Promise<Closed | undefined>;

function startOf({ cursor, since }: Listener): string {
  if (cursor !== undefined) return `last_event_id=${encodeURIComponent(cursor)}`;
  return since === undefined ? "" : `since=${encodeURIComponent(since)}`;
}

/**
 * Server-Sent Events, read by `fetch` and not by an `EventSource`: that cannot send a token in a header, gives up
 * after most errors, and shows neither their status nor `Retry-After`.
 */
export const receiveEvents: Receive = async (api, listener) => {
  const { token, signal } = listener;
  // Without the second type the server would hide an error in a stream, for EventSource.
  const headers = { Accept: "text/event-stream, application/json" };
  const response = await api.send(`events?${startOf(listener)}`, token, { headers, signal });
  const type = response.headers.get("content-type") ?? "";
  if (!type.startsWith("text/event-stream") || response.body === null) {
    await response.body?.cancel();
    throw new TidingsError(`expected an event stream, got ${type || "no content type"}`, {
      code: "unexpected_response",
      status: response.status,
    });
  }
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return undefined;
      listener.onActivity();
      const events = parser.push(decoder.decode(value, { stream: true }));
      if (parser.retryMs !== undefined) listener.onRetry(parser.retryMs);
      for (const { event, data } of events) {
        const name = event === "message" ? "notification" : event.replace(/^tidings\./, "");
        listener.onFrame({ event: name, text: data });
      }
    }
  } catch (error) {
    throw asTidingsError(error);
  } finally {
    // The connection must not stay open if a frame was refused.
    reader.cancel().catch(() => {});
  }
};

/** A WebSocket. */
export const receiveFrames: Receive = (api, listener) =>
  new Promise((resolve, reject) => {
    const { token, signal } = listener;
    if (typeof WebSocket !== "function") {
      const message = 'this platform has no WebSocket (Node has one from version 22): use the transport "sse"';
      throw new TidingsError(message, { code: "unsupported" });
    }
    const url = new URL(`ws?${startOf(listener)}`, api.base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = openSocket(url, token);
    let isOpen = false;
    let failure: unknown;
    const abort = () => {
      socket.close();
      reject(asTidingsError(signal.reason));
    };
    signal.addEventListener("abort", abort);
    socket.onopen = () => {
      isOpen = true;
    };
    socket.onmessage = ({ data }: MessageEvent) => {
      if (signal.aborted || failure !== undefined) return;
      try {
        listener.onActivity();
        listener.onFrame(frameOf(data));
      } catch (error) {
        failure = error;
        socket.close();
      }
    };
    let isOver = false;
    const end = (closed: Closed) => {
      if (isOver) return;
      isOver = true;
      signal.removeEventListener("abort", abort);
      if (failure !== undefined) reject(asTidingsError(failure));
      else if (isOpen) resolve(closed);
      // A browser hides the status of an upgrade that was refused: a plain request of the same route shows it.
      else explain(api, listener).then(reject, reject);
    };
    socket.onclose = ({ code, reason }) => end(new Closed(code, reason));
    // Node 20 reports a connection that fails by this alone. In browsers a close follows at once.
    socket.onerror = () => setTimeout(() => end(new Closed(1006, "")));
  });

function openSocket(url: URL, token: string | undefined): WebSocket {
  try {
    return new WebSocket(url, token === undefined ? ["tidings.v1"] : ["tidings.v1", `tidings.token.${token}`]);
  } catch (cause) {
    const message = "the token has characters that no WebSocket can send";
    throw new TidingsError(message, { code: "unauthorized", status: 401, cause });
  }
}

function frameOf(data: unknown): Frame {
  if (typeof data !== "string") throw new TidingsError("expected text frames", { code: "unexpected_response" });
  const { event } = JSON.parse(data) as { event: string };
  return { event, text: event === "notification" ? (memberText(data, "data") ?? "") : data };
}

/** The three parts of a JSON Web Token. */
const TOKEN = /^[\w-]+\.[\w-]+\.[\w-]+$/;

/** Why an upgrade was refused. The server checks the caller first; a caller who may open it gets 426. */
async function explain(api: Api, { token, signal }: Listener): Promise<TidingsError> {
  try {
    const response = await api.send("ws", token, { headers: { Accept: "application/json" }, signal });
    return errorOf(response, "");
  } catch (thrown) {
    const error = asTidingsError(thrown);
    if (error.status !== 426) return error;
    // The server accepts the credential in a header, and a token in a WebSocket too.
    if (token !== undefined && !TOKEN.test(token)) {
      return new TidingsError('an API key cannot be sent over a WebSocket: use the transport "sse"', { code: "unsupported" });
    }
    const message = "the server replies, but no WebSocket can be opened: a proxy may not pass it on";
    return new TidingsError(message, { code: "unreachable" });
  }
}
