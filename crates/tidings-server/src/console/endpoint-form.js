// The form for the settings of an endpoint.

import { choice, field, line, tick } from "./dialog.js";
import { make } from "./dom.js";

const FORMATS = [["envelope", "envelope: id, type, timestamp, user and data"], ["raw", "raw: the payload alone"]];
const SIGNATURES = [["standard", "Standard Webhooks"], ["timestamped", "sha256 over timestamp and body"]];

/** The fields, with the values of an endpoint, or those of a new one. */
export function fieldsOf(endpoint) {
  const { url = "", description = "", event_types: types = [], format = "envelope", headers = {}, signatures = ["standard"] } = endpoint ?? {};
  const { rate_limit: rate, timeout_ms: timeout, schedule } = endpoint ?? {};
  const textOf = (value) => value ?? "";
  return [
    field("URL", line("url", { type: "url", required: true, value: url, placeholder: "https://example.com/hook", autofocus: true })),
    field("Description", line("description", { value: description, maxlength: 1000 })),
    field("Types of events", line("event_types", { value: types.join(", "), placeholder: "every type" }), "separated by commas; order.* means all that begin with order."),
    endpoint === undefined && field("Secret", line("secret", { placeholder: "made by the server" }), "whsec_ and 24 to 64 bytes in base64"),
    make("details", {},
      make("summary", {}, "More settings"),
      field("Body", choice("format", FORMATS, format)),
      make("fieldset", {}, make("legend", {}, "Signatures"), SIGNATURES.map(([name, words]) => tick("signatures", words, signatures.includes(name), name))),
      field("Headers", make("textarea", { name: "headers", rows: 3, placeholder: "x-team: billing" }, Object.entries(headers).map(([name, value]) => `${name}: ${value}`).join("\n")), "one a line"),
      field("Requests per second", line("rate_limit", { inputmode: "numeric", value: textOf(rate), placeholder: "no limit" })),
      field("Longest time for a request, in milliseconds", line("timeout_ms", { inputmode: "numeric", value: textOf(timeout), placeholder: "that of the server" })),
      field("Waits before each attempt, in seconds", line("schedule", { value: schedule?.join(", ") ?? "", placeholder: "those of the server" }), "separated by commas")),
  ];
}

const listOf = (text) => text.split(",").map((item) => item.trim()).filter((item) => item !== "");

/** A number, or the text as it is, so that the server says what is wrong with it. */
export const numberOf = (text) => (/^\d+$/.test(text) ? Number(text) : text);

/** The headers, one a line. Only here is it seen that a name was typed twice. */
function headersOf(text) {
  const headers = {};
  const names = new Set();
  for (const row of text.split("\n").filter((row) => row.trim() !== "")) {
    const colon = row.indexOf(":");
    const wrong = (message) => Object.assign(new Error(message), { field: "headers" });
    if (colon < 1) throw wrong(`expected a name, a colon and a value in each line, got ${row}`);
    const name = row.slice(0, colon).trim();
    if (names.has(name.toLowerCase())) throw wrong(`expected each name once, got ${name} twice`);
    names.add(name.toLowerCase());
    headers[name] = row.slice(colon + 1).trim();
  }
  return headers;
}

/** What was typed, as the body of a request. An empty field is the default. */
export function settingsOf(elements) {
  const text = (name) => elements[name].value.trim();
  const optional = (name) => (text(name) === "" ? null : numberOf(text(name)));
  const chosen = [...elements.signatures].filter(({ checked }) => checked).map(({ value }) => value);
  const schedule = listOf(text("schedule"));
  return {
    url: text("url"),
    description: elements.description.value,
    event_types: listOf(text("event_types")),
    format: elements.format.value,
    signatures: chosen,
    headers: headersOf(elements.headers.value),
    rate_limit: optional("rate_limit"),
    timeout_ms: optional("timeout_ms"),
    schedule: schedule.length === 0 ? null : schedule.map(numberOf),
  };
}

/** What a form now has that differs from what it began with: the rest may have been changed by others meanwhile. */
export function changesOf(elements, begun) {
  const isChanged = ([name, value]) => JSON.stringify(value) !== JSON.stringify(begun[name]);
  return Object.fromEntries(Object.entries(settingsOf(elements)).filter(isChanged));
}
