// Keyboard shortcuts, and answers that survive a server outage. Every form also works without this file.
(() => {
  "use strict";
  document.documentElement.classList.add("scripted");
  const byId = (id) => document.getElementById(id);
  const WAITS = [1000, 2000, 4000, 8000];
  let busy = false;
  let pending = null; // {form, path, values, tries, timer}: an answer that the server has not confirmed

  // --- keys -------------------------------------------------------------------------------------------------------
  const target = (key) => {
    const selector = `[data-keys~="${CSS.escape(key)}"]`;
    const open = document.querySelector("details.wrong[open]");
    const menu = open?.querySelector(".menu");
    const scope = pending ? byId("trouble") : menu?.querySelector(selector) ? menu : document;
    return [...scope.querySelectorAll(selector)].find((element) => element.checkVisibility());
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) return;
    if (document.querySelector("dialog[open]")) return;
    const writing = event.target.matches("textarea, input:not([type=checkbox], [type=radio]), select");
    if (event.key === "Escape") {
      if (writing) return event.target.blur();
      const open = document.querySelector("details.wrong[open]");
      if (open) { open.open = false; return; }
    }
    if (writing) return;
    if (event.target.type === "radio") {
      // Arrows walk through the levels of "how sure"; Enter would press the form's first answer.
      if (event.key.startsWith("Arrow")) return;
      if (event.key === "Enter" && !event.target.closest(".criteria")) return event.preventDefault();
    }
    // Enter and the space bar press what has the focus.
    if ((event.key === "Enter" || event.key === " ") && event.target.closest("button, a, summary, input")) return;
    // Sideways arrows scroll a wide table or code that has the focus.
    if (event.key.startsWith("Arrow") && event.target.scrollWidth > event.target.clientWidth && event.target.matches("pre, .scroll")) return;
    if (pick(event.key.toLowerCase())) return event.preventDefault();
    const element = target(event.key.length === 1 ? event.key.toLowerCase() : event.key);
    if (!element) return;
    event.preventDefault();
    if (!busy) element.click();
  });

  // Several questions: a key answers the one that has the focus, or the first open one, and goes on to the next. In a
  // ranking the key of a pair that has a place takes it away.
  const pick = (key) => {
    const asked = [...document.querySelectorAll(".criteria fieldset")];
    const open = (set) => !set.querySelector("input:checked");
    const now = document.activeElement?.closest(".criteria fieldset") ?? asked.find(open);
    const radio = now?.querySelector(`[data-pick~="${CSS.escape(key)}"]`);
    if (!radio || pending) return false;
    const ranked = radio.closest("[data-distinct]");
    const placed = ranked?.querySelector(`input:checked[value="${CSS.escape(radio.value)}"]`);
    if (placed) {
      placed.checked = false; // pressed again: the pair has no place
      placed.dispatchEvent(new Event("change", { bubbles: true }));
    } else radio.click();
    const next = (ranked && asked.find(open)) ?? asked.slice(asked.indexOf(now) + 1).find(open) ?? asked.find(open);
    (next ? next.querySelector("input") : document.querySelector(".save button")).focus();
    return true;
  };

  // Places of a ranking: a pair has one of them, and the pair that is left has the last.
  const last = () => {
    const box = document.querySelector("[data-distinct]");
    const line = document.querySelector("[data-last]");
    if (!box || !line) return;
    const given = [...box.querySelectorAll("input:checked")].map((radio) => radio.value);
    const places = box.querySelectorAll("fieldset");
    const left = [...places[0].querySelectorAll("input")].filter((radio) => !given.includes(radio.value));
    line.textContent = left.length === 1 ? left[0].nextElementSibling.textContent : line.dataset.last;
    for (const radio of box.querySelectorAll("input")) radio.toggleAttribute("data-placed", !radio.checked && given.includes(radio.value));
  };
  document.addEventListener("change", (event) => {
    const box = event.target.closest("[data-distinct]");
    if (!box) return;
    for (const radio of box.querySelectorAll("input:checked")) {
      if (radio !== event.target && radio.value === event.target.value) radio.checked = false;
    }
    last();
  }, true);

  document.addEventListener("click", (event) => {
    const id = event.target.closest("[data-toggle]")?.dataset.toggle;
    if (id === "help") byId("help").showModal();
    if (id === "guidelines") {
      const panel = byId("guidelines");
      panel.open = !panel.open;
      if (panel.open) panel.scrollIntoView({ block: "nearest" });
    }
    if (event.target.id === "help") byId("help").close(); // beside the dialog
    if (event.target.closest("#retry")) send();
  });

  document.addEventListener("click", (event) => {
    const summary = event.target.closest("details.note > summary");
    // The click opens the note after this handler.
    if (summary && !summary.parentElement.open) setTimeout(() => byId("note").focus());
  });

  // --- the switches for differences and raw texts are kept over tasks and visits, what goes with an answer over a reload ------------------
  let sure = null; // the level that is pressed
  const levels = (fields) => [...(fields.confidence ?? [])]; // none if a response is rated
  const restore = () => {
    const box = byId("differences");
    // Where little is common, marks are on only while they are asked for.
    if (box) box.checked = box.defaultChecked && localStorage.getItem("differences") !== "off";
    const raw = byId("raw");
    if (raw) raw.checked = localStorage.getItem("raw") === "on";
    const fields = byId("answer")?.elements;
    if (!fields) return;
    const draft = JSON.parse(sessionStorage.getItem("draft"));
    if (draft?.assignment === fields.assignment.value) {
      fields.note.value = draft.note;
      fields.note.closest("details").open ||= draft.note !== "";
      for (const level of levels(fields)) level.checked = level.value === draft.confidence;
      for (const [name, value] of draft.criteria ?? []) if (fields[name]) fields[name].value = value;
    }
    sure = levels(fields).find((level) => level.checked);
    last();
  };
  const keep = () => {
    const { assignment, note, confidence } = byId("answer").elements;
    const criteria = [...document.querySelectorAll(".criteria input:checked")].map((radio) => [radio.name, radio.value]);
    const draft = { assignment: assignment.value, note: note.value, confidence: confidence?.value, criteria };
    sessionStorage.setItem("draft", JSON.stringify(draft));
  };
  document.addEventListener("change", (event) => {
    if (event.target.id === "differences" && event.target.defaultChecked) localStorage.setItem("differences", event.target.checked ? "on" : "off");
  });
  document.addEventListener("change", (event) => {
    if (event.target.closest(".criteria")) keep();
    if (event.target.id === "raw") localStorage.setItem("raw", event.target.checked ? "on" : "off");
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "note") keep();
  });
  document.addEventListener("click", (event) => {
    if (event.target.name !== "confidence") return;
    if (event.target === sure) event.target.checked = false; // pressed again
    sure = event.target.checked ? event.target : null;
    say(sure ? sure.parentElement.childNodes[1].textContent : "How sure: cleared.");
    keep();
  });
  restore();

  // --- which pair is in sight where one is shown at a time, and what stays from task to task -------------------------------
  const markPair = () => {
    const box = document.querySelector(".sides");
    const links = [...document.querySelectorAll(".pairs a")];
    if (!box || !links.length) return;
    const place = Math.round(box.scrollLeft / Math.max(box.clientWidth, 1));
    links.forEach((link, index) => {
      if (index === place) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    });
  };
  document.addEventListener("scroll", (event) => { if (event.target.matches?.(".sides")) markPair(); }, { capture: true, passive: true });
  document.addEventListener("click", (event) => {
    const link = event.target.closest(".pairs a");
    if (!link) return;
    event.preventDefault(); // no entry in the browser's history
    byId(link.hash.slice(1)).scrollIntoView({ block: "nearest", inline: "start" });
  });
  const TEXTS = ".prompt > .text, .response > .text";
  const texts = (side) => [...side.querySelectorAll(TEXTS)].map((text) => text.textContent).join("\u0000");
  let before = []; // of each side: its texts, and how far they are scrolled
  const remember = () => {
    before = [...document.querySelectorAll("#task .side")].map((side) => (
      { text: texts(side), tops: [...side.querySelectorAll(TEXTS)].map((text) => text.scrollTop) }));
  };
  const keepPlaces = () => {
    document.querySelectorAll("#task .side").forEach((side, index) => {
      if (before.length !== 2 || before[index].text !== texts(side)) return;
      side.dataset.stays = "";
      side.querySelectorAll(TEXTS).forEach((text, place) => { text.scrollTop = before[index].tops[place]; });
    });
  };
  document.addEventListener("htmx:beforeSwap", remember);
  markPair();

  // --- time away: the page is hidden or closed, or nobody has touched anything for three minutes ----------------------
  const STILL = 180000;
  const clock = { assignment: "", idle: 0, last: Date.now() };
  const tick = (away) => {
    const now = Date.now();
    if (away || now - clock.last > STILL) clock.idle += now - clock.last;
    clock.last = now;
  };
  const keepClock = () => { if (clock.assignment) localStorage.setItem("clock", JSON.stringify(clock)); };
  const wind = () => {
    const assignment = byId("task")?.dataset.assignment ?? "";
    if (assignment === clock.assignment) return;
    const kept = JSON.parse(localStorage.getItem("clock"));
    Object.assign(clock, { assignment, idle: 0, last: Date.now() });
    if (!kept || kept.assignment !== assignment) return;
    Object.assign(clock, { idle: kept.idle, last: kept.last });
    tick(true); // while it was closed
  };
  for (const name of ["keydown", "pointerdown", "pointermove", "wheel", "scroll"]) {
    document.addEventListener(name, () => tick(false), { capture: true, passive: true });
  }
  document.addEventListener("visibilitychange", () => { tick(!document.hidden); keepClock(); });
  window.addEventListener("pagehide", () => { tick(document.hidden); keepClock(); });
  document.addEventListener("submit", () => {
    tick(false);
    const field = byId("answer")?.elements.idle;
    if (field) field.value = (clock.idle / 1000).toFixed(1);
  }, true);
  document.addEventListener("htmx:afterSwap", wind);
  wind();

  // --- sending ------------------------------------------------------------------------------------------------------------
  const trouble = byId("trouble");
  if (!trouble) return; // no page of an annotator: the admin's fetches its figures, which are no answer
  const say = (text) => { byId("status").textContent = text; };
  let fading = 0;
  const show = (text) => { // the same for those who see
    byId("said").textContent = text;
    clearTimeout(fading);
    fading = setTimeout(() => { byId("said").textContent = ""; }, 2500);
  };
  show(byId("said").textContent); // what the page itself says

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (busy) return event.preventDefault();
    busy = true;
    document.body.classList.add("sending");
    const form = event.detail.elt;
    const { path, parameters } = event.detail.requestConfig;
    if (!pending) pending = { form, path, values: Object.fromEntries(Object.entries(parameters)), tries: 0 };
  });

  document.addEventListener("htmx:afterRequest", () => {
    busy = false;
    document.body.classList.remove("sending");
  });

  const failed = (event) => {
    if (!pending) return;
    const signedOut = event.detail.xhr?.status === 401;
    trouble.hidden = false;
    byId("why").textContent = signedOut
      ? "You are signed out. Open your link in another tab: your answer is kept here and will be sent automatically."
      : "The server is not responding. Your answer is kept here and will be sent again automatically.";
    clearTimeout(pending.timer);
    pending.timer = setTimeout(send, WAITS[Math.min(pending.tries++, WAITS.length - 1)]);
  };
  // Lost, timed out, or a proxy reports that the server is down. Every retry sends the same key: saved at most once.
  for (const name of ["htmx:sendError", "htmx:timeout", "htmx:responseError"]) document.addEventListener(name, failed);

  const send = async () => {
    if (!pending || busy) return;
    // A session that was renewed in the meantime has another form token.
    const page = await fetch(location.href).then((answer) => (answer.ok ? answer.text() : "")).catch(() => "");
    const fresh = new DOMParser().parseFromString(page, "text/html").querySelector("input[name=csrf]");
    if (!pending || busy) return;
    if (fresh) pending.values.csrf = fresh.value;
    htmx.ajax("POST", pending.path, {
      source: pending.form, values: pending.values, target: "#task", select: "#task", swap: "outerHTML",
    });
  };
  window.addEventListener("online", send);
  window.addEventListener("beforeunload", (event) => { if (pending && !trouble.hidden) event.preventDefault(); });

  document.addEventListener("htmx:afterSwap", () => {
    const said = byId("task").dataset.said ?? pending?.form.dataset.said ?? "";
    pending = null;
    sessionStorage.removeItem("draft");
    const panel = byId("guidelines");
    const version = byId("task").dataset.guidelines;
    if (version && panel && version !== panel.dataset.version) return location.reload(); // changed meanwhile
    trouble.hidden = true;
    restore();
    keepPlaces();
    markPair();
    const heading = document.querySelector("#task h1");
    heading?.focus({ preventScroll: true });
    window.scrollTo(0, 0);
    document.title = document.title.replace(/\d+/, byId("task").dataset.number ?? "");
    say(`${said} ${heading?.textContent ?? ""}`);
    show(said);
  });
})();
