"use strict";
// Every table can be copied for a paper: as LaTeX (booktabs) or as Markdown.
(() => {
  const words = (node) => node.textContent.replace(/\s+/g, " ").trim();
  const read = (cell) => {
    const main = cell.cloneNode(true);
    const small = [...main.querySelectorAll("small")].map((part) => { part.remove(); return words(part); }).filter(Boolean);
    return { text: words(main), small, best: cell.classList.contains("lead"), right: cell.classList.contains("num") };
  };
  // Cells on a grid: one that spans several stands at its first, with its width.
  const grid = (table) => {
    const lines = [];
    [...table.rows].forEach((row, r) => {
      lines[r] = lines[r] || [];
      let c = 0;
      [...row.cells].forEach((cell) => {
        while (lines[r][c]) c++;
        for (let down = 0; down < cell.rowSpan; down++) {
          lines[r + down] = lines[r + down] || [];
          for (let right = 0; right < cell.colSpan; right++) {
            lines[r + down][c + right] = down || right ? { text: "", small: [], covered: true } : { ...read(cell), width: cell.colSpan };
          }
        }
        c += cell.colSpan;
      });
    });
    const head = table.tHead ? table.tHead.rows.length : 0;
    const shown = lines.slice(head).filter((line, r) => table.rows[head + r].dataset.off === undefined);
    return { head: lines.slice(0, head), body: shown };
  };

  const signs = {
    "\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}", "<": "$<$", ">": "$>$", "±": "$\\pm$", "−": "$-$", "×": "$\\times$", "·": "$\\cdot$", "σ": "$\\sigma$", "λ": "$\\lambda$",
    "Δ": "$\\Delta$", "‖": "$\\|$", "²": "$^2$", "≤": "$\\le$", "≥": "$\\ge$", "→": "$\\to$", "—": "---", "–": "--", "“": "``", "”": "''", "…": "\\dots{}",
  };
  const escaped = (text) => text.replace(/[\\{}&%$#_~^<>±−×·σλΔ‖²≤≥→—–“”…]/g, (sign) => signs[sign]);
  const comment = (line) => { // so that no value loses its conditions
    const notes = line.filter((cell) => cell.small.length).map((cell) => cell.small.join(", "));
    return notes.length ? [`  % ${notes.join(" | ")}`] : [];
  };
  const latex = (table) => {
    const { head, body } = grid(table), columns = head[0] || body[0];
    const right = columns.map((_, c) => body.some((line) => line[c] && line[c].right));
    const out = ["% needs \\usepackage{booktabs}", `\\begin{tabular}{${right.map((it) => (it ? "r" : "l")).join("")}}`, "\\toprule"];
    head.forEach((line, r) => {
      const cells = [], rules = [];
      for (let c = 0; c < line.length; c += line[c].width || 1) {
        const wide = line[c].width || 1;
        cells.push(wide > 1 ? `\\multicolumn{${wide}}{c}{${escaped(line[c].text)}}` : escaped(line[c].text));
        if (wide > 1) rules.push(`\\cmidrule(lr){${c + 1}-${c + wide}}`);
      }
      out.push(`${cells.join(" & ")} \\\\`, ...comment(line));
      if (rules.length && r + 1 < head.length) out.push(rules.join(" "));
    });
    out.push("\\midrule");
    body.forEach((line) => {
      out.push(`${line.map((cell) => (cell.best ? `\\textbf{${escaped(cell.text)}}` : escaped(cell.text))).join(" & ")} \\\\`);
      out.push(...comment(line));
    });
    return [...out, "\\bottomrule", "\\end{tabular}", ""].join("\n");
  };
  const plain = (text) => text.replace(/([\\|*_`<>[\]])/g, "\\$1");
  const markdown = (table) => {
    const { head, body } = grid(table), columns = head[0] || body[0];
    const titles = columns.map((_, c) => {
      let over = c; // a title above several columns belongs to each of them
      while (over > 0 && head[0] && head[0][over].covered) over--;
      const parts = head.map((line, r) => (r === 0 ? line[over].text : line[c].text)).filter(Boolean);
      const small = head.length && head[0][over].small.length ? ` (${head[0][over].small.join(", ")})` : "";
      return plain([...new Set(parts)].join(": ") + small) || " ";
    });
    const cell = ({ text, small, best }) => {
      const main = plain(text) && (best ? `**${plain(text)}**` : plain(text));
      return [main, small.length ? `(${plain(small.join(", "))})` : ""].filter(Boolean).join(" ") || " ";
    };
    const line = (cells) => `| ${cells.join(" | ")} |`;
    const rule = columns.map((_, c) => (body.some((row) => row[c] && row[c].right) ? "---:" : "---"));
    return [line(titles), line(rule), ...body.map((row) => line(row.map(cell))), ""].join("\n");
  };

  // Frames without permissions refuse the clipboard: then the text is shown, selected.
  const dialog = document.getElementById("copied"), area = dialog.querySelector("textarea");
  const handed = (text) => {
    area.value = text;
    dialog.showModal();
    area.focus();
    area.select();
    let done = false;
    try { done = document.execCommand("copy"); } catch { done = false; }
    if (done) dialog.close();
    return done;
  };
  dialog.querySelector("button").addEventListener("click", () => dialog.close());

  document.querySelectorAll("main .scroll > table").forEach((table) => {
    if (!table.tHead) return;
    const bar = document.createElement("div"), name = table.parentElement.getAttribute("aria-label") || "the table";
    bar.className = "copy";
    [["LaTeX", latex], ["Markdown", markdown]].forEach(([format, write]) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = format;
      button.setAttribute("aria-label", `Copy as ${format}: ${name}`);
      button.addEventListener("click", () => {
        if (!handed(write(table))) return;
        button.focus();
        button.textContent = "copied";
        setTimeout(() => { button.textContent = format; }, 1500);
      });
      bar.append(button);
    });
    bar.prepend("Copy as ");
    table.parentElement.after(bar);
  });
})();
