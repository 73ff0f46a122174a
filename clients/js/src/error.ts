/** What a {@link TidingsError} has beside its message. */
export interface ErrorDetails {
  /** The code of the server's error, or one of the client: see {@link TidingsError.code}. */
  code: string;
  /** The status of the response, if there was one. */
  status?: number | undefined;
  /** The field, parameter or header that the server names. */
  field?: string | undefined;
  /** The id by which the log of the server is searched. */
  requestId?: string | undefined;
  /** How long the server asks to wait, in milliseconds: in `Retry-After`, or in a `bye`. */
  retryAfterMs?: number | undefined;
  /** What caused the error. */
  cause?: unknown;
}

/** Any failure that this package reports. `message` is a phrase for people, in English. */
export class TidingsError extends Error {
  override readonly name = "TidingsError";
  /**
   * The code of the server's error (`not_found`, `forbidden`, `too_many_requests` …), or:
   *
   * - `unreachable`: no response, for instance because the network is down or the page's origin is not allowed;
   * - `timeout`: no response in time;
   * - `token_unavailable`: the function `token` failed, or returned what is no token; with the `status` of its error;
   * - `unauthorized`: no token, or the server refuses each token that the function `token` returns;
   * - `unexpected_response`: a response that is not from Tidings, for instance of a proxy;
   * - `unsupported`: this platform has no `WebSocket`, or the credential cannot be sent over one;
   * - `ended`: the stream ended; `bye` has the code 4000 to 4299;
   * - `closed`: the inbox was closed before it had what was asked for.
   */
  readonly code: string;
  readonly status: number | undefined;
  readonly field: string | undefined;
  readonly requestId: string | undefined;
  readonly retryAfterMs: number | undefined;

  constructor(message: string, details: ErrorDetails) {
    super(message, { cause: details.cause });
    this.code = details.code;
    this.status = details.status;
    this.field = details.field;
    this.requestId = details.requestId;
    this.retryAfterMs = details.retryAfterMs;
  }

  /** Whether the same request may succeed later. */
  get isRetryable(): boolean {
    switch (this.code) {
      case "unreachable":
      case "timeout":
      case "token_unavailable":
      case "unexpected_response":
      case "ended":
        return true;
      default:
        return this.status !== undefined && (this.status >= 500 || this.status === 408 || this.status === 429);
    }
  }
}

/** The wait of a `Retry-After` header in milliseconds: seconds, or a date. */
export function retryAfter(header: string | null, now = Date.now()): number | undefined {
  if (header === null) return undefined;
  if (/^\d+$/.test(header.trim())) return Number(header) * 1000;
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}

/** What a status says whoever has replied. */
const CODES: Record<number, string> = { 401: "unauthorized", 429: "too_many_requests" };

/**
 * The error of a response whose status is not 2xx.
 *
 * @internal
 */
export function errorOf(response: Response, body: string): TidingsError {
  const { status } = response;
  const details = { status, retryAfterMs: retryAfter(response.headers.get("retry-after")) };
  let error: { code?: unknown; message?: unknown; field?: string; request_id?: string } | undefined;
  try {
    error = (JSON.parse(body) as { error?: typeof error }).error;
  } catch {
    // It is not from Tidings.
  }
  if (typeof error?.code !== "string" || typeof error.message !== "string") {
    // The limit may be one of a proxy. Any other error may be over when the proxy reaches the server again.
    return notFromTidings(status, { ...details, code: CODES[status] ?? "unexpected_response" });
  }
  const message = error.field === undefined ? error.message : `${error.field}: ${error.message}`;
  const requestId = error.request_id ?? response.headers.get("x-request-id") ?? undefined;
  return new TidingsError(message, { ...details, code: error.code, field: error.field, requestId });
}

/** The error of a response that is not from Tidings, for instance a page of a proxy. */
export function notFromTidings(status: number, details: Partial<ErrorDetails>): TidingsError {
  const message = `the reply has the status ${status} and is not from Tidings`;
  return new TidingsError(message, { code: "unexpected_response", status, ...details });
}

/** Any thrown value as a {@link TidingsError}. */
export function asTidingsError(thrown: unknown): TidingsError {
  if (thrown instanceof TidingsError) return thrown;
  if (thrown instanceof SyntaxError) {
    return new TidingsError("the server sent what is not JSON", { code: "unexpected_response", cause: thrown });
  }
  const isTimeout = thrown instanceof DOMException && thrown.name === "TimeoutError";
  return isTimeout
    ? new TidingsError("the server did not reply in time", { code: "timeout", cause: thrown })
    : new TidingsError("the server does not reply", { code: "unreachable", cause: thrown });
}

/** Reports an error of the application's code without stopping the caller. */
export function reportUncaught(error: unknown): void {
  if (typeof reportError === "function") reportError(error);
  else
    queueMicrotask(() => {
      throw error;
    });
}
