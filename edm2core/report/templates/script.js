"use strict";
(() => {
  const root = document.documentElement;
  const colour = (name) => {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };

  const source = document.getElementById("plots");
  const plots = source ? JSON.parse(source.textContent) : {};
  const drawn = [];
  const touch = matchMedia("(pointer: coarse)").matches;

  // Colours live in the style sheet alone; a figure only says which of them it wants.
  const themed = (plot) => {
    const ink = colour("--ink"), soft = colour("--soft"), rule = colour("--rule"), paper = colour("--card");
    const axis = { gridcolor: rule, linecolor: rule, tickcolor: rule, fixedrange: touch };
    const layout = {
      ...plot.layout,
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: soft },
      hoverlabel: { bgcolor: paper, bordercolor: rule, font: { color: ink } },
      xaxis: { ...plot.layout.xaxis, ...axis },
      yaxis: { ...plot.layout.yaxis, ...axis },
    };
    const data = plot.data.map((trace) => {
      if (!trace.meta) return trace;
      const c = colour(`--series-${trace.meta.color % 8}`);
      const edge = trace.marker && trace.marker.line ? { line: { ...trace.marker.line, color: c } } : {};
      return { ...trace, line: { ...trace.line, color: c }, marker: { ...trace.marker, color: c, ...edge } };
    });
    return [data, layout];
  };
  const draw = (id) => {
    Plotly.react(id, ...themed(plots[id]), { responsive: true, displaylogo: false, displayModeBar: false });
    if (!drawn.includes(id)) drawn.push(id);
  };
  const redraw = () => drawn.forEach(draw);

  const ids = Object.keys(plots);
  if (ids.length && window.IntersectionObserver) {
    const seen = new IntersectionObserver((entries) => entries.forEach((entry) => {
      if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target.id); }
    }), { rootMargin: "800px" });
    ids.forEach((id) => seen.observe(document.getElementById(id)));
    addEventListener("beforeprint", () => ids.forEach(draw));
  } else ids.forEach(draw);

  document.querySelectorAll("[data-log]").forEach((box) => box.addEventListener("change", () => {
    plots[box.dataset.log].layout.yaxis.type = box.checked ? "log" : "linear";
    draw(box.dataset.log);
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
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  document.querySelectorAll(".samples").forEach((block) => {
    const slider = block.querySelector("input[type=range]");
    if (!slider) return;
    const epochs = slider.dataset.epochs.split(","), output = block.querySelector("output"), select = block.querySelector("select");
    const show = () => {
      const epoch = epochs[slider.value];
      output.textContent = epoch;
      slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
      block.querySelectorAll("[data-epoch]").forEach((part) => { part.hidden = part.dataset.epoch !== epoch; });
      if (select) block.querySelectorAll("[data-variant]").forEach((part) => { part.hidden = part.dataset.variant !== select.value; });
    };
    slider.addEventListener("input", show);
    if (select) select.addEventListener("change", show);
    show();
  });
})();
