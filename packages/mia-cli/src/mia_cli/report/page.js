"use strict";
(() => {
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  const source = document.getElementById("pairs");
  if (!source) return;
  const { pairs, thumbnails } = JSON.parse(source.textContent);
  const images = document.getElementById("thumbnails").content.children;
  const PAGE = 20;
  const gallery = document.getElementById("gallery");
  const controls = Object.fromEntries(["bucket", "says", "kind", "outcome", "words"].map((id) => [id, document.getElementById(id)]));
  let page = 0;

  const make = (tag, css, text) => {
    const node = document.createElement(tag);
    if (css) node.className = css;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  const outline = (thumbnail, region, target) => {
    const [left, top, right, bottom] = region.box || [0, 0, thumbnail.width, thumbnail.height];
    const box = make("span", target ? "box target" : "box");
    box.style.left = `${(100 * left) / thumbnail.width}%`;
    box.style.top = `${(100 * top) / thumbnail.height}%`;
    box.style.width = `${(100 * (right - left)) / thumbnail.width}%`;
    box.style.height = `${(100 * (bottom - top)) / thumbnail.height}%`;
    return box;
  };

  const picture = (pair, name, index) => {
    const figure = make("figure");
    const frame = make("span", "frame");
    const told = ([region, k]) => {
      const line = make("span");
      const share = (name) => (pair[name] && pair[name].length ? [`${name}\u00a0${Math.round(100 * pair[name][k])}\u00a0%`] : []);
      const loss = pair.losses ? pair.losses[k] : null;
      const lost = loss === null ? [] : [`without\u00a0it\u00a0${Math.abs(loss) < 0.05 ? "\u00b1" : loss > 0 ? "\u2212" : "+"}${Math.abs(loss).toFixed(1)}\u00a0nats`];
      line.append(make("b", "", region.label), ` ${[...share("attention"), ...share("alone"), ...lost].join(", ")}`);
      return line;
    };
    const inside = pair.regions.map((region, k) => [region, k]).filter(([region]) => region.image === index);
    const labels = inside.map(([region]) => region.label).join(", ");
    const thumbnail = thumbnails[name];
    if (thumbnail) {
      const image = images[thumbnail.index].cloneNode();
      image.decoding = "async"; /* not lazy: whoever prints the page, or captures it whole, has not scrolled */
      image.alt = `Picture ${index + 1} of ${pair.images.length}: ${labels}`;
      frame.append(image);
      figure.style.width = `${Math.max(150, image.width)}px`;
      const heat = pair.heat && pair.heat[index];
      if (heat) {
        const layer = make("img", "heat");
        layer.src = heat;
        layer.alt = "";
        frame.append(layer);
      }
      pair.regions.forEach((region, k) => {
        if (region.image === index && (region.box || k === pair.target)) frame.append(outline(thumbnail, region, k === pair.target));
      });
    }
    const caption = make("figcaption");
    caption.append(...inside.map(told));
    figure.append(frame, caption);
    return figure;
  };

  /* Marks the words of `text` that `other` does not have. */
  const marked = (css, text, other) => {
    const words = new Set(other.toLowerCase().split(/\s+/));
    const line = make("span", css);
    text.split(/(\s+)/).forEach((word) => {
      line.append(word.trim() && !words.has(word.toLowerCase()) ? make("mark", "", word) : document.createTextNode(word));
    });
    return line;
  };

  /* The lines that stand for the pictures are set apart from the question. */
  const prompt = (text) => {
    const cut = text.lastIndexOf("<image>") + "<image>".length;
    const node = make("p", "prompt");
    node.append(make("span", "quiet", text.slice(0, cut).replaceAll("\n", "  ")), text.slice(cut).trim());
    return node;
  };

  const show = (pair) => {
    const kept = pair.outcome === "became a pair";
    const card = make("article", "pair");
    const header = make("header");
    header.append(make("b", "", pair.bucket), make("span", kept ? "chip kept" : "chip", pair.outcome));
    header.append(make("span", "chip", pair.says), make("span", "chip", pair.kind), make("code", "", pair.id));
    const pictures = make("div", "pictures");
    pair.images.forEach((name, index) => pictures.append(picture(pair, name, index)));
    const answers = make("div", "answers");
    answers.append(make("span", "quiet", kept ? "chosen" : "truth"), marked("chosen", pair.chosen, pair.rejected));
    answers.append(make("span", "quiet", kept ? "rejected" : "answer"), marked("rejected", pair.rejected, pair.chosen));
    const scores = make("p", "scores");
    Object.entries(pair.scores).forEach(([name, value]) => {
      scores.append(make("span", "", `${name.replaceAll("_", " ")} ${value.toFixed(name === "perplexity" ? 3 : 2)}`));
    });
    const words = make("div", "words");
    words.append(prompt(pair.prompt), answers, scores);
    const body = make("div", "body");
    body.append(pictures, words);
    card.append(header, body);
    return card;
  };

  const wanted = () => {
    const words = controls.words.value.trim().toLowerCase();
    return pairs.filter((pair) =>
      (!controls.bucket.value || pair.bucket === controls.bucket.value || controls.bucket.value === `${pair.bucket.split(" ")[0]}, all`) &&
      ["says", "kind", "outcome"].every((name) => !controls[name].value || pair[name] === controls[name].value) &&
      (!words || `${pair.id} ${pair.prompt} ${pair.chosen} ${pair.rejected}`.toLowerCase().includes(words)));
  };

  const previous = document.getElementById("previous");
  const next = document.getElementById("next");
  const empty = document.getElementById("empty");
  const reset = document.getElementById("reset");
  const KEY = "#examples?";

  /* What is chosen stands in the address, to be bookmarked and sent: only what differs from the start. */
  const remember = () => {
    const state = new URLSearchParams();
    Object.entries(controls).forEach(([id, control]) => { if (control.value.trim()) state.set(id, control.value.trim()); });
    reset.disabled = ![...state].length;
    if (page) state.set("page", page + 1);
    const text = String(state);
    if (text) history.replaceState(null, "", KEY + text);
    else if (location.hash.startsWith(KEY)) history.replaceState(null, "", "#examples");
  };

  /* Takes over what the address says; false where it says nothing of the examples. */
  const recall = () => {
    if (!location.hash.startsWith(KEY)) return false;
    const state = new URLSearchParams(location.hash.slice(KEY.length));
    Object.entries(controls).forEach(([id, control]) => {
      control.value = state.get(id) ?? "";
      if (control.selectedIndex === -1) control.value = "";
    });
    page = Math.max(0, (Number.parseInt(state.get("page"), 10) || 1) - 1);
    return true;
  };

  const draw = () => {
    const found = wanted();
    const pages = Math.max(1, Math.ceil(found.length / PAGE));
    page = Math.min(page, pages - 1);
    gallery.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(show));
    document.getElementById("place").textContent = `${found.length} of ${pairs.length} examples, page ${page + 1} of ${pages}`;
    previous.disabled = page === 0;
    next.disabled = page === pages - 1;
    empty.hidden = found.length > 0;
    remember();
  };
  const forget = () => {
    Object.values(controls).forEach((control) => { control.value = ""; });
    page = 0;
    draw();
  };
  reset.addEventListener("click", forget);
  document.getElementById("all").addEventListener("click", forget);
  addEventListener("hashchange", () => { if (recall()) draw(); });
  Object.values(controls).forEach((control) => control.addEventListener("input", () => { page = 0; draw(); }));
  previous.addEventListener("click", () => { page -= 1; draw(); });
  next.addEventListener("click", () => { page += 1; draw(); });
  document.getElementById("outlines").addEventListener("input", (event) => gallery.classList.toggle("plain", !event.target.checked));
  const opacity = document.getElementById("opacity");
  if (opacity) {
    const blend = () => gallery.style.setProperty("--heat", opacity.value);
    opacity.addEventListener("input", blend);
    document.getElementById("attention").addEventListener("input", (event) => gallery.classList.toggle("noheat", !event.target.checked));
    blend();
  }
  document.addEventListener("keydown", (event) => {
    if ((event.target instanceof Element && event.target.matches("input, select")) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft" && !previous.disabled) previous.click();
    if (event.key === "ArrowRight" && !next.disabled) next.click();
  });
  const sent = recall();
  draw();
  if (sent) document.getElementById("examples").scrollIntoView();
})();
