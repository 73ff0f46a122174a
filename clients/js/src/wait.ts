/** Waits, for at least `ms` milliseconds or until the signal. */
export function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    // A larger number would make the timer fire at once.
    const timer = setTimeout(done, Math.min(ms, 2 ** 31 - 1));
    signal?.addEventListener("abort", done);
  });
}

/** The longest wait that a server may ask for: beyond it, the client looks again. */
const MAX_HINT_MS = 10 * 60_000;

/** How long to wait before each try: exponential, with full jitter, up to a limit. */
export class Backoff {
  /** The limit of the first wait, in milliseconds: what the server sends as `retry:`. */
  baseMs = 1000;
  #failures = 0;
  readonly #capMs: number;

  constructor(capMs: number) {
    this.#capMs = capMs;
  }

  /** Whether nothing has failed lately. */
  get isFresh(): boolean {
    return this.#failures === 0;
  }

  /** The wait after another failure. A wait that the server asks for is never cut short: jitter is added to it. */
  next(hintMs = 0): number {
    const ceiling = Math.min(this.#capMs, this.baseMs * 2 ** this.#failures);
    this.#failures = Math.min(this.#failures + 1, 30);
    return Math.min(hintMs, MAX_HINT_MS) + Math.random() * ceiling;
  }

  /** The last try has succeeded. */
  reset(): void {
    this.#failures = 0;
  }
}
