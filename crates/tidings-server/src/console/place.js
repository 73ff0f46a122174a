// Where a person is in a view: how much of a list is loaded, and how far the page is scrolled. It is kept with the entry of
// the history, so that Back leads to the same place.

/** Scrolling has many events; the place is kept after the last of them. */
const KEEP_MS = 100;
/** For so long a view may load what it had before. */
const RESTORE_MS = 5000;

/** What was kept with this entry of the history. */
export const kept = () => history.state ?? {};

/** Keeps more with this entry of the history. */
export const keep = (more) => history.replaceState({ ...kept(), ...more }, "");

/** Whether the person is where they want to be. Until then the page scrolls by itself, and that is not kept. */
let isSettled = false;
let settle = () => {};
let keeping;

/** The view is about to be replaced. */
export function leave() {
  settle();
  isSettled = false;
}

/** Scrolls to where the person was, as far as the view is long enough, while it loads: until they do something. */
export function restore(view) {
  const { top = 0 } = kept();
  const done = new AbortController();
  const observer = new ResizeObserver(() => {
    scrollTo(0, top);
    // The browser rounds.
    if (scrollY >= top - 1) settle();
  });
  settle = () => {
    observer.disconnect();
    done.abort();
    clearTimeout(timer);
    isSettled = true;
  };
  const timer = setTimeout(settle, RESTORE_MS);
  for (const event of ["wheel", "pointerdown", "keydown"]) addEventListener(event, () => settle(), { signal: done.signal, passive: true });
  observer.observe(view);
}

history.scrollRestoration = "manual";
addEventListener("scroll", () => {
  const { href } = location;
  clearTimeout(keeping);
  keeping = setTimeout(() => {
    // The address changes before its view is opened.
    if (isSettled && location.href === href) keep({ top: scrollY });
  }, KEEP_MS);
}, { passive: true });
