"use strict";
(() => {
  const root = document.documentElement;
  const told = (part, kind, detail) => part.dispatchEvent(new CustomEvent(kind, { detail })); // figures.js listens
  document.querySelectorAll("[data-pick]").forEach((choice) => choice.addEventListener("change", () => {
    choice.closest("section").querySelectorAll("[data-picked]").forEach((part) => { part.hidden = part.dataset.picked !== choice.value; });
    told(document, "shown");
  }));

  document.addEventListener("toggle", () => told(document, "shown"), true);

  document.querySelectorAll("[data-toggle]").forEach((chip) => chip.addEventListener("click", () => {
    const name = chip.dataset.toggle, shown = chip.getAttribute("aria-pressed") !== "true";
    chip.setAttribute("aria-pressed", String(shown));
    document.querySelectorAll("[data-recipe]").forEach((part) => { if (part.dataset.recipe === name) part.toggleAttribute("data-off", !shown); });
    told(document, "recipe", { name, shown });
  }));

  const button = document.getElementById("theme");
  const themes = [["", "Auto", "as the system has them"], ["light", "Light", "light"], ["dark", "Dark", "dark"]];
  let theme = 0;
  button.addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    const [name, word, long] = themes[theme];
    name ? root.setAttribute("data-theme", name) : root.removeAttribute("data-theme");
    button.querySelector("span").textContent = word;
    button.setAttribute("aria-label", `Colours: ${long}`);
    told(document, "theme");
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => told(document, "theme"));

  document.querySelectorAll(".epochs").forEach((block) => {
    const slider = block.querySelector("input[type=range]");
    if (!slider) return;
    const epochs = slider.dataset.epochs.split(","), output = block.querySelector("output"), select = block.querySelector("select");
    const show = () => {
      const epoch = epochs[slider.value];
      output.textContent = epoch;
      slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
      block.querySelectorAll("figure.plot").forEach((figure) => told(figure, "choose", { epoch, ...(select ? { training: select.value } : {}) }));
    };
    slider.addEventListener("input", show);
    if (select) select.addEventListener("change", show);
    show();
  });
})();
