import { TidingsError } from "./error.js";

/**
 * Returns a new token of the user. It is called again before a token expires, and when the server refuses one. An error
 * with the `status` 401 or 403 says that the person is signed out.
 */
export type TokenSource = () => string | Promise<string>;

/** How long the application may take to return a token. */
const TOKEN_TIMEOUT_MS = 15_000;

/** For how long a failure answers all who ask: streams and lists ask again, each at its own pace. */
const FAILED_MS = 1000;

/** The token in use. */
export class Tokens {
  readonly #source: TokenSource | undefined;
  #current: string | undefined;
  #asking: Promise<string> | undefined;
  /** The last failure, and when it was. */
  #failure: { error: TidingsError; at: number } | undefined;

  constructor(source: TokenSource | undefined) {
    this.#source = source;
  }

  /** Whether a refused token can be replaced. */
  get canRenew(): boolean {
    return this.#source !== undefined;
  }

  /** The token; `undefined` if the application uses none. */
  async current(): Promise<string | undefined> {
    return this.#source === undefined ? undefined : (this.#current ?? this.#ask(this.#source));
  }

  /** Asks for another token, unless `before` has been replaced already. If there is none, `before` stays in use. */
  async renew(before: string | undefined): Promise<string | undefined> {
    if (this.#source === undefined) return undefined;
    if (this.#current !== undefined && this.#current !== before) return this.#current;
    return this.#ask(this.#source);
  }

  /** Forgets a token that the server has refused, so that the application is asked until it has another one. */
  refuse(token: string | undefined): void {
    if (this.#current === token) this.#current = undefined;
  }

  /** Callers that ask at the same time share one call of the application, or its failure. */
  #ask(source: TokenSource): Promise<string> {
    if (this.#failure !== undefined && performance.now() - this.#failure.at < FAILED_MS) {
      // Who tries again sees by another error that this one has failed, too.
      const { error } = this.#failure;
      return Promise.reject(new TidingsError(error.message, error));
    }
    this.#asking ??= this.#call(source).finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async #call(source: TokenSource): Promise<string> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<never>((_, reject) => {
      const late = () => reject(new Error(`no token after ${TOKEN_TIMEOUT_MS / 1000} seconds`));
      timer = setTimeout(late, TOKEN_TIMEOUT_MS);
    });
    try {
      const token = await Promise.race([Promise.resolve().then(source), timeout]);
      this.#current = checked(token);
      this.#failure = undefined;
      return this.#current;
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      const error = new TidingsError(`the application returned no token: ${reason}`, { code: "token_unavailable", status: statusOf(cause), cause });
      this.#failure = { error, at: performance.now() };
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }
}

/** The status with which the application refused, if what it threw has one, as the errors of many libraries have. */
function statusOf(cause: unknown): number | undefined {
  const { status } = Object(cause) as { status?: unknown };
  return typeof status === "number" ? status : undefined;
}

/** Whether a text can be a token: whether the header `Authorization` can have it. */
export const isToken = (text: unknown): boolean => typeof text === "string" && /^[\x21-\x7e]+$/.test(text);

/** Whether a text is a page, however short: an API key that begins with a tag is nobody's. */
const isMarkup = (text: string): boolean => /^<[^>]+>/.test(text);

/** Refuses what is no token, for instance a page that says that there is no such route. */
function checked(token: unknown): string {
  if (typeof token !== "string") throw new TypeError(`expected a text, got ${token === null ? "null" : typeof token}`);
  const text = token.trim();
  if (text === "") throw new TypeError("expected a token, got an empty text");
  if (!isToken(text) || isMarkup(text)) throw new TypeError(`expected a token, got a text that begins with ${JSON.stringify(text.slice(0, 20))}`);
  return text;
}
