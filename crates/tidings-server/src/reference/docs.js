// Shows /openapi.json. Everything that comes from the document is put in as text.

const find = document.getElementById("find");
const found = document.getElementById("found");
const operations = [];

const make = (tag, text, ...children) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
};

const soft = (text) => {
  const element = make("span", text);
  element.className = "soft";
  return element;
};

const resolve = (openapi, value) => {
  if (!value?.$ref) return value;
  const parts = value.$ref.slice(2).split("/");
  return parts.reduce((at, part) => at?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], openapi);
};

// The type of a schema in a few words.
const kind = (openapi, schema) => {
  if (schema?.$ref) return schema.$ref.split("/").at(-1);
  const either = schema?.anyOf ?? schema?.oneOf;
  if (either) return [...new Set(either.map((one) => kind(openapi, one)))].join(" or ");
  if (schema?.const !== undefined) return JSON.stringify(schema.const);
  if (schema?.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema?.items) return `array of ${kind(openapi, schema.items)}`;
  const types = [schema?.type ?? "any JSON"].flat().join(" or ");
  return schema?.format ? `${types} (${schema.format})` : types;
};

const limits = (schema) => {
  const { minimum, maximum, minLength, maxLength, minItems, maxItems, default: otherwise } = schema ?? {};
  const range = (least, most, unit) => {
    if (least === undefined && most === undefined) return [];
    return [most === undefined ? `at least ${least}${unit}` : `${least ?? 0} to ${most}${unit}`];
  };
  return [
    ...range(minimum, maximum, ""),
    ...range(minLength, maxLength, " characters"),
    ...range(minItems, maxItems, " elements"),
    ...(otherwise === undefined ? [] : [`default ${JSON.stringify(otherwise)}`]),
  ].join(", ");
};

const field = (openapi, name, schema, required, description) => {
  const item = make("li", "", make("code", name), " ", soft(kind(openapi, schema)));
  const more = [required ? "required" : "", limits(schema)].filter(Boolean).join(", ");
  if (more) item.append(" ", soft(`(${more})`));
  const text = description ?? schema?.description ?? resolve(openapi, schema)?.description;
  if (text) item.append(` ${text}`);
  return item;
};

// The fields of the object that a schema describes, if it is one.
const fields = (openapi, schema) => {
  let object = resolve(openapi, schema);
  if (object?.anyOf) object = resolve(openapi, object.anyOf[0]);
  if (!object?.properties) return [];
  const names = Object.entries(object.properties);
  return [make("ul", "", ...names.map(([name, property]) =>
    field(openapi, name, property, object.required?.includes(name))))];
};

const content = (openapi, contents) => Object.entries(contents ?? {}).flatMap(([type, { schema, example }]) => [
  make("p", "", soft(schema ? `${type}: ${kind(openapi, schema)}` : type)),
  ...fields(openapi, schema),
  ...(example === undefined ? [] : [make("pre", JSON.stringify(example, null, 2))]),
]);

const response = (openapi, status, described) => {
  const { description, content: contents } = resolve(openapi, described);
  const examples = contents?.["application/json"]?.examples;
  const title = make("summary", "", make("code", status), ` ${description}`);
  const body = examples
    ? [make("ul", "", ...Object.entries(examples).map(([code, { summary }]) =>
        make("li", "", make("code", code), ` ${summary}`)))]
    : content(openapi, contents);
  return make("details", "", title, ...body);
};

const operation = (openapi, method, path, described) => {
  const verb = make("code", method.toUpperCase());
  verb.className = "method";
  const element = make("details", "", make("summary", "", verb, " ", make("code", path), ` ${described.summary}`));
  element.id = described.operationId;
  if (described.description) element.append(make("p", described.description));
  const scopes = described.security.flatMap((one) => one.apiKey ?? []);
  const has = (name) => described.security.some((one) => one[name]);
  const callers = [
    ...scopes.map((scope) => `an API key with the scope ${scope}`),
    ...(has("token") ? ["a token of the user"] : []),
  ];
  element.append(make("p", "", soft(`For ${callers.join(", or ") || "everyone"}`)));
  const parameters = described.parameters.map((one) => resolve(openapi, one));
  if (parameters.length) {
    element.append(make("h3", "Parameters"), make("ul", "", ...parameters.map((one) =>
      field(openapi, one.name, one.schema, one.required, one.description ?? `in the ${one.in}`))));
  }
  if (described.requestBody) {
    const title = described.requestBody.required ? "Body" : "Body, which may be missing";
    element.append(make("h3", title), ...content(openapi, described.requestBody.content));
  }
  element.append(make("h3", "Responses"), ...Object.entries(described.responses).map(([status, one]) =>
    response(openapi, status, one)));
  operations.push({ element, text: `${method} ${path} ${described.summary}`.toLowerCase() });
  return element;
};

const show = (openapi) => {
  document.getElementById("about").textContent = `${openapi.info.summary}. Version ${openapi.info.version}`;
  const groups = document.getElementById("groups");
  for (const { name, description } of openapi.tags) {
    const section = make("section", "", make("h2", name), make("p", description));
    for (const [path, methods] of Object.entries(openapi.paths)) {
      for (const [method, described] of Object.entries(methods)) {
        if (described.tags.includes(name)) section.append(operation(openapi, method, path, described));
      }
    }
    groups.append(section);
  }
  document.getElementById(decodeURIComponent(location.hash.slice(1)))?.setAttribute("open", "");
};

const filter = () => {
  const wanted = find.value.trim().toLowerCase();
  let count = 0;
  for (const { element, text } of operations) {
    element.hidden = !text.includes(wanted);
    if (!element.hidden) count += 1;
  }
  for (const section of document.querySelectorAll("section")) {
    section.hidden = !section.querySelector(":scope > details:not([hidden])");
  }
  found.textContent = `${count} routes`;
};

try {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`the server replied with ${response.status}`);
  show(await response.json());
  filter();
  find.addEventListener("input", filter);
} catch (error) {
  found.textContent = `cannot show the interface: ${error.message}`;
}
