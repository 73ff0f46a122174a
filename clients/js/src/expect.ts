/** Throws a TypeError that names the option, unless what was expected of it holds. */
export function expect(option: string, holds: boolean, expected: string, got: unknown): asserts holds {
  if (!holds) throw new TypeError(`${option}: expected ${expected}, got ${typeof got === "string" ? JSON.stringify(got) : String(got)}`);
}

/** Throws a TypeError unless these are options, and all have names that are known. */
export function expectOptions<Options extends object>(options: Options, ...known: (keyof Options & string)[]): void {
  expect("options", typeof options === "object" && options !== null, "an object", options);
  for (const name of Object.keys(options)) {
    if (!(known as string[]).includes(name)) throw new TypeError(`${name}: expected an option with one of the names ${known.join(", ")}`);
  }
}

/** Throws a TypeError unless each of `handlers` is a function or absent. */
export function expectHandlers<Options extends object>(options: Options, ...handlers: (keyof Options & string)[]): void {
  for (const name of handlers) {
    const handler: unknown = options[name];
    expect(name, handler === undefined || typeof handler === "function", "a function", handler);
  }
}
