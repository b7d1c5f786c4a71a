// Tasks about images: no answer before all images are there, and a dialog that enlarges a pair side by side.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const figures = () => [...document.querySelectorAll("#task .picture")];
  const image = (figure) => figure.querySelector(".box img");

  // --- loading ----------------------------------------------------------------------------------------------------
  // A note that nobody has written: the text of the page, with what did not load in its place.
  const isReport = (note) => {
    const [before, after] = note.dataset.report.split("{images}");
    const text = note.value;
    return text.startsWith(before) && text.endsWith(after) && !text.slice(before.length, text.length - after.length).includes(".");
  };
  const state = (img) => (!img.complete ? "loading" : img.naturalWidth > 0 ? "here" : "failed");

  // What cannot be seen cannot be judged: until then only "can't tell", for what has failed, and skipping remain.
  const look = () => {
    const failed = [];
    let waiting = false;
    for (const figure of figures()) {
      const now = state(image(figure));
      figure.classList.toggle("failed-to-load", now === "failed");
      figure.querySelector(".failed").hidden = now !== "failed";
      if (now === "failed") failed.push(figure.dataset.which);
      waiting ||= now === "loading";
    }
    for (const button of document.querySelectorAll("#answer [name=choice]")) {
      button.disabled = button.value === "unsure" ? waiting && failed.length === 0 : waiting || failed.length > 0;
    }
    const note = byId("note");
    if (!note || !(note.value === "" || isReport(note))) return;
    const report = failed.length ? note.dataset.report.replace("{images}", () => failed.join("; ")) : "";
    if (report === note.value) return;
    note.value = report;
    note.dispatchEvent(new Event("input", { bubbles: true }));
  };
  const ofTask = (event) => event.target.matches?.("#task .box img");
  for (const name of ["load", "error"]) document.addEventListener(name, (event) => { if (ofTask(event)) look(); }, true);
  document.addEventListener("htmx:afterSwap", look);

  const again = (figure) => { image(figure).src = image(figure).getAttribute("src"); look(); };
  window.addEventListener("online", () => figures().filter((one) => one.matches(".failed-to-load")).forEach(again));

  // --- enlarging ----------------------------------------------------------------------------------------------------
  const dialog = byId("zoom");
  const panes = dialog.querySelector(".panes");
  const SCALES = [1, 2, 4, 8];
  let group = null;
  let scale = 1;

  const views = () => [...panes.querySelectorAll(".view")];
  const groups = () => [...new Set(figures().map((figure) => figure.dataset.group))];

  // The place in the middle of the view, as shares of the image, stays there.
  const resize = (to, at) => {
    const view = views()[0];
    const middle = at ?? [
      (view.scrollLeft + view.clientWidth / 2) / view.scrollWidth, (view.scrollTop + view.clientHeight / 2) / view.scrollHeight,
    ];
    scale = to;
    panes.dataset.scale = scale;
    for (const img of panes.querySelectorAll("img")) {
      if (scale > 1 && img.dataset.whole) { img.src = img.dataset.whole; delete img.dataset.whole; }
    }
    for (const one of views()) {
      one.scrollLeft = middle[0] * one.scrollWidth - one.clientWidth / 2;
      one.scrollTop = middle[1] * one.scrollHeight - one.clientHeight / 2;
    }
    dialog.querySelector("[data-zoom='-']").disabled = scale === 1;
    dialog.querySelector("[data-zoom='+']").disabled = scale === SCALES.at(-1);
  };

  const show = (name, first) => {
    group = name;
    const shown = figures().filter((figure) => figure.dataset.group === name);
    byId("zoom-title").textContent = shown[0].dataset.title;
    panes.replaceChildren(...shown.map((figure) => {
      const pane = document.createElement("figure");
      pane.className = figure.matches(".pixels") ? "pane pixels" : "pane";
      const caption = figure.querySelector("figcaption")?.cloneNode(true) ?? document.createElement("figcaption");
      caption.classList.add("label");
      caption.textContent ||= figure.dataset.which;
      const view = document.createElement("div");
      view.className = "view";
      view.tabIndex = 0;
      view.role = "group";
      view.ariaLabel = figure.dataset.which;
      const img = document.createElement("img");
      const source = image(figure);
      img.src = source.getAttribute("src");
      img.alt = source.alt;
      img.draggable = false;
      const whole = figure.querySelector(".box").getAttribute("href");
      if (whole !== source.getAttribute("src")) img.dataset.whole = whole;
      view.append(img);
      pane.append(caption, view);
      return pane;
    }));
    dialog.querySelector("[data-zoom=z]").hidden = groups().length < 2;
    if (!dialog.open) dialog.showModal();
    resize(1, [0.5, 0.5]);
    views()[Math.max(0, first ? shown.indexOf(first) : 0)].focus({ preventScroll: true });
  };
  const step = (by) => {
    const to = SCALES[SCALES.indexOf(scale) + by];
    if (to) resize(to);
  };
  const other = () => {
    const all = groups();
    if (all.length > 1) show(all[(all.indexOf(group) + 1) % all.length]);
  };

  document.addEventListener("click", (event) => {
    const figure = event.target.closest?.("#task .picture");
    if (event.target.closest?.("[data-load]")) return again(figure);
    if (event.target.closest?.("[data-enlarge]")) return show(groups()[0]);
    if (!event.target.closest?.(".box") || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(figure.dataset.group, figure);
  });

  dialog.addEventListener("click", (event) => {
    const act = event.target.closest("[data-zoom]")?.dataset.zoom;
    if (act === "close") return dialog.close();
    if (act === "z") return other();
    if (act) return step(act === "+" ? 1 : -1);
    const view = event.target.closest(".view");
    if (!view) return;
    const box = view.getBoundingClientRect();
    const at = [
      (event.clientX - box.left + view.scrollLeft) / view.scrollWidth, (event.clientY - box.top + view.scrollTop) / view.scrollHeight,
    ];
    resize(scale === SCALES.at(-1) ? 1 : SCALES[SCALES.indexOf(scale) + 1], at);
  });

  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const key = event.key.toLowerCase();
    if (key === "+" || key === "=" || key === "-") step(key === "-" ? -1 : 1);
    else if (key === "z") other();
    else if (key === "enter" && event.target.matches(".view")) resize(scale === SCALES.at(-1) ? 1 : SCALES[SCALES.indexOf(scale) + 1]);
    else return;
    event.preventDefault();
  });

  // Both images show the same place.
  panes.addEventListener("scroll", (event) => {
    const moved = event.target;
    if (!moved.matches?.(".view")) return;
    for (const view of views()) {
      if (view === moved) continue;
      const to = [
        Math.round(moved.scrollLeft / moved.scrollWidth * view.scrollWidth), Math.round(moved.scrollTop / moved.scrollHeight * view.scrollHeight),
      ];
      if (Math.abs(view.scrollLeft - to[0]) > 1) view.scrollLeft = to[0];
      if (Math.abs(view.scrollTop - to[1]) > 1) view.scrollTop = to[1];
    }
  }, true);

  look();
})();
