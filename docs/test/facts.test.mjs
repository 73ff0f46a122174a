// What the handbook names exists: routes, settings, variables, commands, dependencies.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { blocks, pages, read } from "./pages.mjs";
import { Session, programs, tools } from "./session.mjs";

const handbook = pages.map((page) => [page, read(page)]);

/** What the program says of itself: the help of each command, of its commands too. */
function help(path = []) {
  const text = execFileSync(`${programs}/tidings`, [...path, "--help"], { encoding: "utf8" });
  const [, commands = ""] = text.match(/^Commands:\n((?: .*\n)+)/m) ?? [];
  const names = [...commands.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name).filter((name) => name !== "help");
  return [[path.join(" "), text], ...names.flatMap((name) => help([...path, name]))];
}

test("every route that the handbook names is in the OpenAPI document", async (t) => {
  const session = await Session.start(t);
  await session.start({ page: "openapi.json", line: 0, word: "background", text: "tidings serve --dev" });
  const { paths } = await (await fetch(`${session.url("8080")}/openapi.json`)).json();
  const anonymous = (path) => path.replaceAll(/\{[^}]*\}/g, "{}");
  const known = new Set(Object.entries(paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method.toUpperCase()} ${anonymous(path)}`)));
  let named = 0;
  for (const [page, text] of handbook) {
    for (const [route, method, path] of text.matchAll(/`(GET|POST|PATCH|DELETE) (\/v1\/[a-z{}/-]+)/g)) {
      named += 1;
      assert.ok(known.has(`${method} ${anonymous(path)}`), `${page}: ${route}`);
    }
  }
  assert.ok(named > 20, `${named} routes`);
});

test("every flag, variable and command that the handbook names is one of the program", () => {
  const said = help();
  const all = said.map(([, text]) => text).join("\n");
  const flags = new Set(all.match(/--[a-z][a-z-]+/g));
  const variables = new Set(all.match(/TIDINGS_[A-Z_]+/g));
  const commands = new Set(said.map(([path]) => path.split(" ")[0]));
  // Of cargo, of the tests and of the benchmarks.
  const foreign = new Set(["--release", "--example", "--path", "--profile", "--features", "--fast", "--no-default-features", "--only", "--quick"]);
  for (const [page, text] of handbook) {
    for (const [flag] of text.matchAll(/(?<=`|`[^`\n]* )--[a-z][a-z-]+(?=[^`\n]*`)/g)) {
      assert.ok(flags.has(flag) || foreign.has(flag), `${page}: ${flag}`);
    }
    for (const [variable] of text.matchAll(/\bTIDINGS_[A-Z]+(_[A-Z]+)*\b/g)) assert.ok(variables.has(variable), `${page}: ${variable}`);
    for (const [, command] of text.matchAll(/`tidings ([a-z]+)/g)) assert.ok(commands.has(command), `${page}: tidings ${command}`);
  }
});

test("the dependencies that the handbook names are those of the workspace", () => {
  const manifest = read("Cargo.toml");
  for (const { page, line, text } of pages.flatMap(blocks).filter(({ language }) => language === "toml")) {
    for (const [whole, name, version] of text.matchAll(/^([a-z-]+) = .*?"(\d[\d.]*)"/gm)) {
      assert.match(manifest, new RegExp(`^${name} = .*"${version.replaceAll(".", "\\.")}`, "m"), `${page}:${line}: ${whole}`);
    }
  }
});

test("the configurations in YAML are YAML, with what their programs read", () => {
  // A key that stands twice is an error to these programs, and not to the parser.
  const script = `
import json, sys, yaml
class Strict(yaml.SafeLoader):
    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        if len(names) != len(set(names)):
            raise yaml.constructor.ConstructorError(None, None, f"a key twice: {names}", node.start_mark)
        return super().construct_mapping(node, deep)
json.dump(yaml.load(sys.stdin, Strict), sys.stdout)`;
  const parse = (input) => JSON.parse(execFileSync(`${tools}/python/bin/python`, ["-c", script], { input, encoding: "utf8" }));
  const found = pages.flatMap(blocks).filter(({ language }) => language === "yaml").map(({ page, text }) => [page, parse(text)]);
  const of = (page) => found.find(([name]) => name === page)?.[1];
  assert.equal(found.length, 2, "a new block needs a check of its own");
  const [{ static_configs: [{ targets }], authorization }] = of("docs/operations.md").scrape_configs;
  assert.ok(targets.length > 0 && authorization.credentials_file !== undefined);
  const { entryPoints, http } = of("docs/proxies.md");
  assert.equal(entryPoints.web.transport.respondingTimeouts.readTimeout, 0);
  for (const { service, middlewares } of Object.values(http.routers)) {
    assert.ok(service in http.services, service);
    for (const name of middlewares) assert.ok(name in http.middlewares, name);
  }
  assert.equal(http.middlewares["no-forwarded"].headers.customRequestHeaders.Forwarded, "");
  const { services, volumes } = parse(read("compose.yaml"));
  assert.ok(Object.keys(services).length > 1);
  for (const [name, { depends_on: needs = {} }] of Object.entries(services)) {
    for (const other of Array.isArray(needs) ? needs : Object.keys(needs)) assert.ok(other in services, `${name} needs ${other}`);
  }
  assert.ok(volumes === undefined || typeof volumes === "object");
});
