"use strict";
(() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);
  const make = (name, text, kind) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const drawing = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  root.classList.add("script");

  // ---- frames: what filters and sorting read of each, once
  const lists = [...document.querySelectorAll(".cards")];
  const cards = [...document.querySelectorAll(".card")].map((element, place) => {
    const { r, s, b, g, c } = element.dataset;
    const number = Number(element.id.slice(1));
    return {
      element, place, id: data.ids[number], shown: true, marked: false,
      rank: r === "" ? Infinity : Number(r), score: s === "" ? NaN : Number(s), cost: Number(b), stage: g, classes: c,
      folded: data.ids[number].toLowerCase(),
    };
  });
  const cardOf = new Map(cards.map((card) => [card.element, card]));

  for (const card of cards) {
    const label = make("label", undefined, "mark");
    const box = make("input");
    box.type = "checkbox";
    box.setAttribute("aria-label", "Mark " + card.element.querySelector(".id").textContent);
    label.append(box);
    card.box = box;
    card.element.querySelector("h3").append(label);
  }

  // ---- choices
  const count = (values) => {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) || 0) + 1);
    return counts;
  };
  const option = (value, text) => {
    const element = make("option", text);
    element.value = value;
    return element;
  };
  const labels = count(cards.flatMap((card) => card.classes.trim().split(" ").filter(Boolean)));
  const named = [...labels].map(([label, number]) => [label, (data.classes[label] || ["class " + label])[0], number]);
  named.sort((one, other) => one[1].localeCompare(other[1]));
  for (const [label, name, number] of named) find("class").append(option(label, name + " (" + number + ")"));
  const stages = count(cards.map((card) => card.stage));
  for (const [stage, number] of stages) find("stage").append(option(stage, stage + " (" + number + ")"));
  find("class").closest("label").hidden = labels.size === 0;
  find("stage").closest("label").hidden = stages.size < 2;
  const scored = cards.some((card) => !Number.isNaN(card.score));
  for (const id of ["from", "to"]) find(id).closest("label").hidden = !scored;
  for (const value of ["score", "score-up"]) find("sort").querySelector('[value="' + value + '"]').hidden = !scored;

  const limit = (id) => (find(id).value === "" || Number.isNaN(find(id).valueAsNumber) ? null : find(id).valueAsNumber);
  const filter = () => {
    const label = find("class").value, stage = find("stage").value, only = find("only").checked;
    const from = limit("from"), to = limit("to"), text = find("search").value.trim().toLowerCase();
    let shown = 0;
    for (const card of cards) {
      const fits =
        (!label || card.classes.includes(" " + label + " ")) && (!stage || card.stage === stage) &&
        (from === null || card.score >= from) && (to === null || card.score <= to) &&
        (!text || card.folded.includes(text)) && (!only || card.marked);
      if (fits !== card.shown) card.element.hidden = !fits;
      card.shown = fits;
      shown += fits;
    }
    for (const list of lists) {
      const note = list.nextElementSibling;
      if (note && note.classList.contains("empty")) {
        note.hidden = [...list.children].some((element) => !element.hidden);
      }
    }
    find("status").textContent = shown + " of " + cards.length + " frames shown, those not chosen included";
  };
  const orders = {
    rank: (one, other) => one.place - other.place,
    score: (one, other) => other.score - one.score,
    "score-up": (one, other) => one.score - other.score,
    cost: (one, other) => other.cost - one.cost,
    "cost-up": (one, other) => one.cost - other.cost,
    id: (one, other) => (one.id < other.id ? -1 : one.id > other.id ? 1 : 0),
  };
  const sort = () => {
    const name = find("sort").value;
    const compare = (one, other) => {
      if (name.startsWith("score") && Number.isNaN(one.score) !== Number.isNaN(other.score)) {
        return Number.isNaN(one.score) ? 1 : -1;
      }
      return orders[name](one, other) || one.place - other.place;
    };
    for (const list of lists) {
      const own = [...list.children].map((element) => cardOf.get(element)).sort(compare);
      list.replaceChildren(...own.map((card) => card.element));
    }
  };
  let waiting = 0;
  const soon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  };
  for (const id of ["class", "stage", "only"]) find(id).addEventListener("change", filter);
  for (const id of ["from", "to", "search"]) find(id).addEventListener("input", soon);
  find("sort").addEventListener("change", sort);
  find("tools").addEventListener("submit", (event) => event.preventDefault());
  find("boxes").addEventListener("change", (event) => root.classList.toggle("no-boxes", !event.target.checked));

  // ---- marks
  const mark = (card, on) => {
    card.marked = card.box.checked = on;
    card.element.classList.toggle("picked", on);
  };
  const tell = () => {
    const marked = cards.filter((card) => card.marked).length;
    find("marked").textContent = marked;
    find("save").disabled = find("none").disabled = marked === 0;
    if (find("only").checked) filter();
  };
  document.addEventListener("change", (event) => {
    const card = event.target.closest(".mark") && cardOf.get(event.target.closest(".card"));
    if (card) {
      mark(card, event.target.checked);
      tell();
    }
  });
  find("all").addEventListener("click", () => {
    for (const card of cards) if (card.shown) mark(card, true);
    tell();
  });
  find("none").addEventListener("click", () => {
    for (const card of cards) mark(card, false);
    tell();
  });
  // One id a line. A line cannot hold a line break: an id with control characters, or that begins with a quotation
  // mark, is written as a string of JSON.
  const line = (id) => (/^"|[\u0000-\u001f\u007f\u0085\u2028\u2029]/.test(id) ? JSON.stringify(id) : id);
  find("save").addEventListener("click", () => {
    const text = cards.filter((card) => card.marked).map((card) => line(card.id) + "\n").join("");
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
    link.download = "marked.txt";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  });

  // ---- boxes: the class vector of the one that is pointed at, focused or tapped
  let open = null, pinned = false;
  const hide = () => {
    if (!open) return;
    open.panel.remove();
    for (const element of open.lit) element.classList.remove("on");
    open = null;
    pinned = false;
  };
  const show = (card, number) => {
    hide();
    const rect = card.querySelector('.over [data-b="' + number + '"]');
    const row = card.querySelector('tr[data-b="' + number + '"]');
    if (!row) return;
    const [name, score, vector] = row.cells;
    const panel = make("div", undefined, "vector");
    panel.append(make("p", name.textContent.replace("◂", "").trim() + " " + score.textContent + (name.textContent.includes("◂") ? ", decides" : "")));
    for (const part of vector.textContent.split(", ")) {
      const found = /^(.*) ([\d.]+)$/s.exec(part);
      if (!found) continue;
      const bar = drawing("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" });
      bar.append(drawing("rect", { width: 100 * Math.min(1, Number(found[2])), height: 8 }));
      const entry = make("div");
      entry.append(make("span", found[1]), bar, make("b", found[2]));
      panel.append(entry);
    }
    const picture = card.querySelector(".picture");
    if (rect) {
      const box = rect.getBBox(), whole = rect.ownerSVGElement.viewBox.baseVal;
      panel.classList.toggle("high", box.y + box.height / 2 > whole.height / 2);
      rect.classList.add("on");
    }
    row.classList.add("on");
    picture.append(panel);
    open = { panel, lit: rect ? [rect, row] : [row] };
  };
  const boxAt = (event) => event.target.closest && event.target.closest(".over [data-b]");
  document.addEventListener("pointerover", (event) => {
    const rect = event.pointerType === "mouse" && boxAt(event);
    if (pinned) return;
    if (rect) show(rect.closest(".card"), rect.dataset.b);
    else if (event.pointerType === "mouse" && !(document.activeElement && document.activeElement.closest("tr[data-b]"))) hide();
  });
  document.addEventListener("click", (event) => {
    const rect = boxAt(event);
    if (rect) {
      const again = pinned && open && open.lit.includes(rect);
      if (again) hide();
      else {
        show(rect.closest(".card"), rect.dataset.b);
        pinned = true;
      }
    } else if (!event.target.closest("tr[data-b]")) hide();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
  document.addEventListener("toggle", (event) => {
    const details = event.target;
    if (!details.matches(".boxes") || details.dataset.ready) return;
    details.dataset.ready = "yes";
    for (const cell of details.querySelectorAll("td:first-child")) {
      const button = make("button");
      button.type = "button";
      button.append(...cell.childNodes);
      cell.append(button);
    }
  }, true);
  document.addEventListener("focusin", (event) => {
    const row = event.target.closest("tr[data-b]");
    if (row) show(row.closest(".card"), row.dataset.b);
    else if (open && !pinned) hide();
  });

  // ---- the map: what lies under the pointer, or has the focus
  const map = document.querySelector("svg.map"), tip = find("tip");
  if (map && data.map) {
    const links = [...map.querySelectorAll("a")];
    const circles = [...map.querySelectorAll("circle")];
    links.forEach((link, place) => link.setAttribute("tabindex", place === 0 ? "0" : "-1"));
    links.forEach((link, place) => link.setAttribute("aria-label", place + 1 + ". " + cards[place].element.querySelector(".id").textContent));
    const put = (x, y, text, image) => {
      tip.replaceChildren();
      if (image) {
        const picture = make("img");
        picture.src = image;
        picture.alt = "";
        tip.append(picture);
      }
      tip.append(make("bdi", text));
      tip.hidden = false;
      const wide = tip.offsetWidth, high = tip.offsetHeight;
      tip.style.left = Math.max(4, Math.min(x + 14, root.clientWidth - wide - 4)) + scrollX + "px";
      tip.style.top = (y + 14 + high > innerHeight ? Math.max(4, y - high - 14) : y + 14) + scrollY + "px";
    };
    const at = (circle) => {
      const box = circle.getBoundingClientRect();
      return [box.left + box.width / 2, box.top + box.height / 2];
    };
    const tellChosen = (place, x, y) => {
      const image = document.querySelector("#f" + place + " .picture img");
      put(x, y, links[place].getAttribute("aria-label"), image && image.src);
    };
    map.addEventListener("focusin", (event) => {
      const place = links.indexOf(event.target.closest("a"));
      if (place >= 0) tellChosen(place, ...at(circles[place]));
    });
    map.addEventListener("focusout", () => { tip.hidden = true; });
    map.addEventListener("pointerleave", () => { tip.hidden = true; });
    map.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const place = links.indexOf(document.activeElement);
      if (!step || place < 0) return;
      event.preventDefault();
      const next = links[(place + step + links.length) % links.length];
      links[place].setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
    map.addEventListener("pointermove", (event) => {
      const link = event.target.closest("a");
      if (link) return tellChosen(links.indexOf(link), event.clientX, event.clientY);
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
      let best = 64, found = -1;
      const { points, names, pool } = data.map;
      for (let place = 0; place < names.length; place += 1) {
        const far = (points[2 * place] - point.x) ** 2 + (points[2 * place + 1] - point.y) ** 2;
        if (far < best) [best, found] = [far, place];
      }
      if (found < 0) tip.hidden = true;
      else put(event.clientX, event.clientY, (found < pool ? "not chosen: " : "annotated: ") + names[found]);
    });
  }

  tell();
  filter();
})();
