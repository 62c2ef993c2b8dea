"use strict";
// Everything here adds to pages that can be read without it.
(() => {
  const root = document.documentElement;
  const remembered = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem("theme", theme); } catch { /* private windows */ } };
  if (remembered()) root.dataset.theme = remembered();
  document.addEventListener("DOMContentLoaded", () => {
    for (const each of document.querySelectorAll("[data-needs-script]")) each.hidden = false;
    const toggle = document.querySelector(".theme");
    if (toggle) toggle.addEventListener("click", () => {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      remember(root.dataset.theme);
    });
    for (const table of document.querySelectorAll("table.board")) sortable(table);
    filters();
    curves();
    for (const button of document.querySelectorAll("button.copy")) copying(button);
  });

  function sortable(table) {
    const body = table.tBodies[0];
    for (const head of table.tHead.rows[0].cells) {
      const button = head.querySelector("button");
      if (!button) continue;
      button.addEventListener("click", () => {
        const up = head.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", up ? "ascending" : "descending");
        const value = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent.trim();
        const rows = [...body.rows].map((row, index) => ({ row, index, value: value(row) }));
        rows.sort((a, b) => {
          if ((a.value === "") !== (b.value === "")) return a.value === "" ? 1 : -1;
          const [x, y] = [Number(a.value), Number(b.value)];
          const order = Number.isNaN(x) || Number.isNaN(y) ? a.value.localeCompare(b.value) : x - y;
          return (up ? order : -order) || a.index - b.index;
        });
        body.append(...rows.map((each) => each.row));
      });
    }
  }

  function filters() {
    const text = document.querySelector("#filter");
    const division = document.querySelector("#division");
    const sound = document.querySelector("#sound");
    if (!text) return;
    const apply = () => {
      const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const board of document.querySelectorAll("section.board-section")) {
        let here = 0;
        for (const row of board.querySelectorAll("tbody tr")) {
          const fits = words.every((word) => row.textContent.toLowerCase().includes(word))
            && (!sound.checked || row.dataset.verdict === "ok");
          row.hidden = !fits;
          here += fits;
        }
        board.hidden = (division.value && board.dataset.division !== division.value) || !here;
        shown += board.hidden ? 0 : here;
      }
      document.querySelector("#count").textContent = shown === 1 ? "1 entry" : `${shown} entries`;
      document.querySelector("#nothing").hidden = shown > 0;
    };
    for (const control of [text, division, sound]) {
      control.addEventListener("input", apply);
      control.addEventListener("change", apply);
    }
    apply();
  }

  function curves() {
    const all = [...document.querySelectorAll(".curve")];
    const close = (but) => all.forEach((each) => { if (each !== but) set(each, false); });
    const set = (each, open) => {
      each.classList.toggle("open", open);
      each.querySelector("button").setAttribute("aria-expanded", String(open));
    };
    for (const each of all) {
      const button = each.querySelector("button");
      let pinned = false;
      button.addEventListener("click", () => { pinned = !pinned; close(each); set(each, pinned); });
      each.addEventListener("mouseenter", () => { close(each); set(each, true); });
      each.addEventListener("mouseleave", () => { if (!pinned) set(each, false); });
      each.addEventListener("focusout", (event) => { if (!each.contains(event.relatedTarget)) { pinned = false; set(each, false); } });
      each.addEventListener("unpin", () => { pinned = false; set(each, false); });
    }
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") all.forEach((each) => each.dispatchEvent(new Event("unpin")));
    });
  }

  function copying(button) {
    button.addEventListener("click", async () => {
      const code = document.getElementById(button.dataset.of);
      const range = document.createRange();
      range.selectNodeContents(code);
      const selection = getSelection();
      selection.removeAllRanges();
      selection.addRange(range);
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected: press Ctrl+C";
      }
    });
  }
})();
