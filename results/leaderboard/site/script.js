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
    sorting();
    filters();
    curves();
    for (const button of document.querySelectorAll("button.copy")) copying(button);
  });

  function sort(table, head, up) {
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent.trim();
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row, index) => ({ row, index, value: value(row) }));
    rows.sort((a, b) => {
      if ((a.value === "") !== (b.value === "")) return a.value === "" ? 1 : -1;
      const [x, y] = [Number(a.value), Number(b.value)];
      const order = Number.isNaN(x) || Number.isNaN(y) ? a.value.localeCompare(b.value) : x - y;
      return (up ? order : -order) || a.index - b.index;
    });
    body.append(...rows.map((each) => each.row));
  }

  function sortable(table) {
    for (const head of table.tHead.rows[0].cells) {
      const button = head.querySelector("button");
      if (button) button.addEventListener("click", () => sort(table, head, head.getAttribute("aria-sort") !== "ascending"));
    }
  }

  // Where there is no room for a table there are no heads to press.
  function sorting() {
    const chosen = document.querySelector("#sort");
    if (!chosen) return;
    chosen.addEventListener("change", () => {
      for (const table of document.querySelectorAll("table.board")) {
        const head = [...table.tHead.rows[0].cells].find((each) => each.textContent === chosen.value);
        sort(table, head, !["worst case", "clean"].includes(chosen.value));
      }
    });
  }

  function filters() {
    const text = document.querySelector("#filter");
    const division = document.querySelector("#division");
    const sound = document.querySelector("#sound");
    if (!text) return;
    // Nobody looks for the numbers of a drawing.
    const boards = [...document.querySelectorAll("section.board-section")].map((board) => ({
      board,
      rows: [...board.querySelectorAll("tbody tr")].map((row) => ({
        row,
        words: [board.querySelector("h2"), ...row.querySelectorAll(":scope > :not(.drawn)")].map((each) => each.textContent).join(" ").toLowerCase(),
      })),
    }));
    const apply = () => {
      const wanted = text.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const { board, rows } of boards) {
        let here = 0;
        for (const { row, words } of rows) {
          const fits = wanted.every((word) => words.includes(word)) && (!sound.checked || row.dataset.verdict === "ok");
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
    let shown = null;
    // Beside its button, without a gap that the mouse would have to cross.
    const place = () => {
      if (!shown) return;
      const pop = shown.querySelector(".pop");
      const at = shown.querySelector("button").getBoundingClientRect();
      const below = at.bottom + pop.offsetHeight < innerHeight || at.top < pop.offsetHeight;
      pop.style.top = `${Math.max(0, below ? Math.min(at.bottom, innerHeight - pop.offsetHeight) : at.top - pop.offsetHeight)}px`;
      pop.style.left = `${Math.max(8, Math.min(at.right - pop.offsetWidth, document.documentElement.clientWidth - pop.offsetWidth - 8))}px`;
    };
    const set = (each, open) => {
      if (each.classList.contains("open") === open) return;
      each.classList.toggle("open", open);
      each.querySelector("button").setAttribute("aria-expanded", String(open));
      shown = open ? each : shown === each ? null : shown;
      place();
    };
    const close = (but) => { if (shown && shown !== but) shown.dispatchEvent(new Event("unpin")); };
    for (const each of all) {
      const button = each.querySelector("button");
      let pinned = false;
      button.addEventListener("click", () => { pinned = !pinned; close(each); set(each, pinned); });
      each.addEventListener("mouseenter", () => { close(each); set(each, true); });
      each.addEventListener("mouseleave", () => { if (!pinned) set(each, false); });
      each.addEventListener("focusout", (event) => { if (!each.contains(event.relatedTarget)) { pinned = false; set(each, false); } });
      each.addEventListener("unpin", () => { pinned = false; set(each, false); });
    }
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") close(null); });
    addEventListener("scroll", place, { capture: true, passive: true });
    addEventListener("resize", place);
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
