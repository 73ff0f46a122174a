/** The time of a server, as the `date` of its responses says it: the clock of this machine may be wrong. */
export class ServerClock {
  /** How far the clock of this machine is behind, in milliseconds. */
  #behind = 0;

  /**
   * Learns from the `date` of a response, which has whole seconds and was at most `elapsed` milliseconds on the way. Without
   * one, and while what is known agrees with it, nothing changes.
   */
  learn(date: string | null, elapsed: number): void {
    const at = Date.parse(date ?? "");
    if (Number.isNaN(at)) return;
    const here = Date.now();
    const [least, most] = [at - here, at + 1000 + elapsed - here];
    if (this.#behind < least || this.#behind > most) this.#behind = (least + most) / 2;
  }

  /** In milliseconds since 1970; before the first response the time of this machine. */
  now(): number {
    return Date.now() + this.#behind;
  }
}
