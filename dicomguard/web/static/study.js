// The viewer, and live updates of a study that is still moving. Without this script the page shows one slice at a time.
"use strict";
(() => {
  document.documentElement.classList.add("script");
  const SVG = "http://www.w3.org/2000/svg";
  // Slices on either side that are fetched ahead.
  const AHEAD = 6;
  const study = document.getElementById("study");

  function shape(name, attributes, text) {
    const element = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    return element;
  }

  async function view(viewer) {
    const answer = await fetch(viewer.dataset.slices);
    if (!answer.ok) return;
    const data = await answer.json();
    const [image, svg, strip, text] = ["slice", "outlines", "strip", "slice-text"].map((id) => document.getElementById(id));
    const [picker, range, position, overlay] = ["series", "position", "position-text", "overlay"].map((id) => document.getElementById(id));
    const screen = viewer.querySelector(".screen");
    const pictures = new Map();
    let series = Number(picker.value);
    let index = Number(range.value) - 1;
    let asked = 0;

    function picture(src) {
      if (!pictures.has(src)) {
        pictures.set(src, fetch(src).then(async (got) => {
          if (!got.ok) throw new Error("no picture");
          return URL.createObjectURL(await got.blob());
        }));
        pictures.get(src).catch(() => pictures.delete(src));
      }
      return pictures.get(src);
    }

    function draw(slice) {
      const [columns, rows] = [image.naturalWidth || 1, image.naturalHeight || 1];
      svg.setAttribute("viewBox", `0 0 ${columns} ${rows}`);
      // An empty picture of the right shape holds the place: pixels need not be square.
      document.getElementById("shape").setAttribute("viewBox", `0 0 ${columns} ${rows * data.series[series].stretch}`);
      svg.replaceChildren();
      for (const line of slice.outlines) {
        svg.append(
          shape("polygon", { class: "halo", points: line.points }),
          shape("polygon", { class: `line ${line.category}`, points: line.points }),
          shape("text", { class: `tag ${line.category}`, x: Math.min(line.at[0], columns * 0.93), y: line.at[1], "font-size": rows / 24 }, line.id),
        );
      }
    }

    async function show() {
      const slices = data.series[series].slices;
      index = Math.max(0, Math.min(index, slices.length - 1));
      const slice = slices[index];
      const mine = ++asked;
      range.max = slices.length;
      range.value = index + 1;
      position.textContent = `${index + 1} of ${slices.length}`;
      const score = slice.score === null ? "" : `, forgery ${slice.score.toFixed(2)}`;
      const marks = slice.outlines.map((line) => line.label).join("; ");
      const name = slice.name.charAt(0).toUpperCase() + slice.name.slice(1);
      text.textContent = `${name}${score}${marks ? `: ${marks}` : ""}${slice.skipped ? `. Not analysed: ${slice.skipped}` : ""}`;
      strip.querySelector(".now")?.setAttribute("x", index);
      try {
        const src = await picture(slice.src);
        if (mine !== asked) return;
        image.src = src;
        image.alt = name;
        await image.decode();
      } catch {
        if (mine !== asked) return;
        image.alt = `${name} cannot be shown.`;
      }
      if (mine !== asked) return;
      draw(slice);
      for (let step = 1; step <= AHEAD; step += 1) {
        for (const near of [index + step, index - step]) if (slices[near]) picture(slices[near].src).catch(() => {});
      }
    }

    function bars() {
      const slices = data.series[series].slices;
      strip.setAttribute("viewBox", `0 0 ${slices.length} 100`);
      strip.setAttribute("preserveAspectRatio", "none");
      strip.replaceChildren(shape("rect", { class: "now", x: index, y: 0, width: 1, height: 100 }));
      slices.forEach((slice, at) => {
        const attributes = slice.score === null
          ? { class: "skipped", x: at + 0.15, y: 90, width: 0.7, height: 8 }
          : { class: slice.score >= data.threshold ? "over" : "", x: at + 0.1, y: 100 - 100 * slice.score, width: 0.8, height: Math.max(100 * slice.score, 1.5) };
        strip.append(shape("rect", attributes));
      });
      const at = 100 - 100 * data.threshold;
      strip.append(shape("line", { x1: 0, x2: slices.length, y1: at, y2: at }));
    }

    function go(toSeries, toIndex) {
      const other = toSeries !== series;
      series = toSeries;
      index = toIndex;
      picker.value = String(series);
      if (other) bars();
      show();
    }

    picker.addEventListener("change", () => go(Number(picker.value), Math.floor(data.series[Number(picker.value)].slices.length / 2)));
    range.addEventListener("input", () => go(series, Number(range.value) - 1));
    overlay.addEventListener("change", () => viewer.classList.toggle("hide-outlines", !overlay.checked));
    screen.addEventListener("wheel", (event) => { event.preventDefault(); go(series, index + Math.sign(event.deltaY)); }, { passive: false });
    screen.addEventListener("keydown", (event) => {
      const steps = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 };
      if (event.key in steps) { event.preventDefault(); go(series, index + steps[event.key]); }
      if (event.key.toLowerCase() === "o") { overlay.checked = !overlay.checked; overlay.dispatchEvent(new Event("change")); }
    });
    strip.addEventListener("click", (event) => {
      const box = strip.getBoundingClientRect();
      go(series, Math.floor(((event.clientX - box.left) / box.width) * data.series[series].slices.length));
    });
    for (const link of document.querySelectorAll(".jump")) {
      link.addEventListener("click", (event) => {
        event.preventDefault();
        go(Number(link.dataset.series), Number(link.dataset.index));
        screen.focus();
        screen.scrollIntoView({ block: "center" });
      });
    }
    viewer.querySelector("form").addEventListener("submit", (event) => event.preventDefault());
    bars();
    show();
    viewer.dataset.ready = "yes";
  }

  function start() {
    const viewer = document.getElementById("viewer");
    if (viewer && !viewer.dataset.began) {
      viewer.dataset.began = "yes";
      view(viewer);
    }
  }

  // The stream says only that something moved; the page then asks for the part again.
  function follow(address) {
    const source = new EventSource(address);
    const here = window.location.pathname;
    const refresh = async () => {
      await htmx.ajax("GET", `${here}?part=status`, { target: "#status", swap: "outerHTML" });
      const status = document.getElementById("status");
      const answer = document.getElementById("answer");
      const unanswered = answer.dataset.revision === "0";
      if (unanswered || status.dataset.revision !== answer.dataset.revision) {
        await htmx.ajax("GET", `${here}?part=answer`, { target: "#answer", swap: "outerHTML" });
        start();
        const words = document.getElementById("answer-words");
        if (words) document.title = `${words.textContent.trim()} – dicomguard`;
      }
    };
    let waiting = Promise.resolve();
    source.addEventListener("moved", () => { waiting = waiting.then(refresh); });
    source.addEventListener("finished", () => { source.close(); waiting = waiting.then(refresh); });
  }

  start();
  if (study.dataset.live) follow(study.dataset.live);
})();
