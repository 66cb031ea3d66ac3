/* Copyright: Contributors to the nvgrace.passthrough project. SPDX-License-Identifier: GPL-3.0-or-later */
"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const body = document.querySelector("#table tbody");
  const rows = Array.from(body.rows);
  const heads = Array.from(document.querySelectorAll("#table thead th"));
  const find = document.getElementById("find"), product = document.getElementById("product");
  const text = (number) => data.texts[number];
  let outcome = "";

  // Everything is put in as text: what hosts say never becomes markup.
  function make(tag, options, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(options || {})) element.setAttribute(name, value);
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  function shape(tag, attributes) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    return element;
  }
  const pill = (name) => make("span", {class: "pill " + name.replace(/ /g, "-")}, name);
  const facts = (pairs) => make("dl", {class: "facts"},
    ...pairs.map(([label, value]) => make("div", {class: text(value).length > 60 ? "long" : ""},
      make("dt", {}, text(label)), make("dd", {}, text(value)))));

  function bars(regions) {
    const grid = make("div", {class: "bars"}), kinds = new Set();
    for (const [, name, role, reported, actual, , , , drawn] of regions) {
      if (!drawn) continue;
      const sizes = reported === actual ? reported : actual + " of " + reported;
      const picture = shape("svg", {viewBox: "0 0 1000 18", preserveAspectRatio: "none", role: "img",
        "aria-label": name + ", " + role + ": " + sizes});
      for (const [kind, x, width, size, offset] of drawn[0]) {
        const part = shape("rect", {x, y: 0, width, height: 18, class: kind}), title = shape("title", {});
        title.textContent = kind + ", " + size + " at " + offset;
        part.append(title);
        picture.append(part);
        kinds.add(kind);
      }
      grid.append(make("span", {}, make("b", {}, name), " " + role), picture,
        make("span", {class: "size"}, sizes + (drawn[1] ? " (drawn larger)" : "")));
    }
    const legend = make("div", {class: "legend", "aria-hidden": "true"}, ...Array.from(kinds, (kind) => {
      const mark = shape("svg", {viewBox: "0 0 14 10"});
      mark.append(shape("rect", {width: 14, height: 10, class: kind}));
      return make("span", {}, mark, kind);
    }));
    return make("div", {}, grid, legend);
  }

  function table(head, lines) {
    return make("div", {class: "wide"}, make("table", {},
      make("thead", {}, make("tr", {}, ...head.map((name) => make("th", {scope: "col"}, name)))),
      make("tbody", {}, ...lines.map((line) => make("tr", {}, ...line.map((cell) => make("td", {}, cell)))))));
  }
  function fold(title, content) { return make("details", {}, make("summary", {}, title), content); }

  function gpu(entry) {
    const box = make("section", {class: "gpu"},
      make("h3", {}, entry.a + "  " + text(entry.p) + " ", pill(text(entry.v))), facts(entry.f));
    for (const reason of entry.r || []) box.append(make("p", {class: "why"}, text(reason)));
    for (const sentence of entry.o || []) box.append(make("p", {class: "quarantined"}, sentence));
    if (entry.m !== undefined) {
      const regions = data.maps[entry.m];
      box.append(bars(regions));
      for (const region of regions) for (const reason of region[7])
        box.append(make("p", {class: region[6] === "fail" ? "why" : "dim"}, region[1] + ": " + reason));
      box.append(fold("All regions", table(["index", "region", "role", "reported", "actual", "flags", "verdict"],
        regions.map((region) => region.slice(0, 7).map(String)))));
    }
    return box;
  }

  function nodes(list, gpus) {
    const box = make("div", {class: "nodes"}), shown = new Set();
    const groups = [];
    for (const [id, cpus, memory, initiator] of list) {
      const own = gpus.filter((entry) => entry.n === id), reached = gpus.filter((entry) => (entry.i || []).includes(id));
      if (!cpus && !memory && !own.length && !reached.length) continue;
      shown.add(id);
      const lines = [...own.map((entry) => "GPU " + entry.a), ...reached.map((entry) => "memory of GPU " + entry.a)];
      const says = [cpus && "CPUs " + cpus, memory, !cpus && initiator && "generic initiator"].filter(Boolean).join(", ") || "empty";
      const last = groups[groups.length - 1], key = says + "\n" + lines.join("\n");
      if (last && !cpus && !memory && last.key === key && last.to === id - 1) last.to = id;
      else groups.push({from: id, to: id, key, says, lines, cpus});
    }
    for (const group of groups) box.append(make("div", {class: group.cpus ? "node" : "node memory"},
      make("b", {}, group.from === group.to ? "Node " + group.from : "Nodes " + group.from + " to " + group.to),
      group.says, ...group.lines.map((line) => make("i", {}, line))));
    const picked = list.filter(([id]) => shown.has(id)).slice(0, 16), hidden = list.length - shown.size;
    const wrap = make("div", {}, box);
    if (hidden > 0) wrap.append(make("p", {class: "dim"}, hidden + " more nodes are empty and without a GPU."));
    if (picked.length > 1) {
      const lines = picked.map(([id, , , , distances]) => make("tr", {}, make("th", {scope: "row"}, String(id)),
        ...picked.map(([other]) => make("td", {}, String(distances[other] === undefined ? "" : distances[other])))));
      wrap.append(fold("Distances", make("table", {class: "distances"}, make("tbody", {}, make("tr", {}, make("td"),
        ...picked.map(([id]) => make("th", {scope: "col"}, String(id)))), ...lines))));
    }
    return wrap;
  }

  function stages(list) {
    const grid = make("div", {class: "time"}), all = make("ul", {class: "checks"});
    for (const [name, changed, seconds, actions] of list) {
      const bar = make("span", {class: "bar"});
      bar.style.width = seconds === null || !data.longest ? "0" : Math.max(0.5, 100 * seconds / data.longest) + "%";
      grid.append(make("span", {}, name), make("span", {}, bar),
        make("span", {}, [seconds === null ? "" : seconds.toFixed(1) + " s", changed ? "changed" : ""].filter(Boolean).join(", ")));
      for (const action of actions) all.append(make("li", {}, name + ": " + text(action)));
    }
    const wrap = make("div", {}, grid);
    if (all.children.length) wrap.append(fold(all.children.length + " actions", all));
    return wrap;
  }

  function checkList(list) {
    return make("ul", {class: "checks"}, ...list.map(([id, status, why, remedy]) =>
      make("li", {}, pill(status), " ", make("b", {}, id), " " + why, remedy ? make("em", {}, " " + remedy) : null)));
  }

  function details(index) {
    const host = data.hosts[index], box = make("div", {class: "host"});
    const put = (title, content) => box.append(make("h4", {}, title), content);
    if (host.f) box.append(make("p", {class: "why"}, host.f + (host.a ? " " + host.a : "")));
    if (host.b) box.append(make("p", {class: "quarantined"}, "A reboot is due."));
    box.append(make("p", {class: "dim"}, "Record of " + host.t));
    for (const entry of host.g || []) box.append(gpu(entry));
    if (host.n !== undefined) put("NUMA", nodes(data.nodes[host.n], host.g || []));
    if (host.c) {
      const all = host.c.map((number) => data.checks[number]), bad = all.filter((check) => check[1] !== "ok");
      const good = all.filter((check) => check[1] === "ok");
      put("Checks", bad.length ? checkList(bad) : make("p", {class: "dim"}, "All are ok."));
      if (good.length) box.append(fold(good.length + " checks that are ok", checkList(good)));
    }
    if (host.d) put("Domains", make("ul", {class: "checks"}, ...host.d.map(([name, state, restart, warnings]) =>
      make("li", {}, make("b", {}, name), " " + text(state) + (restart ? ", a restart is due" : "")
        + warnings.map((warning) => " " + warning).join("")))));
    if (host.s) put("Stages", stages(host.s));
    if (host.k) put("Host", facts(host.k));
    return make("tr", {class: "details"}, make("td", {colspan: String(heads.length)}, box));
  }

  function toggle(row, open) {
    const button = row.querySelector("button.open"), next = row.nextElementSibling;
    const isOpen = button.getAttribute("aria-expanded") === "true";
    if (isOpen === open) return;
    button.setAttribute("aria-expanded", String(open));
    if (open) row.after(details(Number(row.dataset.index)));
    else if (next && next.classList.contains("details")) next.remove();
  }

  function shows(row) {
    const cells = row.cells, wanted = find.value.trim().toLowerCase();
    return (!outcome || cells[1].textContent === outcome) && (!product.value || cells[2].textContent.includes(product.value))
      && wanted.split(/\s+/).every((word) => row.dataset.text.includes(word));
  }
  function filter() {
    let count = 0;
    for (const row of rows) {
      const shown = shows(row);
      if (!shown) toggle(row, false);
      row.hidden = !shown;
      count += shown ? 1 : 0;
    }
    document.getElementById("count").textContent = count + " of " + rows.length + " hosts";
  }

  function sort(column, down) {
    const cell = (row) => row.cells[column], numeric = heads[column].className === "number";
    const value = (row) => (numeric ? Number(cell(row).dataset.v || cell(row).textContent || -1) : cell(row).textContent);
    const order = new Intl.Collator("en", {numeric: true});
    const keyed = rows.map((row) => [value(row), row]);
    keyed.sort((one, other) => (numeric ? one[0] - other[0] : order.compare(one[0], other[0])) * (down ? -1 : 1));
    heads.forEach((head, number) => {
      if (number === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    rows.forEach((row) => toggle(row, false));
    body.append(...keyed.map(([, row]) => row));
  }

  function choose(name) {
    outcome = outcome === name ? "" : name;
    for (const button of document.querySelectorAll(".outcomes button"))
      button.setAttribute("aria-pressed", String(button.dataset.outcome === outcome));
    filter();
  }
  function go(host) {
    choose(outcome);
    product.value = "";
    find.value = "";
    filter();
    const row = rows.find((candidate) => candidate.querySelector("button.open").textContent === host);
    if (!row) return;
    toggle(row, true);
    row.scrollIntoView({block: "start"});
    row.querySelector("button.open").focus({preventScroll: true});
  }

  for (const row of rows) {
    row.dataset.text = row.textContent.toLowerCase();
    const head = row.cells[0], button = make("button", {type: "button", class: "open", "aria-expanded": "false"}, head.textContent);
    head.replaceChildren(button);
  }
  body.addEventListener("click", (event) => {
    const row = event.target.closest("tr[data-index]");
    if (row && !window.getSelection().toString())
      toggle(row, row.querySelector("button.open").getAttribute("aria-expanded") !== "true");
  });
  heads.forEach((head, column) => {
    const button = make("button", {type: "button"}, head.textContent);
    button.addEventListener("click", () => sort(column, head.getAttribute("aria-sort") === "ascending"
      || (head.className === "number" && !head.hasAttribute("aria-sort"))));
    head.replaceChildren(button);
  });
  document.querySelectorAll(".outcomes button").forEach((button) =>
    button.addEventListener("click", () => choose(button.dataset.outcome)));
  document.querySelectorAll("a[data-host]").forEach((link) => link.addEventListener("click", (event) => {
    event.preventDefault();
    go(link.dataset.host);
  }));
  find.addEventListener("input", filter);
  product.addEventListener("change", filter);
  document.querySelector(".controls").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("all").addEventListener("click", () =>
    rows.filter((row) => !row.hidden).slice(0, 100).forEach((row) => toggle(row, true)));
  window.addEventListener("beforeprint", () =>
    rows.filter((row) => !row.hidden && row.cells[1].textContent !== "verified").slice(0, 50)
      .forEach((row) => toggle(row, true)));
  document.querySelector(".controls").hidden = false;
  filter();
  if (rows.length === 1) toggle(rows[0], true);
}());
