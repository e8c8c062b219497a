"use strict";
// While the run goes on the page loads itself again, as the reader left it; never in a frame, whose owner decides, and not for ever.
(() => {
  const running = document.getElementById("running");
  if (!running) return;
  const every = 30_000, most = 15 * 60_000; // a run writes at least every five minutes
  const state = document.querySelector("#running output"), pause = document.querySelector("#running button");
  if (window.self !== window.top) { pause.hidden = true; return; }
  const parts = () => [...document.querySelectorAll("input, select, details, [aria-pressed], #theme")].map((part, number) => ({ part, number }));
  const keep = () => parts().map(({ part }) => {
    if (part.matches("details")) return part.open;
    if (part.matches("[type=checkbox]")) return part.checked;
    if (part.matches("[aria-pressed]")) return part.getAttribute("aria-pressed");
    return part.id === "theme" ? document.documentElement.dataset.theme || "" : part.value;
  });
  const told = (part, kind) => part.dispatchEvent(new Event(kind, { bubbles: true }));
  const restore = ({ values, page, paused, focus, length }) => {
    const own = parts();
    if (own.length === length) { // new results bring new controls: then only the place on the page is kept
      own.forEach(({ part, number }) => {
        const value = values[number];
        if (part.matches("details")) part.open = value;
        else if (part.matches("[type=checkbox]")) { if (part.checked !== value) { part.checked = value; told(part, "change"); } }
        else if (part.matches("[aria-pressed]")) { if (part.getAttribute("aria-pressed") !== value) part.click(); }
        else if (part.id === "theme") { for (let i = 0; i < 3 && (document.documentElement.dataset.theme || "") !== value; i++) part.click(); }
        else if (part.value !== value) { part.value = value; told(part, part.matches("select") ? "change" : "input"); }
      });
      if (focus >= 0) own[focus].part.focus({ preventScroll: true });
    }
    if (paused) pause.click();
    history.scrollRestoration = "manual";
    scrollTo({ left: 0, top: page, behavior: "instant" });
  };
  let paused = false, timer = 0;
  const again = () => {
    if (document.hidden || document.querySelector("dialog[open]")) { timer = setTimeout(again, every); return; }
    const all = parts();
    const focus = all.findIndex(({ part }) => part === document.activeElement);
    history.replaceState({ values: keep(), page: scrollY, paused, focus, length: all.length }, "");
    location.reload();
  };
  const wait = () => {
    clearTimeout(timer);
    if (Date.now() - Date.parse(running.dataset.made) > most) {
      state.textContent = "No news for a quarter of an hour: the run may have ended without a word. Load the page again to look.";
      pause.hidden = true;
    } else if (!paused) {
      timer = setTimeout(again, every);
    }
  };
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    state.textContent = paused ? "This page stays as it is." : "This page refreshes by itself.";
    wait();
  });
  if (history.state && history.state.values) restore(history.state);
  wait();
})();
