// As much of a browser's page as the reference's search needs. Prints, for each query among the arguments, what is found:
// a line of JSON with the count that is told and the addresses in their order.
"use strict";
const fs = require("fs");
const path = require("path");
const vm = require("vm");
const [directory, ...queries] = process.argv.slice(2);

class Element {
  constructor() { this.children = []; this.listeners = {}; this.value = ""; this.hidden = true; this.textContent = ""; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  append(...children) {
    this.children.push(...children);
    const script = children.find((child) => child.src);
    if (script) { run(script.src); script.onload(); }
  }
  replaceChildren(...children) { this.children = children; }
  querySelectorAll(tag) { return this.children.flatMap((item) => item.children.filter((child) => child.tag === tag)); }
  focus() { document.activeElement = this; }
}

const elements = {};
const document = {
  head: new Element(),
  getElementById: (id) => (elements[id] ??= new Element()),
  createElement: (tag) => Object.assign(new Element(), { tag }),
  addEventListener: () => {},
};
const context = vm.createContext({ document, window: {}, console });
context.window = context;
const run = (name) => vm.runInContext(fs.readFileSync(path.join(directory, name), "utf8"), context);

run("search.js");
(async () => {
  const { search, "search-results": list, "search-count": count } = elements;
  for (const query of queries) {
    search.value = query;
    await search.listeners.input();
    const found = list.querySelectorAll("a").map((link) => link.href);
    console.log(JSON.stringify({ count: count.textContent, hidden: list.hidden, found }));
  }
})();
