"use strict";
// Links open what they lead to, seeds open under their recipe, and a table that is wider than its place shows it.
(() => {
  const reveal = (id) => {
    const target = id && document.getElementById(id);
    if (!target) return;
    const own = target.matches(".fold") ? target.querySelector("details") : null;
    if (own) own.open = true;
    for (let part = target; part; part = part.parentElement) {
      if (part.matches("details")) part.open = true;
      if (part.dataset.picked === undefined || !part.hidden) continue;
      const choice = part.parentElement.querySelector("[data-pick]");
      choice.value = part.dataset.picked;
      choice.dispatchEvent(new Event("change", { bubbles: true }));
    }
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (link) reveal(link.getAttribute("href").slice(1));
  });
  const arrive = () => { reveal(location.hash.slice(1)); };
  addEventListener("hashchange", arrive);
  arrive();

  document.querySelectorAll("[data-opens]").forEach((button) => button.addEventListener("click", () => {
    const open = button.getAttribute("aria-expanded") !== "true";
    button.setAttribute("aria-expanded", String(open));
    document.querySelectorAll(`[data-of="${button.dataset.opens}"]`).forEach((row) => { row.hidden = !open; });
  }));

  const edges = (part) => { part.toggleAttribute("data-more", part.scrollWidth - part.clientWidth - part.scrollLeft > 2); };
  const watched = new ResizeObserver((entries) => entries.forEach((entry) => edges(entry.target)));
  document.querySelectorAll(".scroll").forEach((part) => {
    part.addEventListener("scroll", () => edges(part), { passive: true });
    watched.observe(part);
  });
})();
