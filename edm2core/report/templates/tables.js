"use strict";
// Every table can be copied for a paper: as LaTeX (booktabs) or as Markdown.
(() => {
  const words = (node) => node.textContent.replace(/\s+/g, " ").trim();
  const read = (cell) => {
    const main = cell.cloneNode(true);
    main.querySelectorAll("button").forEach((part) => part.remove());
    const small = [...main.querySelectorAll("small")].map((part) => { part.remove(); return words(part); }).filter(Boolean);
    return { text: words(main), small, best: cell.classList.contains("lead"), right: cell.classList.contains("num") };
  };
  // Cells on a grid: one that spans several stands in all of their places.
  const grid = (table) => {
    const lines = [];
    [...table.rows].forEach((row, r) => {
      lines[r] = lines[r] || [];
      let c = 0;
      [...row.cells].forEach((cell) => {
        while (lines[r][c]) c++;
        const found = { ...read(cell), row: r };
        for (let down = 0; down < cell.rowSpan; down++) {
          lines[r + down] = lines[r + down] || [];
          for (let right = 0; right < cell.colSpan; right++) lines[r + down][c + right] = found;
        }
        c += cell.colSpan;
      });
    });
    const head = table.tHead ? table.tHead.rows.length : 0;
    const shown = lines.slice(head).filter((line, r) => table.rows[head + r].dataset.off === undefined && !table.rows[head + r].hidden);
    return { head: lines.slice(0, head), body: shown };
  };
  const titles = ({ head }, c) => [...new Set(head.map((line) => line[c]))].map((cell) => cell.text).filter(Boolean);
  const only = ({ head, body }, columns) => {
    const of = (line) => columns.map((c) => line[c]).filter(Boolean);
    return { head: head.map(of), body: body.map(of) };
  };
  // Neighbouring places of the same cell.
  const runs = (line) => line.reduce((found, cell) => {
    const last = found[found.length - 1];
    if (last && last.cell === cell) last.width++;
    else found.push({ cell, width: 1 });
    return found;
  }, []);

  const signs = {
    "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}", "<": "$<$", ">": "$>$", "±": "$\\pm$", "−": "$-$", "×": "$\\times$", "·": "$\\cdot$", "σ": "$\\sigma$", "λ": "$\\lambda$",
    "Δ": "$\\Delta$", "‖": "$\\|$", "²": "$^2$", "≤": "$\\le$", "≥": "$\\ge$", "→": "$\\to$", "—": "---", "–": "--", "“": "``", "”": "''", "…": "\\dots{}",
  };
  const escaped = (text) => text.replace(/[\\{}&%$#_~^<>±−×·σλΔ‖²≤≥→—–“”…]/g, (sign) => signs[sign]);
  const inside = ({ text, small, best }, mark, plain) => {
    const main = plain(text) && (best ? mark(plain(text)) : plain(text));
    return [main, small.length ? `(${plain(small.join(", "))})` : ""].filter(Boolean).join(" ");
  };
  // What a heading says in small is a condition of its values: it goes into the caption.
  const conditions = (found) => [...new Set(found.head.flat())].filter((cell) => cell.small.length).map((cell) => `${cell.text}: ${cell.small.join(", ")}`);
  const latex = (found, name) => {
    const { head, body } = found, columns = head[0] || body[0];
    const right = columns.map((_, c) => body.some((line) => line[c] && line[c].right));
    const out = ["% needs \\usepackage{booktabs}", "\\begin{table}", "\\centering", `\\caption{${escaped([name, ...conditions(found)].join(". "))}.}`];
    out.push(`\\begin{tabular}{${right.map((it) => (it ? "r" : "l")).join("")}}`, "\\toprule");
    head.forEach((line, r) => {
      let at = 1;
      const cells = [], rules = [];
      runs(line).forEach(({ cell, width }) => {
        const text = cell.row === r ? escaped(cell.text) : "";
        cells.push(width > 1 ? `\\multicolumn{${width}}{c}{${text}}` : text);
        if (width > 1) rules.push(`\\cmidrule(lr){${at}-${at + width - 1}}`);
        at += width;
      });
      out.push(`${cells.join(" & ")} \\\\`);
      if (rules.length && r + 1 < head.length) out.push(rules.join(" "));
    });
    out.push("\\midrule");
    body.forEach((line) => {
      const cells = runs(line).map(({ cell, width }) => {
        const text = inside(cell, (words) => `\\textbf{${words}}`, escaped);
        return width > 1 ? `\\multicolumn{${width}}{c}{${text}}` : text;
      });
      out.push(`${cells.join(" & ")} \\\\`);
    });
    return [...out, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""].join("\n");
  };
  const plain = (text) => text.replace(/([\\|*_`<>[\]])/g, "\\$1");
  const markdown = (found) => {
    const { head, body } = found, columns = head[0] || body[0];
    const line = (cells) => `| ${cells.join(" | ")} |`;
    const rule = columns.map((_, c) => (body.some((row) => row[c] && row[c].right) ? "---:" : "---"));
    const rows = body.map((row) => line(row.map((cell, c) => (c && row[c - 1] === cell ? " " : inside(cell, (words) => `**${words}**`, plain) || " "))));
    return [...conditions(found).map((words) => `${plain(words)}.  `), "", line(columns.map((_, c) => plain(titles(found, c).join(": ")) || " ")), line(rule), ...rows, ""].join("\n").trimStart();
  };

  // Frames without permissions refuse the clipboard: then the text is shown, selected.
  const dialog = document.getElementById("copied"), area = dialog.querySelector("textarea"), choices = dialog.querySelector(".choices");
  const [again, close] = dialog.querySelectorAll("button"), said = dialog.querySelector("output");
  const copy = () => {
    area.focus();
    area.select();
    let done = false;
    try { done = document.execCommand("copy"); } catch { done = false; }
    said.textContent = done ? "Copied." : "The browser keeps this page from the clipboard. The text is selected: press Ctrl+C, or ⌘C.";
  };
  const handed = (text) => { choices.replaceChildren(); area.value = text; dialog.showModal(); copy(); };
  document.addEventListener("text", (event) => handed(event.detail)); // of a figure, where files cannot be saved
  again.addEventListener("click", copy);
  close.addEventListener("click", () => dialog.close());

  // Every column but the first may be left out.
  const offer = (table, write, name) => {
    const found = grid(table), columns = (found.head[0] || []).map((_, c) => c), chosen = new Set(columns);
    const show = () => { area.value = write(only(found, columns.filter((c) => chosen.has(c))), name); };
    choices.replaceChildren(...columns.slice(1).map((c) => {
      const box = document.createElement("input"), label = document.createElement("label");
      box.type = "checkbox";
      box.checked = true;
      box.addEventListener("change", () => { if (box.checked) chosen.add(c); else chosen.delete(c); show(); });
      label.append(box, ` ${titles(found, c).join(": ")}`);
      return label;
    }));
    show();
    dialog.showModal();
    copy();
  };

  document.querySelectorAll("main .scroll > table").forEach((table) => {
    if (!table.tHead) return;
    const bar = document.createElement("div"), name = table.parentElement.getAttribute("aria-label") || "the table";
    bar.className = "copy";
    [["LaTeX", latex], ["Markdown", markdown]].forEach(([format, write]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = format;
      button.setAttribute("aria-label", `Copy as ${format}: ${name}`);
      button.addEventListener("click", () => offer(table, write, name));
      bar.append(button);
    });
    bar.prepend("Copy as ");
    table.parentElement.after(bar);
  });
})();
