"use strict";
// Draws the figures, the nearest to the reader first, and lets them be read, changed and saved.
(() => {
  const source = document.getElementById("figures");
  if (!source) return;
  const root = document.documentElement, tip = document.getElementById("tip"), hidden = new Set(); // recipes that no figure shows
  const opened = new Set(); // sections that only the print shows
  let figures = null, themes = null, printing = false;

  // What the reader has chosen of each figure; it may be chosen before the figures are unpacked.
  const states = new Map([...document.querySelectorAll("figure.plot")].map((frame) => [frame.id, {
    frame, canvas: frame.querySelector(".canvas"), chosen: {}, off: new Set(), log: new Set(), seeds: false, view: null, drawn: null, rows: [],
  }]));
  const waiting = new Set(states.keys());

  const key = (column, value) => JSON.stringify([column, value]);
  const rowsOf = (figure, state) => {
    const columns = Object.entries(figure.columns), chosen = Object.entries({ ...figure.chosen, ...state.chosen });
    const rows = [];
    for (let index = 0; index < columns[0][1].length; index++) {
      if (chosen.some(([column, value]) => String(figure.columns[column][index]) !== String(value))) continue;
      const row = Object.fromEntries(columns.map(([name, values]) => [name, values[index]]));
      if (!hidden.has(row.recipe) && !["recipe", "ema", "solver", "guided"].some((column) => state.off.has(key(column, row[column])))) rows.push(row);
    }
    return rows;
  };
  const parts = (spec) => [spec, ...(spec.layer || []).flatMap(parts)];
  const changed = (spec, state, keyed) => {
    for (const part of parts(spec)) {
      for (const channel of Object.values(part.encoding || {})) if (keyed && "legend" in channel) channel.legend = null;
      for (const axis of state.log) {
        const channel = part.encoding?.[axis];
        if (!channel?.scale) continue;
        const { zero, ...scale } = channel.scale;
        channel.scale = { ...scale, type: "log" };
      }
    }
    return spec;
  };
  const themed = (drawing, name, state) => {
    const params = [...themes[name].params, ...(drawing.params || [])];
    return params.map((param) => (param.name === "seeds" ? { ...param, value: state.seeds } : param));
  };
  // The page forbids eval: Vega interprets expressions as a tree.
  const embedded = (element, spec, renderer, tooltip) => vegaEmbed(element, spec, {
    ast: true, renderer, tooltip, actions: false, defaultStyle: false, hover: false, logLevel: 1,
  });
  const theme = () => (printing ? "light" : root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light"));

  const draw = async (id) => {
    waiting.delete(id);
    const state = states.get(id), figure = figures[id], name = theme(), config = structuredClone(themes[name].config);
    const { title, ...spec } = changed(structuredClone(figure.drawing.vconcat[0]), state, figure.keyed); // the page has its own legend
    config.background = null;
    state.rows = rowsOf(figure, state);
    const room = printing ? 480 : state.canvas.clientWidth;
    const size = figure.reading ? { width: room, height: 230 } : { width: Math.min(room, figure.shape[0] + 190), height: figure.shape[1] };
    const fit = { autosize: { type: "fit-x", contains: "padding" }, config, params: themed(figure.drawing, name, state) };
    state.width = room;
    const pointed = (_, event, item, value) => (value ? say(event, entries(value)) : figure.reading || hide());
    const drawn = await embedded(document.createElement("div"), { ...spec, ...size, ...fit, data: { values: state.rows } }, "svg", pointed);
    if (state.drawn) state.drawn.finalize();
    state.drawn = drawn;
    state.view = drawn.view;
    state.canvas.replaceChildren(drawn.view.container());
  };

  // One after the other, so that the page can be read and scrolled meanwhile. What is hidden is drawn when it is shown.
  const away = ({ frame }) => {
    const box = frame.getBoundingClientRect();
    return Math.max(box.top - innerHeight, -box.bottom, 0);
  };
  let busy = false;
  const drawNext = async () => {
    const ids = [...waiting].filter((id) => figures[id] && states.get(id).frame.checkVisibility());
    busy = ids.length > 0;
    if (!busy) return;
    await draw(ids.reduce((nearest, id) => (away(states.get(id)) < away(states.get(nearest)) ? id : nearest)));
    setTimeout(drawNext);
  };
  const again = (ids) => {
    for (const id of ids) waiting.add(id);
    if (figures && !busy) { busy = true; setTimeout(drawNext); }
  };

  // Reading: at the pointer's nearest place, one value for each line.
  const digits = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))).replace("-", "−") : String(value));
  const element = (name, text, color) => {
    const made = document.createElement(name);
    made.textContent = text;
    if (color) made.style.setProperty("--c", color);
    return made;
  };
  const entries = (value) => [Object.entries(value).map(([name, text]) => element("div", `${name}: ${text}`))].flat();
  const hide = () => { tip.hidden = true; };
  const say = (at, content) => {
    tip.replaceChildren(...content);
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(at.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${at.clientY + height + 24 > innerHeight ? at.clientY - height - 10 : at.clientY + 14}px`;
  };
  const read = (id, near) => {
    const state = states.get(id), { x, title, by } = figures[id].reading, scale = state.view.scale("x"), [left, top] = state.view.origin();
    const middle = scale.bandwidth ? scale.bandwidth() / 2 : 0;
    const rows = state.rows.filter((row) => (row.seed ?? null) === null && !row.restart && row[x] !== null && row.value !== null)
      .map((row) => ({ row, at: scale(row[x]) + middle, up: state.view.scale("y")(row.value) }));
    const places = [...new Set(rows.map(({ at }) => at))].sort((a, b) => a - b);
    if (!places.length) return;
    const box = state.canvas.getBoundingClientRect();
    const place = near(places, left, box), lines = new Map();
    for (const found of rows) {
      const name = by.map((column) => (column === "ema" && found.row.ema ? `EMA ${found.row.ema}` : found.row[column])).filter(Boolean).join(" · ");
      const far = Math.abs(found.at - place);
      if (far < 6 && !(lines.has(name) && lines.get(name).far <= far)) lines.set(name, { ...found, far });
    }
    const shown = [...lines].sort(([, a], [, b]) => a.up - b.up);
    const color = ({ side, solver, guided, recipe }) => {
      const named = side ?? solver ?? guided ?? recipe;
      return named ? state.view.scale("color")(named) : "";
    };
    const head = element("strong", `${title} ${digits(shown[0][1].row[x])}`);
    const body = shown.map(([name, { row }]) => {
      const line = element("div", "", color(row));
      line.append(element("i", ""), `${name} `, element("b", digits(row.value)), row.deviation ? ` ± ${digits(row.deviation)}` : "");
      return line;
    });
    state.canvas.style.setProperty("--at", `${left + place}px`);
    state.canvas.style.setProperty("--tall", `${top + state.view.height()}px`);
    state.canvas.dataset.at = places.indexOf(place);
    say({ clientX: box.left + left + place, clientY: box.top + top + shown[0][1].up }, [head, ...body]);
  };
  const unread = (state) => { delete state.canvas.dataset.at; hide(); };

  // Saving: the drawing with title, caption and legend, in light colours whatever the page's are.
  const drawingOf = (id) => {
    const state = states.get(id), figure = figures[id], drawing = structuredClone(figure.drawing), [part] = drawing.vconcat;
    changed(part, state);
    const chosen = Object.entries({ ...figure.chosen, ...state.chosen }).map(([name, value]) => `${name} ${value}`).join(" · ");
    if (chosen) part.title.subtitle = chosen;
    part.data = { values: rowsOf(figure, state) };
    return { ...drawing, config: themes.light.config, params: themed(drawing, "light", state) };
  };
  const quoted = (value) => (value === null ? "" : /[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const csv = ({ columns }) => {
    const names = Object.keys(columns), lines = columns[names[0]].map((_, index) => names.map((name) => quoted(columns[name][index])).join(","));
    return [names.join(","), ...lines, ""].join("\n");
  };
  const framed = self !== top && origin === "null"; // such a frame may save no file: it shows the text
  const save = async (id, kind) => {
    const view = kind === "csv" ? null : (await embedded(document.createElement("div"), drawingOf(id), "canvas")).view;
    const text = kind === "csv" ? csv(figures[id]) : kind === "svg" ? await view.toSVG() : null;
    if (framed) { document.dispatchEvent(new CustomEvent("text", { detail: text })); return; }
    const type = { csv: "text/csv", svg: "image/svg+xml" }[kind];
    const link = element("a", "");
    link.href = text === null ? await view.toImageURL("png", 3) : URL.createObjectURL(new Blob([text], { type }));
    link.download = `${id}.${kind}`;
    link.click();
    if (text !== null) setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };

  for (const [id, state] of states) {
    const { frame, canvas } = state;
    const listen = (selector, kind, act) => frame.querySelectorAll(selector).forEach((part) => part.addEventListener(kind, () => { act(part); again([id]); }));
    listen("[data-seeds]", "change", (box) => { state.seeds = box.checked; });
    listen("[data-log]", "change", (box) => { state.log[box.checked ? "add" : "delete"](box.dataset.log); });
    listen("[data-column]", "click", (button) => {
      const of = key(button.dataset.column, button.dataset.value), shown = state.off.delete(of) || !state.off.add(of);
      button.setAttribute("aria-pressed", String(shown));
    });
    frame.addEventListener("choose", (event) => { Object.assign(state.chosen, event.detail); again([id]); });
    frame.querySelectorAll("[data-save]").forEach((button) => {
      button.hidden = framed && button.dataset.save === "png";
      button.addEventListener("click", () => figures && save(id, button.dataset.save));
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!state.view || !figures[id].reading || event.target.closest("[aria-label*='training:']")) return;
      const nearest = (places, left, box) => {
        const at = event.clientX - box.left - left;
        return places.reduce((best, place) => (Math.abs(place - at) < Math.abs(best - at) ? place : best));
      };
      read(id, nearest);
    });
    canvas.addEventListener("pointerleave", () => unread(state));
    canvas.addEventListener("blur", () => unread(state));
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (event.key === "Escape") unread(state);
      if (!step || !state.view || !figures[id].reading) return;
      event.preventDefault();
      const from = "at" in canvas.dataset ? Number(canvas.dataset.at) + step : 0;
      read(id, (places) => places[Math.max(0, Math.min(places.length - 1, from))]);
    });
  }
  document.addEventListener("recipe", ({ detail: { name, shown } }) => { hidden[shown ? "delete" : "add"](name); again(states.keys()); });
  document.addEventListener("theme", () => again(states.keys()));
  document.addEventListener("shown", () => again([]));
  document.addEventListener("toggle", () => again([]), true); // a part that was closed
  new ResizeObserver(() => {
    again([...states].filter(([, { view, width, canvas }]) => view && canvas.clientWidth && canvas.clientWidth !== width).map(([id]) => id));
  }).observe(document.querySelector("main"));
  addEventListener("beforeprint", () => {
    if (!figures) return;
    printing = true;
    document.querySelectorAll(".fold > details:not([open])").forEach((closed) => { closed.open = true; opened.add(closed); }); // paper has no clicks
    for (const [id, { frame }] of states) if (frame.checkVisibility()) draw(id); // promises of inline data are done before the print
  });
  addEventListener("afterprint", () => {
    printing = false;
    opened.forEach((part) => { part.open = false; });
    opened.clear();
    again(states.keys());
  });

  const unpacked = (id) => {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (sign) => sign.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const begin = async () => {
    const [code, text] = await Promise.all([unpacked("vega"), unpacked("figures")]);
    const script = document.createElement("script");
    script.textContent = code;
    document.body.append(script);
    ({ themes, figures } = JSON.parse(text));
    again([]);
  };
  begin().catch((error) => { console.error(error); throw error; }).catch(() => states.forEach(({ canvas }) => { canvas.textContent = "This browser is too old to draw figures."; }));
})();
