// Building elements. Text becomes text nodes: nothing here or elsewhere in this package reads HTML.

type Attributes = Record<string, string | number | boolean | undefined>;

/** Makes an element. An attribute that is `undefined` or `false` is left out. */
export function make<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Attributes = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(attribute, value === true ? "" : String(value));
  }
  element.append(...children);
  return element;
}

const PATHS = {
  bell: "M12 3.5a5.75 5.75 0 0 0-5.75 5.75v3.4L4.6 15.7a.75.75 0 0 0 .67 1.1h13.46a.75.75 0 0 0 .67-1.1l-1.65-3.05v-3.4A5.75 5.75 0 0 0 12 3.5ZM9.75 19.7a2.4 2.4 0 0 0 4.5 0",
  check: "M5 12.6 9.6 17 19 7.4",
  dot: "M12 8.2a3.8 3.8 0 1 0 0 7.6 3.8 3.8 0 0 0 0-7.6Z",
  archive: "M4 5.25h16v4H4zM5.5 9.25v9.5h13v-9.5M9.75 13h4.5",
  close: "m6.5 6.5 11 11m0-11-11 11",
  checks: "M2.5 12.8 6.6 17l8-8.6M12.4 15.4 14 17l7.5-8.6",
} as const;

/** Makes an icon, which screen readers skip. */
export function icon(name: keyof typeof PATHS): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}
