// Shows the description that this server gives of itself. Text only ever becomes text.
const METHODS = ["get", "post", "put", "patch", "delete"];
const WHO = {
  open: "everybody",
  anyone: "everybody, more with a token",
  user: "who is logged in",
  staff: "staff",
  admin: "admins",
};
const contents = document.getElementById("contents");
const operations = document.getElementById("operations");

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text ?? "";
  if (className) made.className = className;
  return made;
}

// What a reference refers to, with its name.
function resolve(description, schema) {
  const name = schema?.$ref?.split("/").pop();
  return name ? { name, ...description.components.schemas[name] } : (schema ?? {});
}

function kindOf(description, schema) {
  const seen = resolve(description, schema);
  if (seen.enum) return seen.enum.join(" | ");
  const choices = seen.oneOf ?? seen.anyOf;
  if (choices) return choices.map((choice) => kindOf(description, choice)).join(" or ");
  const kinds = [seen.type ?? "any"].flat();
  return kinds
    .map((kind) => (kind === "array" ? `list of ${kindOf(description, seen.items)}` : kind === "object" ? seen.name ?? kind : kind))
    .join(" or ");
}

function bounds(schema) {
  const said = [
    ["minimum", "at least"],
    ["maximum", "at most"],
    ["minLength", "characters at least"],
    ["maxLength", "characters at most"],
    ["maxItems", "entries at most"],
  ];
  return said.filter(([name]) => schema?.[name] !== undefined).map(([name, text]) => `${text} ${schema[name]}`);
}

function row(list, name, kind, parts) {
  const line = element("dd");
  line.append(element("span", kind, "kind"), ` ${parts.filter(Boolean).join(" · ")}`);
  list.append(element("dt", name), line);
}

function fields(description, schema, needed) {
  const seen = resolve(description, schema);
  const choices = (seen.oneOf ?? seen.anyOf ?? []).map((choice) => resolve(description, choice));
  const shape = seen.properties ? seen : choices.find((choice) => choice.properties);
  if (!shape) return null;
  const list = element("dl");
  for (const [name, part] of Object.entries(shape.properties)) {
    const must = shape.required?.includes(name) ? needed : "";
    const text = part.description ?? resolve(description, part).description;
    row(list, name, kindOf(description, part), [must, text, ...bounds(part)]);
  }
  return list;
}

// What is taken says what is needed; what is answered is all there.
function body(description, title, content, needed = "") {
  const part = document.createDocumentFragment();
  const [kind, told] = Object.entries(content ?? {})[0] ?? [];
  if (!told) return part;
  part.append(element("h4", `${title} · ${kind}`));
  const list = fields(description, told.schema, needed);
  if (list) part.append(list);
  if (told.example !== undefined) part.append(element("pre", JSON.stringify(told.example, null, 2)));
  return part;
}

function card(description, path, method, operation) {
  const made = element("article");
  made.id = operation.operationId;
  const title = element("h3");
  title.append(element("span", method.toUpperCase(), "method"), path);
  made.append(element("span", WHO[operation["x-audience"]], "who"), title, element("p", operation.summary));
  if (operation.description) made.append(element("p", operation.description));
  if (operation.parameters?.length) {
    const list = element("dl");
    for (const { name, in: place, required, description: text, schema } of operation.parameters) {
      row(list, name, `${place}, ${kindOf(description, schema)}`, [required ? "needed" : "", text, ...bounds(schema)]);
    }
    made.append(element("h4", "Takes"), list);
  }
  made.append(body(description, "Body", operation.requestBody?.content, "needed"));
  for (const [status, answer] of Object.entries(operation.responses)) {
    if (status === "default") continue;
    if (answer.content) made.append(body(description, `Answers ${status}`, answer.content));
    else made.append(element("h4", `Answers ${status}`));
  }
  made.dataset.text = made.textContent.toLowerCase();
  return made;
}

function show(description) {
  const byTag = new Map();
  for (const [path, item] of Object.entries(description.paths)) {
    for (const method of METHODS.filter((method) => item[method])) {
      const [tag] = item[method].tags ?? ["other"];
      byTag.set(tag, [...(byTag.get(tag) ?? []), [path, method, item[method]]]);
    }
  }
  operations.replaceChildren();
  for (const [tag, found] of byTag) {
    operations.append(element("h2", tag));
    for (const [path, method, operation] of found) {
      const link = element("a", `${method.toUpperCase()} ${path}`);
      link.href = `#${operation.operationId}`;
      contents.append(link);
      operations.append(card(description, path, method, operation));
    }
  }
  operations.append(element("h2", "problems"), body(description, "Whatever is refused", description.paths["/healthz"].get.responses.default.content));
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
}

document.getElementById("find").addEventListener("input", ({ target }) => {
  const wanted = target.value.toLowerCase();
  for (const card of operations.querySelectorAll("article")) card.hidden = !card.dataset.text.includes(wanted);
});

fetch("/openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(answer.status))))
  .then(show)
  .catch(() => operations.replaceChildren(element("p", "The description could not be read. Try again in a moment.", "quiet")));
