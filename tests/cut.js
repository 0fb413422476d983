// What of the page is cut at this width, as a list of lines; arguments: [done].
const [done] = arguments;
const called = (e) => `<${e.localName}${e.id && ` id=${e.id}`}> ${e.textContent.trim().replace(/\s+/g, " ").slice(0, 50)}`;
const width = document.documentElement.clientWidth;

const faults = (e) => {
  const box = e.getBoundingClientRect();
  const scrolls = e.matches(".scroll");
  const hint = [...e.parentElement.children].find((other) => other !== e && / sideways$/.test(other.textContent.trim()));
  const says = hint?.checkVisibility() && hint.getBoundingClientRect().height > 0;
  const beyond = e.clientWidth > 0 ? e.scrollWidth - e.clientWidth : 0;
  const found = [];
  if (!e.parentElement.closest(".scroll") && (box.left < -0.5 || box.right > width + 0.5)) found.push("beyond the window");
  if (beyond > 1 && !scrolls) found.push("wider than its box");
  if (beyond && scrolls && !["auto", "scroll"].includes(getComputedStyle(e).overflowX)) found.push("cut without a scrollbar");
  if (scrolls && beyond && !says) found.push("scrolls and does not say so");
  if (scrolls && !beyond && says) found.push("says that it scrolls and does not");
  if (e.matches("img, svg, caption *") && box.width > e.closest("figure, .scroll, section").clientWidth + 0.5) found.push("wider than its frame");
  return found.map((fault) => `${fault}: ${called(e)}`);
};

// two frames: what the page itself measures, it has measured by then
requestAnimationFrame(() => requestAnimationFrame(() => {
  const lines = document.documentElement.scrollWidth > width ? [`the page is ${document.documentElement.scrollWidth} wide`] : [];
  for (const e of document.querySelectorAll("body *")) {
    if (e.checkVisibility() && !e.closest(".hidden, .skip, select")) lines.push(...faults(e));
  }
  done(lines);
}));
