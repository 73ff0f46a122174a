// Reads the pages of the handbook.

import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

/** The repository, with a slash at its end. */
export const root = fileURLToPath(new URL("../..", import.meta.url));

export const read = (path) => readFileSync(root + path, "utf8");

/** The paths of all pages, from the repository. */
export const pages = ["README.md", "crates/tidings-server/README.md", ...readdirSync(`${root}docs`).filter((name) => name.endsWith(".md")).map((name) => `docs/${name}`)].sort();

/**
 * The fenced blocks of a page, in order, without the indent of a list. After the language, the fence may have a word:
 * the name of the file that the block is; `background`, for commands that go on; or `figure`.
 */
export function blocks(page) {
  const found = [];
  let open;
  for (const [index, line] of read(page).split("\n").entries()) {
    const fence = line.match(/^( *)```(.*)$/);
    if (fence && open) {
      found.push({ ...open, text: open.lines.map((text) => `${text}\n`).join("") });
      open = undefined;
    } else if (fence) {
      const [info, word = ""] = fence[2].split(" ");
      const [language] = info.split(",");
      open = { page, line: index + 1, indent: fence[1].length, language, word, lines: [] };
    } else {
      open?.lines.push(line.slice(Math.min(open.indent, line.search(/\S|$/))));
    }
  }
  if (open) throw new Error(`${page}:${open.line}: this block has no end`);
  return found;
}

/** Where a block is, for a message. */
export const place = ({ page, line }) => `${page}:${line}`;
