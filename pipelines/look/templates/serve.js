"use strict";
(() => {
  const said = document.getElementById("connection");

  // Tables whose rows can be found and sorted by any column. A column that ranks is sorted within each protocol alone.
  const controls = document.querySelector("[data-controls]");
  let sift = () => {};
  if (controls) {
    const table = () => document.getElementById(controls.dataset.controls);
    const heads = () => [...table().tHead.rows[0].cells];
    const options = (first) => [first, ...heads().map((head) => head.textContent)].map((words, number) => new Option(words, number - 1));
    const field = (words, element) => { const label = document.createElement("label"); label.append(`${words} `, element); controls.append(label); return element; };
    const find = field("Find", Object.assign(document.createElement("input"), { type: "search", placeholder: "words, or < 12", autocomplete: "off" }));
    const where = field("in", document.createElement("select")), by = field("Sort by", document.createElement("select"));
    const order = field("", document.createElement("select")), said = document.createElement("output");
    where.append(...options("all columns"));
    by.append(...options("the order here"));
    order.append(new Option("ascending", "1"), new Option("descending", "-1"));
    order.setAttribute("aria-label", "Order");
    where.setAttribute("aria-label", "In column");
    said.id = "matches";
    said.setAttribute("aria-live", "polite");
    controls.append(said);

    const cell = (row, column) => row.cells[column];
    const value = (row, column) => { const text = cell(row, column)?.dataset.value; return text === undefined ? null : Number(text); };
    const group = (row, column) => cell(row, column)?.dataset.group || row.dataset.group || "";
    const matches = (row, words, column) => {
      const limit = column >= 0 && /^([<>])\s*(-?[\d.]+)$/.exec(find.value.trim());
      if (limit) { const number = value(row, column); return number !== null && (limit[1] === "<" ? number < Number(limit[2]) : number > Number(limit[2])); }
      const text = (column < 0 ? row : cell(row, column) || row).textContent.toLowerCase();
      return words.every((word) => text.includes(word));
    };
    const compare = (column, sign) => (a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      if (x !== null && y !== null) return sign * (x - y);
      if (x !== null || y !== null) return x === null ? 1 : -1;
      return sign * cell(a, column).textContent.trim().localeCompare(cell(b, column).textContent.trim(), undefined, { numeric: true });
    };
    sift = () => {
      const body = table().tBodies[0], rows = [...body.rows].filter((row) => row.cells.length > 1), column = Number(by.value);
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      rows.forEach((row, number) => { row.dataset.place ??= number; row.hidden = !matches(row, words, Number(where.value)); });
      const ranks = column >= 0 && heads()[column].dataset.ranks !== undefined;
      const groups = ranks ? [...new Set(rows.map((row) => group(row, column)))] : [];
      const order_of = column < 0 ? (a, b) => a.dataset.place - b.dataset.place : compare(column, Number(order.value));
      rows.sort((a, b) => (groups.indexOf(group(a, column)) - groups.indexOf(group(b, column))) || order_of(a, b));
      rows.forEach((row, number) => {
        row.classList.toggle("parted", ranks && number > 0 && group(row, column) !== group(rows[number - 1], column));
        body.append(row);
      });
      heads().forEach((head, number) => { if (number === column) head.setAttribute("aria-sort", order.value === "1" ? "ascending" : "descending"); else head.removeAttribute("aria-sort"); });
      document.getElementById("ranked").textContent = groups.filter(Boolean).length > 1 ? table().dataset.grouped : "";
      said.textContent = words.length ? `${rows.filter((row) => !row.hidden).length} shown` : "";
    };
    [find, where, by, order].forEach((part) => part.addEventListener("input", sift));
    document.addEventListener("click", (event) => {
      const head = event.target.closest(`#${controls.dataset.controls} thead th`);
      if (!head) return;
      if (by.value === String(head.cellIndex)) order.value = order.value === "1" ? "-1" : "1";
      by.value = String(head.cellIndex);
      sift();
    });
  }

  const live = document.querySelector("[data-live]");
  if (!live) return;
  const end = () => { const pre = live.querySelector("pre"); if (pre) pre.scrollTop = pre.scrollHeight; };
  if ("follow" in live.dataset) end();
  let before = null;

  // The live part is replaced only when it says something else, so that reading, selecting and the keyboard's place are left alone.
  const replace = (text) => {
    if (text === before) return;
    const first = before === null;
    before = text;
    if (first && live.innerHTML.trim() === text.trim()) return;
    const focus = document.activeElement && live.contains(document.activeElement) ? document.activeElement : null;
    const pre = live.querySelector("pre");
    const follows = pre && pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 4;
    const scrolled = [...live.querySelectorAll(".scroll")].map((part) => part.scrollLeft);
    const again = focus && (focus.id ? `#${CSS.escape(focus.id)}` : focus.getAttribute("aria-label") ? `[aria-label="${CSS.escape(focus.getAttribute("aria-label"))}"]` : "");
    const open = [...live.querySelectorAll("details[open][id]")].map((part) => part.id);
    live.innerHTML = text;
    open.forEach((id) => { const part = document.getElementById(id); if (part) part.open = true; });
    live.querySelectorAll(".scroll").forEach((part, number) => { part.scrollLeft = scrolled[number] || 0; });
    if (again) { const found = live.querySelector(again); if (found) found.focus({ preventScroll: true }); }
    if (follows) end();
    sift();
  };

  const look = async () => {
    try {
      if (!document.hidden) {
        const answer = await fetch(`${location.pathname}?part=live`, { cache: "no-cache" });
        if (answer.ok) replace(await answer.text());
        said.textContent = answer.ok ? "" : `This page is not live any more: ${answer.status} ${answer.statusText}.`;
      }
    } catch {
      said.textContent = "The server does not answer; what is shown is the last it said.";
    }
    setTimeout(look, Number(live.dataset.live));
  };
  setTimeout(look, Number(live.dataset.live));
})();
