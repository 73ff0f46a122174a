import { TidingsError } from "./error.js";

/** One event of a stream of Server-Sent Events. */
export interface ServerSentEvent {
  /** `message` if the stream names none. */
  event: string;
  data: string;
}

/** The longest event that is accepted, in UTF-16 units. A payload has at most 16 MiB. */
const MAX_LENGTH = 64 * 1024 * 1024;

/**
 * Reads Server-Sent Events from text that arrives in pieces, as the HTML standard says. `id:` is ignored, because
 * the documents of Tidings name their cursor.
 */
export class EventParser {
  /** The wait before a reconnect that the server asked for last, in milliseconds. */
  retryMs: number | undefined;
  #pieces: string[] = [];
  #length = 0;
  #event = "";
  #data: string[] = [];
  #isStart = true;
  #skipLineFeed = false;

  /** Takes in a piece, and returns the events that end in it. */
  push(piece: string): ServerSentEvent[] {
    const events: ServerSentEvent[] = [];
    let at = 0;
    if (this.#isStart && piece !== "") {
      this.#isStart = false;
      if (piece.startsWith("\ufeff")) at = 1;
    }
    if (this.#skipLineFeed && at < piece.length) {
      this.#skipLineFeed = false;
      if (piece[at] === "\n") at += 1;
    }
    while (at < piece.length) {
      const end = lineEnd(piece, at);
      this.#pieces.push(piece.slice(at, end));
      this.#length += end - at;
      if (this.#length > MAX_LENGTH) {
        throw new TidingsError("the stream has an event that is too long", { code: "unexpected_response" });
      }
      if (end === piece.length) break;
      const line = this.#pieces.length === 1 ? (this.#pieces[0] ?? "") : this.#pieces.join("");
      this.#pieces = [];
      at = end + 1;
      if (piece[end] === "\r") {
        if (at === piece.length) this.#skipLineFeed = true;
        else if (piece[at] === "\n") at += 1;
      }
      this.#takeLine(line, events);
    }
    return events;
  }

  #takeLine(line: string, events: ServerSentEvent[]): void {
    if (line === "") {
      if (this.#data.length > 0) events.push({ event: this.#event || "message", data: this.#data.join("\n") });
      this.#event = "";
      this.#data = [];
      this.#length = 0;
      return;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retryMs = Number(value);
    if (name !== "data") this.#length -= line.length;
  }
}

function lineEnd(text: string, from: number): number {
  const feed = text.indexOf("\n", from);
  const end = feed < 0 ? text.length : feed;
  const carriage = text.slice(from, end).indexOf("\r");
  return carriage < 0 ? end : from + carriage;
}
