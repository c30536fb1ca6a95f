// Lists what is for sale. Text only ever becomes text: names come from whoever runs the shop.
const shelves = document.getElementById("products");
const more = document.getElementById("more");
let cursor = null;

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function price({ amount, currency }) {
  const format = new Intl.NumberFormat(undefined, { style: "currency", currency });
  return format.format(amount / 10 ** format.resolvedOptions().maximumFractionDigits);
}

function card(product) {
  const made = document.createElement("article");
  made.append(element("h2", product.name), element("p", product.description));
  const list = document.createElement("ul");
  for (const variant of product.variants) {
    const line = element("li", "", variant.available > 0 ? "" : "gone");
    line.append(
      element("span", variant.name || variant.sku),
      element("span", variant.available > 0 ? `${price(variant.price)} · ${variant.available} left` : "sold out"),
    );
    list.append(line);
  }
  made.append(list);
  return made;
}

async function show() {
  const query = new URLSearchParams({ limit: "60" });
  if (cursor) query.set("cursor", cursor);
  try {
    const answer = await fetch(`/v1/products?${query}`);
    if (!answer.ok) throw new Error(`${answer.status}`);
    const page = await answer.json();
    if (!cursor) shelves.replaceChildren();
    shelves.append(...page.data.map(card));
    if (!shelves.children.length) shelves.append(element("p", "Nothing is for sale yet.", "quiet"));
    cursor = page.next_cursor;
    more.hidden = !page.has_more;
  } catch {
    if (!cursor) shelves.replaceChildren(element("p", "The shop does not answer. Try again in a moment.", "quiet"));
  }
}

more.addEventListener("click", show);
show();
