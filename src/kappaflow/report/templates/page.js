// Draws the figures in the page's colors, and again when the colors, the width or the medium change.
(function () {
  "use strict";
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figure-data").textContent);
  const template = JSON.parse(document.getElementById("figure-template").textContent);
  const boxes = Array.from(document.querySelectorAll("[data-figure]"));
  const mouse = window.matchMedia("(pointer: fine)").matches;
  const config = { displayModeBar: false, displaylogo: false, doubleClick: "reset", typesetMath: false };

  // Returns a copy of a figure with "var(--name)" replaced by the value of that CSS variable.
  function colored(value, styles) {
    if (typeof value === "string") {
      const name = /^var\((--[a-z-]+)\)$/.exec(value);
      return name ? styles.getPropertyValue(name[1]).trim() : value;
    }
    if (Array.isArray(value)) {
      const numbers = typeof value[0] === "number" && typeof value[value.length - 1] !== "string";
      return numbers ? value : value.map((item) => colored(item, styles));
    }
    if (value && typeof value === "object") {
      const entries = Object.entries(value).map(([key, item]) => [key, colored(item, styles)]);
      return Object.fromEntries(entries);
    }
    return value;
  }

  // Draws all figures. At a new width they are drawn afresh: plotly keeps margins made for the old legend.
  function draw(afresh) {
    const styles = getComputedStyle(root);
    for (const box of boxes) {
      const figure = colored(figures[box.dataset.figure], styles);
      const width = box.clientWidth;
      const size = { template: colored(template, styles), width: width, height: figure.height || width, dragmode: mouse ? "zoom" : false };
      if (afresh) Plotly.purge(box);
      Plotly.react(box, figure.data, Object.assign(figure.layout, size), config);
    }
  }

  let drawnAt = 0;
  function drawAt(width) {
    drawnAt = width;
    draw(true);
  }
  window.addEventListener("resize", function () {
    requestAnimationFrame(() => root.clientWidth !== drawnAt && drawAt(root.clientWidth));
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(false));
  let folded = [];
  window.addEventListener("beforeprint", function () {
    root.dataset.printing = "";
    folded = document.querySelectorAll("details:not([open])");
    folded.forEach((one) => (one.open = true));
    draw(true);
  });
  window.addEventListener("afterprint", function () {
    delete root.dataset.printing;
    folded.forEach((one) => (one.open = false));
    draw(true);
  });
  drawAt(root.clientWidth);
  root.dataset.drawn = "";
})();
