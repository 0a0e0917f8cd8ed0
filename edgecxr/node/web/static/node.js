// Live updates and the slider of the attention. Every page works without this file.
"use strict";

const EVERY = 5000; // milliseconds

function slider() {
  const slide = document.querySelector(".slide");
  if (!slide) return;
  const range = slide.querySelector("input"), said = slide.querySelector("output");
  const colours = document.querySelector(".colours"), choice = document.querySelector(".choice");
  choice.querySelector("input").checked = true;
  choice.hidden = true;
  slide.hidden = false;
  const show = () => {
    colours.style.opacity = range.value / 100;
    said.textContent = range.value + " %";
    range.setAttribute("aria-valuetext", said.textContent);
  };
  range.addEventListener("input", show);
  show();
}

function liveUpdates() {
  const bar = document.querySelector("[data-live]"), place = document.getElementById("live");
  if (!bar || !place) return;
  const choice = bar.querySelector(".switch"), box = choice.querySelector("input"), said = bar.querySelector(".said");
  let shown = null, since = new Date();
  choice.hidden = false;

  const kind = () => { const at = place.querySelector("[data-kind]"); return at && at.dataset.kind; };

  // What somebody is using must not be exchanged under their hands.
  const inUse = () => place.contains(document.activeElement) || String(document.getSelection()) !== "";

  async function update() {
    try {
      const answer = await fetch(bar.dataset.live, { headers: { "X-Live": "1" }, redirect: "error" });
      if (answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(answer.status);
      const text = await answer.text();
      since = new Date();
      said.textContent = bar.dataset.updated + " " + since.toTimeString().slice(0, 8);
      if (text !== shown && !inUse()) {
        const before = kind(), open = place.querySelectorAll("details");
        const opened = [...open].map((each) => each.open);
        place.innerHTML = text; // of this node, where everything is escaped
        place.querySelectorAll("details").forEach((each, index) => { each.open = opened[index] || false; });
        if (place.dataset.reload && before !== kind()) return location.reload();
        shown = text;
      }
    } catch {
      said.textContent = bar.dataset.lost + " " + since.toTimeString().slice(0, 8);
    }
  }

  const next = async () => {
    if (box.checked && !document.hidden) await update();
    setTimeout(next, EVERY);
  };
  next();
}

slider();
liveUpdates();
