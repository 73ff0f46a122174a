// Asks again and again while the page is visible.

import { isFinal } from "./api.js";
import { sentence } from "./format.js";

/**
 * Runs a task now, and again after each pause while the page is visible, until `stop`, or until the caller is refused.
 * One runs at a time; `refresh` runs it once more at once. `onError` gets the error of a run that failed, and
 * `undefined` after one that did not.
 */
export function poll(pauseMs, task, onError) {
  let timer;
  let running = false;
  let again = false;
  let stopped = false;

  async function run() {
    clearTimeout(timer);
    if (stopped) return;
    if (running) {
      again = true;
      return;
    }
    running = true;
    again = false;
    let error;
    try {
      await task();
    } catch (thrown) {
      error = thrown;
    }
    running = false;
    if (stopped) return;
    onError(error);
    if (again) run();
    // What one instance does not have, for instance a request bin, the next that replies may have.
    else if (error !== undefined && isFinal(error) && error.status !== 404) return;
    else if (document.visibilityState === "visible") timer = setTimeout(run, pauseMs);
  }

  const onShow = () => {
    if (document.visibilityState === "visible") run();
  };
  document.addEventListener("visibilitychange", onShow);
  run();
  return {
    refresh: run,
    stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", onShow);
    },
  };
}

/**
 * Shows in a place why what is below it is not up to date. What was refused for good leaves nothing there: no old state,
 * and no action that can only fail.
 */
export const problemIn = (place, isOver = isFinal) => (error) => {
  const isRefused = error !== undefined && isOver(error);
  place.hidden = error === undefined;
  place.textContent = error === undefined ? "" : `${sentence(error.reason ?? error.message)}${isRefused ? "" : " Trying again."}`;
  place.parentElement.toggleAttribute("data-refused", isRefused);
};
