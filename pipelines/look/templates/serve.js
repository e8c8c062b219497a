"use strict";
(() => {
  const said = document.getElementById("connection");

  const filter = document.querySelector("[data-filter]");
  const sift = () => {
    if (!filter) return;
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    document.querySelectorAll(`#${filter.dataset.filter} tbody tr`).forEach((row) => {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    });
    document.getElementById("matches").textContent = words.length ? `${shown} shown` : "";
  };
  if (filter) filter.addEventListener("input", sift);

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
    live.innerHTML = text;
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
