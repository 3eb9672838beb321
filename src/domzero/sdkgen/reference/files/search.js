// The reference's search. It runs in the browser alone, also for pages opened from a disk; the index is fetched when
// somebody first wants to search. Everything is put into the page as text, never as HTML.
"use strict";
(() => {
  const MOST = 40;
  const form = document.getElementById("search-form");
  const input = document.getElementById("search");
  const list = document.getElementById("search-results");
  const count = document.getElementById("search-count");
  let loading = null;

  const load = () => {
    loading ??= new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = "search-index.js";
      script.onload = () => resolve(window.referenceIndex);
      script.onerror = () => { loading = null; reject(new Error("The index could not be loaded.")); };
      document.head.append(script);
    });
    return loading;
  };

  // The lower, the better; null for what does not match. Every word must be somewhere.
  const rank = (entry, words, whole) => {
    const name = entry[1].toLowerCase();
    const everything = name + " " + entry[3].toLowerCase();
    if (!words.every((word) => everything.includes(word))) return null;
    const last = name.slice(name.lastIndexOf(".") + 1);
    if (name === whole) return 0;
    if (last === whole) return 1;
    if (name.startsWith(whole)) return 2;
    if (last.startsWith(whole)) return 3;
    return words.every((word) => name.includes(word)) ? 4 : 5;
  };

  const find = (index, query) => {
    const whole = query.trim().toLowerCase();
    const words = whole.split(/\s+/);
    return index
      .map((entry, at) => ({ entry, at, rank: rank(entry, words, whole) }))
      .filter((hit) => hit.rank !== null)
      .sort((one, other) =>
        one.rank - other.rank || one.entry[1].length - other.entry[1].length || one.at - other.at)
      .map((hit) => hit.entry);
  };

  const item = ([kind, name, url, text]) => {
    const link = document.createElement("a");
    link.href = url;
    const label = document.createElement("code");
    label.textContent = name;
    const note = document.createElement("small");
    note.textContent = ` ${kind}${text ? ": " + text : ""}`;
    link.append(label, note);
    const made = document.createElement("li");
    made.append(link);
    return made;
  };

  const show = async () => {
    const query = input.value;
    if (!query.trim()) {
      list.replaceChildren();
      list.hidden = true;
      count.textContent = "";
      return;
    }
    try {
      const index = await load();
      if (query !== input.value) return;
      const hits = find(index, query);
      list.replaceChildren(...hits.slice(0, MOST).map(item));
      list.hidden = hits.length === 0;
      count.textContent = hits.length > MOST ? `${hits.length} found, the first ${MOST} shown` : `${hits.length} found`;
    } catch (error) {
      count.textContent = error.message;
    }
  };

  const links = () => [...list.querySelectorAll("a")];
  const move = (event, step) => {
    const all = links();
    const next = all.indexOf(document.activeElement) + step;
    if (!all.length || (next < 0 && step > 0)) return;
    event.preventDefault();
    (next < 0 ? input : all[Math.min(next, all.length - 1)]).focus();
  };

  form.hidden = false;
  input.addEventListener("focus", () => load().catch(() => {}), { once: true });
  input.addEventListener("input", show);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const [first] = links();
    if (first) window.location.assign(first.href);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown") move(event, 1);
    if (event.key === "ArrowUp") move(event, -1);
    if (event.key === "Escape") { input.value = ""; input.focus(); show(); }
  });
  list.addEventListener("click", () => { list.hidden = true; });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.ctrlKey && !event.metaKey && document.activeElement !== input) {
      event.preventDefault();
      input.focus();
    }
  });
})();
