// A small chart of figures over time, drawn as SVG.

import { draw, make } from "./dom.js";
import { clock } from "./format.js";
import { SPAN_MS } from "./sampler.js";
import { timeOf } from "./server-clock.js";

const WIDTH = 320;
const HEIGHT = 96;
const TOP = 6;
const MINUTE_MS = 60_000;

/** A number at or above the largest value, with one digit that is easy to read. */
function ceilingOf(largest) {
  if (largest <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(largest));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= largest) ?? largest;
}

/** The line of a series, and the area below it; both have holes where there is no value. */
function pathsOf(points) {
  let lineText = "";
  let areaText = "";
  let run = [];
  const end = () => {
    if (run.length === 0) return;
    const [first, last] = [run[0], run.at(-1)];
    const text = run.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");
    // A single value is drawn as a dot.
    lineText += run.length === 1 ? `M${text}h.01` : `M${text}`;
    areaText += `M${first[0].toFixed(1)} ${HEIGHT}L${text}L${last[0].toFixed(1)} ${HEIGHT}Z`;
    run = [];
  };
  for (const [x, y] of points) {
    if (y === null) end();
    else run.push([x, y]);
  }
  end();
  return [lineText, areaText];
}

/**
 * Makes a chart. `series` has the name of each figure with its words; `format` writes a value. The chart shows at most
 * the last five minutes, and the values below the pointer.
 */
export function chart(title, series, format) {
  const values = series.map(({ words }) => ({ value: make("strong", {}, "–"), words }));
  const legend = make("dl", { class: "legend" }, values.map(({ value, words }, index) => make("div", { "data-series": index }, make("dt", {}, words), make("dd", {}, value))));
  const lines = series.map((_, index) => draw("path", { class: "line", "data-series": index }));
  const areas = series.map((_, index) => draw("path", { class: "area", "data-series": index }));
  const pointer = draw("line", { class: "pointer", y1: 0, y2: HEIGHT, visibility: "hidden" });
  const grid = [0.5, 1].map((share) => draw("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT - share * (HEIGHT - TOP), y2: HEIGHT - share * (HEIGHT - TOP) }));
  const picture = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" }, grid, areas, lines, pointer);
  const most = make("span", { class: "most" });
  const from = make("span");
  const until = make("span", {}, "now");
  const element = make("section", { class: "card chart" }, make("h2", {}, title), legend, make("div", { class: "plot" }, most, picture), make("div", { class: "axis" }, from, until));

  let samples = [];
  let end = 0;
  let span = SPAN_MS;
  const xOf = (at) => WIDTH * (1 - (end - at) / span);

  function write(sample) {
    series.forEach(({ name }, index) => {
      const value = sample?.[name] ?? null;
      values[index].value.textContent = value === null ? "–" : format(value);
    });
  }

  picture.addEventListener("pointermove", ({ clientX }) => {
    const box = picture.getBoundingClientRect();
    const x = ((clientX - box.left) / box.width) * WIDTH;
    const nearest = samples.reduce((best, sample) => (Math.abs(xOf(sample.at) - x) < Math.abs(xOf(best?.at ?? -Infinity) - x) ? sample : best), undefined);
    if (nearest === undefined) return;
    const at = xOf(nearest.at);
    pointer.setAttribute("x1", at);
    pointer.setAttribute("x2", at);
    pointer.setAttribute("visibility", "visible");
    write(nearest);
    until.textContent = clock(timeOf(nearest.at));
  });
  picture.addEventListener("pointerleave", () => {
    pointer.setAttribute("visibility", "hidden");
    until.textContent = "now";
    write(samples.at(-1));
  });

  function update(newest) {
    samples = newest;
    end = samples.at(-1)?.at ?? 0;
    // The first minutes fill the width.
    const minutes = Math.ceil((end - (samples[0]?.at ?? end) + 1) / MINUTE_MS);
    span = Math.min(minutes * MINUTE_MS, SPAN_MS);
    from.textContent = `${span / MINUTE_MS} min ago`;
    const all = samples.flatMap((sample) => series.map(({ name }) => sample[name] ?? 0));
    const ceiling = ceilingOf(Math.max(0, ...all));
    series.forEach(({ name }, index) => {
      const points = samples.map((sample) => {
        const value = sample[name];
        return [xOf(sample.at), value === null ? null : HEIGHT - (value / ceiling) * (HEIGHT - TOP)];
      });
      const [lineText, areaText] = pathsOf(points);
      lines[index].setAttribute("d", lineText);
      areas[index].setAttribute("d", areaText);
    });
    most.textContent = format(ceiling);
    if (pointer.getAttribute("visibility") === "hidden") write(samples.at(-1));
    const now = values.map(({ value, words }) => `${words} ${value.textContent}`).join(", ");
    picture.setAttribute("aria-label", `${title} over the last minutes; now ${now}`);
  }

  return { element, update };
}
