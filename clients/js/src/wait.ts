/** The longest time of a timer: with a larger number it fires at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1;

/** Waits, for at least `ms` milliseconds or until the signal. */
export function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(ms, MAX_TIMER_MS));
    signal?.addEventListener("abort", done);
  });
}

/** The longest wait that a server may ask for: beyond it, the client looks again. */
const MAX_HINT_MS = 10 * 60_000;

/** The wait that a server has asked for, within the limit. */
export function hinted(ms: number): number {
  return ms > 0 ? Math.min(ms, MAX_HINT_MS) : 0;
}

/** For how long a server that pings at this pace may be silent: for ever if it does not say. */
export function silenceOf(pingMs: number): number {
  return pingMs > 0 ? Math.min(2 * pingMs + 5000, MAX_TIMER_MS) : MAX_TIMER_MS;
}

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
    return hinted(hintMs) + Math.random() * ceiling;
  }

  /** The last try has succeeded. */
  reset(): void {
    this.#failures = 0;
  }
}
