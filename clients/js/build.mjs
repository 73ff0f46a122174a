// Makes one module of src/, which the server serves as /tidings.js and the package for npm contains.
//
//   node build.mjs           writes the file that is committed
//   node build.mjs --check   fails if the committed file is not what src/ makes
//   node build.mjs --pack    puts it and the licenses where npm packs them

import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

const here = dirname(fileURLToPath(import.meta.url));
const entry = join(here, "src/index.ts");
const output = join(here, "../../crates/tidings-server/src/client/tidings.js");

const { version, license } = JSON.parse(readFileSync(join(here, "package.json"), "utf8"));
const exported = [];
/** Which file declares a name: in one module there is one of each. */
const declared = new Map();
const sources = [];
const seen = new Set();

/** Adds a file after the files that it imports. */
function add(path) {
  if (seen.has(path)) return;
  seen.add(path);
  const source = ts.createSourceFile(path, readFileSync(path, "utf8"), ts.ScriptTarget.ES2022, true);
  for (const { moduleSpecifier } of source.statements) {
    if (moduleSpecifier === undefined) continue;
    if (!moduleSpecifier.text.startsWith("./")) throw new Error(`${path} imports ${moduleSpecifier.text}`);
    add(join(dirname(path), moduleSpecifier.text.replace(/\.js$/, ".ts")));
  }
  sources.push({ path, text: withoutModules(path, source.text) });
}

/** The file as JavaScript, without imports and exports. */
function withoutModules(path, text) {
  const transform = (context) => (file) => {
    const statements = file.statements.flatMap((statement) => {
      if (ts.isImportDeclaration(statement)) return [];
      if (ts.isExportDeclaration(statement)) {
        if (path === entry) exported.push(...statement.exportClause.elements.map(({ name }) => name.text));
        return [];
      }
      for (const name of namesOf(statement)) {
        if (declared.has(name)) throw new Error(`${name} is declared in ${declared.get(name)} and ${path}`);
        declared.set(name, relative(here, path));
      }
      if (!ts.canHaveModifiers(statement) || !statement.modifiers) return [statement];
      const kept = statement.modifiers.filter(({ kind }) => kind !== ts.SyntaxKind.ExportKeyword);
      return [replaceModifiers(statement, kept)];
    });
    return context.factory.updateSourceFile(file, statements);
  };
  const replaceModifiers = (statement, modifiers) => {
    const { factory } = ts;
    if (ts.isFunctionDeclaration(statement)) {
      const { asteriskToken, name, typeParameters, parameters, type, body } = statement;
      return factory.updateFunctionDeclaration(statement, modifiers, asteriskToken, name, typeParameters, parameters, type, body);
    }
    if (ts.isClassDeclaration(statement)) {
      const { name, typeParameters, heritageClauses, members } = statement;
      return factory.updateClassDeclaration(statement, modifiers, name, typeParameters, heritageClauses, members);
    }
    if (ts.isVariableStatement(statement)) return factory.updateVariableStatement(statement, modifiers, statement.declarationList);
    throw new Error(`${path}: an unexpected kind of export`);
  };
  const { outputText } = ts.transpileModule(text, {
    compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ES2022, removeComments: true, verbatimModuleSyntax: true },
    transformers: { after: [transform] },
  });
  // One character for each level of depth.
  return outputText.replace(/^(?: {4})+/gm, (indent) => "\t".repeat(indent.length / 4));
}

function namesOf(statement) {
  if (ts.isVariableStatement(statement)) return statement.declarationList.declarations.map(({ name }) => name.text);
  return statement.name === undefined ? [] : [statement.name.text];
}

add(entry);
const body = sources.map(({ path, text }) => `// ${relative(join(here, "src"), path)}\n${text.replace(/^export \{\};?\n/gm, "")}`);
const head = `// tidings-client ${version}, ${license}. Made from clients/js/src by \`npm run build\`.\n`;
const text = `${head}${body.join("")}export { ${exported.filter((name) => declared.has(name)).join(", ")} };\n`;

if (process.argv.includes("--check")) {
  if (readFileSync(output, "utf8") !== text) {
    console.error(`build: ${relative(process.cwd(), output)} is not what src/ makes: run \`npm run build\``);
    process.exit(1);
  }
} else if (process.argv.includes("--pack")) {
  mkdirSync(join(here, "dist"), { recursive: true });
  writeFileSync(join(here, "dist/tidings.js"), text);
  for (const name of ["LICENSE-MIT", "LICENSE-APACHE"]) copyFileSync(join(here, "../..", name), join(here, name));
} else {
  writeFileSync(output, text);
}
