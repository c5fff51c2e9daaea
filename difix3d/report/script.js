"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// each view: the right picture is cut off left of the line, which the range input moves (by hand or by arrow keys)
for (const slider of all(".slider")) {
  const input = slider.querySelector("input");
  const move = () => slider.style.setProperty("--at", input.value + "%");
  input.addEventListener("input", move);
  slider.addEventListener("dblclick", () => { input.value = 50; move(); });
  move();
}

// which pictures are compared, on all views at once
function choose(side, name) {
  for (const slider of all(".slider")) {
    for (const image of all("img", slider)) image.classList.toggle(side, image.alt === name);
    all("em", slider)[side === "left" ? 0 : 1].textContent = name;
  }
}
for (const side of ["left", "right"]) {
  document.getElementById(side)?.addEventListener("change", event => choose(side, event.target.value));
}

document.getElementById("order")?.addEventListener("change", event => {
  const [key, sign] = event.target.value.split(" ");
  const cards = all(".card").sort((a, b) => sign * (a.dataset[key] - b.dataset[key]));
  document.querySelector(".cards").append(...cards);
});

const rounds = document.getElementById("rounds");
rounds?.addEventListener("input", () => {
  rounds.previousElementSibling.textContent = rounds.dataset.labels.split("|")[rounds.value];
  for (const group of all("#map .novel")) {
    group.style.display = rounds.value === "0" || group.dataset.round === rounds.value ? "" : "none";
  }
});
