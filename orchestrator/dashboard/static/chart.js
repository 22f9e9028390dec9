// Tasks ended per minute, stacked; colours are the page's own, so that both themes fit.
"use strict";
{
  let chart = null;

  const colour = (name) => {
    // A canvas knows no light-dark(): ask the browser what it comes to.
    const probe = document.createElement("i");
    probe.className = `state ${name}`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };

  const muted = () => {
    const probe = document.createElement("i");
    probe.className = "muted";
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };

  // The tallest first, each shorter one over it: that is a stack.
  function stacked([times, succeeded, failed, cancelled]) {
    const two = failed.map((count, i) => count + cancelled[i]);
    return [times, succeeded.map((count, i) => count + two[i]), two, cancelled];
  }

  function draw() {
    const place = document.getElementById("throughput");
    const data = document.getElementById("throughput-data");
    if (!place || !data) return;
    const series = stacked(JSON.parse(data.dataset.series));
    if (chart && chart.root.isConnected) {
      chart.setData(series);
      return;
    }
    const ink = muted();
    const grid = { stroke: "color-mix(in srgb, " + ink + " 22%, transparent)", width: 1 };
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const bars = uPlot.paths.bars({ size: [0.72, 24], radius: 0.15 });
    const kind = (name) => ({ label: name, fill: colour(name), stroke: colour(name), width: 0, paths: bars, points: { show: false } });
    chart = new uPlot({
      width: place.clientWidth,
      height: 176,
      padding: [8, 20, 0, 0],
      legend: { show: false },
      cursor: { show: false },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { y: { range: (_, _low, high) => [0, Math.max(4, high * 1.08)] } },
      axes: [
        { stroke: ink, font, size: 32, gap: 6, ticks: { show: false }, grid: { show: false }, space: 64, values: "{HH}:{mm}" },
        { stroke: ink, font, size: 44, ticks: { show: false }, grid, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5] },
      ],
      series: [{}, kind("succeeded"), kind("failed"), kind("cancelled")],
    }, series, place);
  }

  const again = () => { chart?.destroy(); chart = null; draw(); };
  draw();
  document.addEventListener("htmx:afterSettle", draw);
  document.addEventListener("themed", again);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  new ResizeObserver(([place]) => {
    if (chart && Math.abs(chart.width - place.contentRect.width) > 1) {
      chart.setSize({ width: place.contentRect.width, height: 176 });
    }
  }).observe(document.getElementById("throughput") || document.body);
}
