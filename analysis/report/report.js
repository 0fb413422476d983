// Everything here is a convenience: the pages say all that they say without it.
"use strict";

// Filter and search: a form over the items of the page; what is chosen stands in the address.
const form = document.querySelector("form.filter");
if (form) {
  const more = window.reportTexts || {};
  const items = [...document.querySelectorAll(".item")].map((element) => ({
    element,
    text: `${element.textContent} ${more[element.id] || ""}`.toLowerCase(),
    verdicts: element.dataset.verdicts.split(" "),
  }));
  const groups = [...document.querySelectorAll(".group")];
  const elsewhere = document.querySelector(".elsewhere a");
  const found = form.querySelector(".found");

  const apply = () => {
    const chosen = Object.fromEntries([...new FormData(form)].filter(([, value]) => value.trim()));
    const words = (chosen.q || "").toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const { element, text, verdicts } of items) {
      const shown =
        words.every((word) => text.includes(word)) &&
        (!chosen.paper || element.dataset.paper === chosen.paper) &&
        (!chosen.status || element.dataset.status === chosen.status) &&
        (!chosen.verdict || verdicts.includes(chosen.verdict));
      element.hidden = !shown;
      count += shown;
    }
    for (const group of groups) group.hidden = !group.querySelector(".item:not([hidden])");
    found.textContent = `${count} of ${items.length}`;
    const query = new URLSearchParams(chosen).toString();
    history.replaceState(null, "", query ? `#${query}` : location.pathname);
    if (elsewhere) elsewhere.href = query ? `claims.html#${query}` : "claims.html";
  };

  const read = () => {
    if (!location.hash.includes("=")) return;
    for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
      if (form.elements[name]) form.elements[name].value = value;
    }
    apply();
  };

  form.hidden = false;
  found.textContent = `${items.length} of ${items.length}`;
  read();
  addEventListener("hashchange", read);
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
}

// A table that fits needs no stop of the Tab key and no hint. Observed, since one in a fold has no width before it opens.
const measure = ({ target }) => {
  const wide = target.scrollWidth > target.clientWidth;
  target.parentElement.classList.toggle("wide", wide);
  if (wide) target.tabIndex = 0;
  else target.removeAttribute("tabindex");
};
const sizes = new ResizeObserver((entries) => entries.forEach(measure));
document.querySelectorAll(".scroll").forEach((each) => sizes.observe(each));

// Paper has no folds; a link into a fold opens it.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
const unfold = () => document.getElementById(location.hash.slice(1))?.closest("details")?.setAttribute("open", "");
addEventListener("hashchange", unfold);
unfold();
