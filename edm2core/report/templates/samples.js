"use strict";
// Which grids are shown: an epoch, samples or interpolations, all recipes of one training seed and average or two side by side; and one marked cell.
document.querySelectorAll(".samples").forEach((block) => {
  const slider = block.querySelector("input[type=range]");
  if (!slider) return;
  const choice = (name) => block.querySelector(`[data-choose="${name}"]`);
  const chosen = (name, otherwise) => (choice(name) ? choice(name).value : otherwise);
  const columns = block.querySelector(".columns"), output = block.querySelector("output");
  const epochs = slider.dataset.epochs.split(","), strips = [...block.querySelectorAll("[data-strip]")];

  const show = () => {
    const epoch = epochs[slider.value], kind = chosen("kind", "grid"), paired = choice("pair") !== null && choice("pair").checked;
    output.textContent = epoch;
    slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
    const sides = [chosen("left"), chosen("right")];
    block.querySelectorAll("[data-pair]").forEach((part) => { part.hidden = !paired; });
    block.querySelectorAll("[data-all]").forEach((part) => { part.hidden = paired; });
    block.querySelectorAll(".hint[data-kind]").forEach((part) => { part.hidden = part.dataset.kind !== kind; });
    columns.classList.toggle("pair", paired);
    strips.forEach((strip) => {
      const place = sides.indexOf(strip.dataset.strip);
      strip.hidden = paired ? place < 0 : strip.dataset.variant !== chosen("variant", "0");
      strip.style.order = paired ? place : 0;
      strip.querySelectorAll("[data-kind]").forEach((part) => { part.hidden = part.dataset.kind !== kind || part.dataset.epoch !== epoch; });
    });
  };
  slider.addEventListener("input", show);
  block.querySelectorAll("[data-choose]").forEach((part) => part.addEventListener("change", show));
  show();

  let cell = null; // column and row
  const mark = (found) => {
    cell = found;
    columns.classList.toggle("marked", found !== null);
    if (!found) return;
    columns.style.setProperty("--column", found[0]);
    columns.style.setProperty("--row", found[1]);
  };
  const rows = () => Number((columns.querySelector("figure:not([hidden]) .frame:not([hidden])") || columns).style.getPropertyValue("--rows")) || 8;
  columns.addEventListener("pointermove", (event) => {
    const frame = event.target.closest(".frame");
    if (!frame) return mark(null);
    const box = frame.getBoundingClientRect();
    mark([Math.floor(8 * (event.clientX - box.left) / box.width), Math.floor(rows() * (event.clientY - box.top) / box.height)]);
  });
  columns.addEventListener("pointerleave", () => mark(null));
  const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  columns.addEventListener("keydown", (event) => {
    if (event.key === "Escape") mark(null);
    if (!moves[event.key]) return;
    event.preventDefault();
    const [column, row] = cell || [0, 0], step = cell ? moves[event.key] : [0, 0];
    mark([(column + step[0] + 8) % 8, (row + step[1] + rows()) % rows()]);
  });
});
