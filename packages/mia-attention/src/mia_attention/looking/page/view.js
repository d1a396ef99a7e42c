"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const words = [...document.querySelectorAll("#words button")];
  const pictures = document.getElementById("pictures");
  const figures = [...pictures.querySelectorAll("figure")];
  const told = document.getElementById("told");
  const RAMP = [[87, 16, 110], [188, 55, 84], [249, 142, 9], [255, 236, 90]];
  let way = data.first, chosen = -1;

  const bytes = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const maps = Object.fromEntries(Object.entries(data.ways).map(([name, one]) => [name, one.maps && one.maps.map(bytes)]));
  const percent = share => `${Math.round(100 * share)}\u00a0%`;

  function colour(value) {
    const at = value * (RAMP.length - 1), low = Math.min(Math.floor(at), RAMP.length - 2), part = at - low;
    return RAMP[low].map((channel, index) => channel + part * (RAMP[low + 1][index] - channel));
  }

  function draw(figure, index, place) {
    const canvas = figure.querySelector("canvas");
    if (!canvas || !maps[way]) return;
    const { rows, columns } = data.pictures[index], beside = pictures.dataset.heat === "beside";
    const cells = maps[way][index].subarray(place * rows * columns, (place + 1) * rows * columns);
    canvas.width = columns; canvas.height = rows;
    const pen = canvas.getContext("2d"), image = pen.createImageData(columns, rows);
    cells.forEach((cell, at) => {
      const value = cell / 255, [red, green, blue] = colour(value);
      image.data.set([red, green, blue, beside ? 255 * Math.min(1, value * 3) : 200 * Math.sqrt(value)], 4 * at);
    });
    pen.putImageData(image, 0, 0);
  }

  function show(at) {
    const shares = data.ways[way].shares[at + 1];
    figures.forEach((figure, index) => {
      const share = shares ? shares[index] : 0;
      figure.querySelector(".bar i").style.width = `${100 * share}%`;
      figure.querySelector("figcaption b").textContent = shares ? percent(share) : "not measured";
      draw(figure, index, at + 1);
    });
    const name = at < 0 ? "The whole answer" : words[at].dataset.end ? "The end of the answer" : `“${words[at].textContent.trim() || words[at].title}”`;
    const each = shares ? data.pictures.map((one, index) => `${one.label} ${percent(shares[index])}`).join(", ") : "nothing was looked at";
    const chance = at < 0 ? data.chance : data.chances[at];
    told.textContent = `${name}: ${each}; probability ${chance}`;
  }

  function choose(at, focus) {
    chosen = Math.max(-1, Math.min(words.length - 1, at));
    words.forEach((word, index) => {
      word.setAttribute("aria-pressed", index === chosen);
      word.tabIndex = index === Math.max(chosen, 0) ? 0 : -1;
    });
    if (focus && chosen >= 0) words[chosen].focus();
    show(chosen);
  }

  function read(name) {
    way = name;
    document.querySelectorAll("[data-way]").forEach(button => button.setAttribute("aria-pressed", button.dataset.way === way));
    document.getElementById("reads").textContent = data.ways[way].reads + ".";
    words.forEach((word, index) => {
      const shares = data.ways[way].shares[index + 1], most = shares ? Math.max(...shares) : 0;
      const least = 1 / data.pictures.length, strong = least < 1 ? Math.max(0, (most - least) / (1 - least)) : 0;
      word.style.setProperty("--word", shares && data.pictures.length > 1
        ? `color-mix(in srgb, ${data.pictures[shares.indexOf(most)].colour} ${Math.round(15 + 85 * strong)}%, transparent)` : "transparent");
    });
    show(chosen);
  }

  words.forEach((word, index) => {
    word.addEventListener("click", () => choose(index === chosen ? -1 : index, true));
    word.addEventListener("mouseenter", () => show(index));
    word.addEventListener("mouseleave", () => show(chosen));
  });
  document.addEventListener("keydown", event => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest(".controls, details")) return;
    const to = { ArrowRight: chosen + 1, ArrowLeft: chosen - 1, Home: 0, End: words.length - 1, Escape: -1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    choose(to, true);
  });
  document.querySelectorAll("[data-way]").forEach(button => button.addEventListener("click", () => read(button.dataset.way)));
  document.querySelectorAll("button[data-heat]").forEach(button => button.addEventListener("click", () => {
    pictures.dataset.heat = button.dataset.heat;
    document.querySelectorAll("button[data-heat]").forEach(one => one.setAttribute("aria-pressed", one === button));
    show(chosen);
  }));
  document.getElementById("controls").hidden = false;
  document.getElementById("scale").hidden = !maps[data.first];
  choose(-1, false);
  read(way);
})();
