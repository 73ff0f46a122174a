// The time of the server, whose times the page shows: the clock of the browser may be wrong.

import { ServerClock } from "/tidings.js";

const clock = new ServerClock();

/** Learns from the `date` of a response, which was so many milliseconds on the way. */
export const learnTime = (date, elapsed) => clock.learn(date, elapsed);

/** The time of the server, in milliseconds since 1970. */
export const now = () => clock.now();

/** The same for a time of `performance.now()`. */
export const timeOf = (at) => now() - (performance.now() - at);
