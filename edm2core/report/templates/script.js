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
  const off = new Set(); // recipes that no figure, table or grid shows
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
    const data = plot.data.map((given) => {
      const trace = { ...given, visible: given.visible !== false && !given.meta.off && !off.has(given.meta.recipe) };
      if (trace.meta.color === undefined) return trace;
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

  // One after the other, so that the page can be read and scrolled meanwhile.
  const waiting = Object.keys(plots);
  const seen = (id) => document.getElementById(id).checkVisibility();
  const drawNext = () => {
    const next = waiting.findIndex(seen); // what is hidden is drawn when it is shown
    if (next < 0) return;
    draw(waiting.splice(next, 1)[0]);
    setTimeout(drawNext);
  };
  // plotly.js is in the page, compressed: a third of its size.
  const unpacked = (text) => {
    const bytes = Uint8Array.from(atob(text), (sign) => sign.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const packed = document.getElementById("plotly");
  if (packed) {
    unpacked(packed.textContent.trim()).then((code) => {
      const script = document.createElement("script");
      script.textContent = code;
      document.body.append(script);
      drawNext();
    }, () => document.querySelectorAll(".canvas").forEach((canvas) => { canvas.textContent = "This browser is too old to draw figures."; }));
  }

  document.querySelectorAll("[data-pick]").forEach((choice) => choice.addEventListener("change", () => {
    choice.closest("section").querySelectorAll("[data-picked]").forEach((part) => { part.hidden = part.dataset.picked !== choice.value; });
    if (window.Plotly) drawNext();
  }));

  document.addEventListener("toggle", () => { if (window.Plotly) drawNext(); }, true);

  document.querySelectorAll("[data-log]").forEach((box) => box.addEventListener("change", () => {
    plots[box.dataset.log].layout[box.dataset.axis].type = box.checked ? "log" : "linear";
    if (drawn.includes(box.dataset.log)) draw(box.dataset.log);
  }));

  document.querySelectorAll("[data-line]").forEach((line) => line.addEventListener("click", () => {
    const shown = line.getAttribute("aria-pressed") !== "true";
    line.setAttribute("aria-pressed", String(shown));
    plots[line.dataset.figure].data.forEach((trace) => { if (trace.name === line.dataset.line) trace.meta.off = !shown; });
    if (drawn.includes(line.dataset.figure)) draw(line.dataset.figure);
  }));

  document.querySelectorAll("[data-toggle]").forEach((chip) => chip.addEventListener("click", () => {
    const name = chip.dataset.toggle, shown = off.delete(name) || !off.add(name);
    chip.setAttribute("aria-pressed", String(shown));
    document.querySelectorAll("[data-recipe]").forEach((part) => { if (part.dataset.recipe === name) part.toggleAttribute("data-off", !shown); });
    redraw();
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

  document.querySelectorAll(".epochs").forEach((block) => {
    const slider = block.querySelector("input[type=range]");
    if (!slider) return;
    const epochs = slider.dataset.epochs.split(","), output = block.querySelector("output"), select = block.querySelector("select");
    const maps = [...block.querySelectorAll(".canvas")].map((canvas) => canvas.id);
    const show = () => {
      const epoch = epochs[slider.value];
      output.textContent = epoch;
      slider.setAttribute("aria-valuetext", `epoch ${epoch}`);
      maps.forEach((id) => {
        plots[id].data.forEach((trace) => {
          trace.visible = String(trace.meta.epoch) === epoch && (!trace.meta.variant || !select || trace.meta.variant === select.value);
        });
        if (drawn.includes(id)) draw(id);
      });
    };
    slider.addEventListener("input", show);
    if (select) select.addEventListener("change", show);
    show();
  });
})();
