// Finds the text of a part of a JSON document. `JSON.parse` rounds large numbers, so the text is the only exact form.
// The functions expect text that `JSON.parse` accepts.

const SPACE = /[^ \t\r\n]/g;
const SCALAR_END = /[,\]} \t\r\n]/g;

function find(pattern: RegExp, text: string, from: number): number {
  pattern.lastIndex = from;
  return pattern.exec(text)?.index ?? text.length;
}

function endOfString(text: string, start: number): number {
  for (let at = start + 1; at < text.length; at += 1) {
    if (text[at] === "\\") at += 1;
    else if (text[at] === '"') return at + 1;
  }
  return text.length;
}

/** Where the value that begins at `start` ends. */
function endOfValue(text: string, start: number): number {
  const first = text[start];
  if (first === '"') return endOfString(text, start);
  if (first !== "{" && first !== "[") return find(SCALAR_END, text, start);
  let depth = 0;
  for (let at = start; at < text.length; ) {
    const character = text[at];
    if (character === '"') {
      at = endOfString(text, at);
      continue;
    }
    if (character === "{" || character === "[") depth += 1;
    if (character === "}" || character === "]") depth -= 1;
    at += 1;
    if (depth === 0) return at;
  }
  return text.length;
}

/** The text of a member of a JSON object; `undefined` if there is no such member. */
export function memberText(text: string, name: string): string | undefined {
  let at = find(SPACE, text, 0) + 1;
  while (at < text.length) {
    const key = find(SPACE, text, at);
    if (text[key] !== '"') return undefined;
    const keyEnd = endOfString(text, key);
    const value = find(SPACE, text, find(SPACE, text, keyEnd) + 1);
    const valueEnd = endOfValue(text, value);
    if (JSON.parse(text.slice(key, keyEnd)) === name) return text.slice(value, valueEnd);
    at = find(SPACE, text, valueEnd) + 1;
  }
  return undefined;
}

/** The texts of the elements of a JSON array. */
export function elementTexts(text: string): string[] {
  const elements = [];
  let at = find(SPACE, text, 0) + 1;
  for (;;) {
    const value = find(SPACE, text, at);
    if (value >= text.length || text[value] === "]") return elements;
    const valueEnd = endOfValue(text, value);
    elements.push(text.slice(value, valueEnd));
    at = find(SPACE, text, valueEnd) + 1;
  }
}
